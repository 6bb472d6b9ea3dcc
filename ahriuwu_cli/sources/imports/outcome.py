"""What an import came to: counted while it runs, told at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.imports.episodes import Piece
from ahriuwu_cli.sources.imports.protocol import RecordingError, Source
from ahriuwu_cli.sources.lookalikes import Lookalikes, compared, twice
from ahriuwu_cli.sources.summary import describe

SHOWN = 5
"""Defects that are told one by one; `--json` has all."""


@dataclass
class Tally:
    """What an import has come to so far."""

    imported: int = 0
    present: int = 0
    episodes: int = 0
    repeated: int = 0
    dropped: int = 0
    late: int = 0
    clipped: int = 0
    defects: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)  # in order, each once

    def defect(self, name: str, error: DataError) -> None:
        """Note why a recording was left out."""
        known = isinstance(error, RecordingError)
        self.defects.append(
            {
                "recording": name,
                "file": error.file if known else name,  # type: ignore[attr-defined]
                "row": error.row if known else None,  # type: ignore[attr-defined]
                "reason": error.reason if known else error.message,  # type: ignore[attr-defined]
            }
        )

    def take(self, piece: Piece) -> None:
        """Count an episode that was stored."""
        self.episodes += 1
        self.repeated += piece.kept.repeated
        self.dropped += piece.kept.dropped
        self.late += piece.kept.late
        self.clipped += piece.clipped


def outcome(store: EpisodeStore, notes: list[str], tally: Tally, source: Source, lookalikes: Lookalikes) -> Report:
    """What was imported, what was left out and why."""
    spec = store.frame_spec
    if tally.present:
        notes.append(f"{tally.present} recordings were there already")
    timing = ", ".join(
        f"{count} {what}"
        for count, what in ((tally.repeated, "kept twice"), (tally.dropped, "dropped"), (tally.late, "late"))
        if count
    )
    notes.append(f"frames at {spec.fps:g} per second: {timing or 'each came in time'}")
    if tally.clipped:
        notes.append(f"{tally.clipped} steps have sums beyond low or high of their action, and were brought to these")
    for defect in tally.defects[:SHOWN]:
        row = "" if defect["row"] is None else f", row {defect['row']}"
        notes.append(f"left out: {defect['file']}{row}: {defect['reason']}")
    if len(tally.defects) > SHOWN:
        notes.append(f"and {len(tally.defects) - SHOWN} more defects (--json has all)")
    pairs, unseen = compared(store, lookalikes)
    notes += twice(store, pairs, unseen)
    report = describe(store, f"Imported {tally.episodes} episodes of {tally.imported} recordings", notes)
    report.data["import"] = {
        "recordings": len(source.recordings),
        "imported": tally.imported,
        "present": tally.present,
        "episodes": tally.episodes,
        "frames": {"repeated": tally.repeated, "dropped": tally.dropped, "late": tally.late},
        "clipped": tally.clipped,
        "defects": tally.defects,
        "lookalikes": pairs,
    }
    return report
