"""What an exporter is: one foreign format, a module in this folder with these names, and a line in registry.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.exports.survey import Survey

Done = Callable[[int], None]  # (episodes written)


class Exporter(Protocol):
    """Writes a whole store in one format, so that `data import` of the kind of that name brings it back."""

    FORMAT: str
    """Its name on the command line, and the kind by which it is imported."""
    SAYS: str
    """What it writes, in one line of words."""

    def losses(self, store: EpisodeStore, survey: Survey) -> Sequence[str]:
        """What of this store does not come back as it is, in words, beyond what no format holds (survey.py).

        Raises:
            InputError: the store cannot be written in this format, or a library is missing.
        """
        ...

    def write(self, store: EpisodeStore, survey: Survey, folder: Path, done: Done) -> None:
        """Write everything into `folder`, which is empty; frames are in memory piece by piece only.

        Raises:
            ArtifactError: an episode of the store is damaged.
            OSError: it cannot be written.
        """
        ...

    def again(self, survey: Survey, folder: Path) -> Sequence[str]:
        """Options that `ahriuwu data import` of `folder` needs beside size and rate, as words of a command line."""
        ...
