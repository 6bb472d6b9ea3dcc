"""Windows that nothing is learned from: those of the held-out episodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.latents.rewards import Relevance
from ahriuwu_cli.latents.windows import LatentWindows


def heldout_windows(
    folder: Path, tasks: Mapping[str, str] = MappingProxyType({}), relevance: Relevance | None = None
) -> LatentWindows | None:
    """The windows of the held-out split; None where no episode (of these tasks) is held out.

    Args:
        folder: a packed artifact.
        tasks: see `LatentWindows`; relevance: too.
    """
    try:
        return LatentWindows(folder, "heldout", tasks, relevance)
    except DataError:
        return None
