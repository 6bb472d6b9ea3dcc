"""What a recording has put into a store since the manifest was written: one line each, so that none waits for it.

A manifest is written anew as a whole, which for each of many episodes would cost time that grows with their square.
The journal's first line names the manifest that it goes on from; with another one it says nothing any more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.files import REFUSALS, refused
from ahriuwu_cli.core.names import EpisodeId, Fingerprint
from ahriuwu_cli.episodes.manifest import EpisodeRecord, Skipped, Unfinished

JOURNAL_NAME = "journal.jsonl"


class Head(Section):
    """The first line: the fingerprint of the manifest, who plays, and the seed of every planned episode by its id."""

    of: Fingerprint
    policy: str
    seeds: dict[EpisodeId, int] = Field(default_factory=dict)


class Journal:
    """The journal of one store's folder.

    Attributes:
        head: as in the file; None before anything is written.
        records: of episodes whose files are whole, in order of ending.
        skipped: of episodes that could not be stored.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL_NAME
        self.head: Head | None = None
        self.records: list[EpisodeRecord] = []
        self.skipped: list[Skipped] = []

    @classmethod
    def read(cls, folder: Path, of: str) -> Journal:
        """The journal that goes on from the manifest with fingerprint `of`; empty where there is none.

        Lines that a kill or a full disk cut short are left out.
        """
        journal = cls(folder)
        if not journal.path.is_file():
            return journal
        lines = journal.path.read_text(encoding="utf-8", errors="replace").split("\n")
        for line in filter(None, lines):
            try:
                journal._take(json.loads(line))
            except (ValueError, KeyError, TypeError, ValidationError):
                continue
        return journal if journal.head is not None and journal.head.of == of else cls(folder)

    def planned(self) -> list[Unfinished]:
        """All episodes of the plan."""
        if self.head is None:
            return []
        policy = self.head.policy
        return [Unfinished(id=name, policy=policy, seed=seed) for name, seed in self.head.seeds.items()]

    def begin(self, of: str, policy: str, seeds: Mapping[str, int]) -> None:
        """Start anew, from the manifest with fingerprint `of`."""
        self.path.unlink(missing_ok=True)
        self.records, self.skipped, self.head = [], [], None
        self._put("head", Head(of=of, policy=policy, seeds=dict(seeds)))

    def add(self, record: EpisodeRecord) -> None:
        """Note an episode whose file is whole."""
        self._put("episode", record)

    def skip(self, skipped: Skipped) -> None:
        """Note an episode that could not be stored."""
        self._put("skipped", skipped)

    def remove(self) -> None:
        """Remove the file: the manifest says everything."""
        self.path.unlink(missing_ok=True)
        self.records, self.skipped, self.head = [], [], None

    def _put(self, key: str, value: Section) -> None:
        """Append a line and sync it."""
        line = {key: value.model_dump(mode="json")}
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(f"\n{json.dumps(line)}\n")  # a line cut short before this one ends here
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            raise refused(self.path, error) from error
        self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        [(key, value)] = line.items()
        if key == "head":
            self.head = Head.model_validate(value)
        elif key == "episode":
            self.records.append(EpisodeRecord.model_validate(value))
        elif key == "skipped":
            self.skipped.append(Skipped.model_validate(value))
