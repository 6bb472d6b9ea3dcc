"""The first prototype's matches: pictures with `labels.json` and `clicks.json`, read from the game's memory.

Shapes: N frames, C casts, K = 8 keys.

Decisions: a key was pressed when its cast began (`game_t`), so it belongs to the frame that was seen then, not to the
next one, which shows it already. Movement is where the champion went within half a second after a frame (`movement`),
so it belongs to that frame. `gold` is not read (it is corrupt); `gold_total` only ever rises, so a reading below an
earlier one is a bad read and left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ahriuwu_cli.sources.imports.fields import Entry, read_json, shown
from ahriuwu_cli.sources.imports.folders import counted_from_zero
from ahriuwu_cli.sources.imports.frames import ImageFiles
from ahriuwu_cli.sources.imports.protocol import Happenings, Recorded, RecordingError, Rows, Track
from ahriuwu_cli.sources.imports.prototype_space import KEYS, MOST_GOLD, STILL, differences, sector_of


@dataclass(frozen=True)
class LabelledMatch:
    """A match that was found.

    Attributes:
        folder: of the match.
        source: that it was found in.
        pictures: its frames.
    """

    folder: Path
    source: Path
    pictures: list[Path]

    def open(self) -> Recorded:
        """Read it.

        Raises:
            RecordingError: labels, clicks or pictures are not what they should be.
        """
        name = shown(self.folder / "labels.json", self.source)
        head = read_json(self.folder / "labels.json", name)
        rows = head.entries("frames")
        ordered = counted_from_zero(self.pictures, shown(self.folder, self.source))
        if head.whole("total_frames", 0, 1 << 31, default=len(rows)) != len(rows):
            raise head.wrong("total_frames", f"{len(rows)}, the number of its frames")
        if len(rows) != len(ordered) or not rows:
            raise RecordingError(
                name, f"{len(rows)} frames in it, and {len(ordered)} pictures; expected as many, and some"
            )
        times = _times(rows)
        labels = [_label(row) for row in rows]
        actions, notes = _actions(labels, times, name), []
        if (self.folder / "clicks.json").is_file():
            keys, unused = _keys(
                read_json(self.folder / "clicks.json", shown(self.folder / "clicks.json", self.source))
            )
            actions["keys"] = keys
            notes += [f"casts in slots other than {', '.join(KEYS)} are left out: {unused}"] if unused else []
        else:
            notes.append("no clicks.json: its keys are not known, and so its actions are not")
        gold, bad = _gold(labels)
        notes += [f"readings of gold_total below an earlier one are left out: {bad}"] if bad else []
        gained, health = differences(times, gold), differences(times, _health(labels))
        return Recorded(
            ImageFiles(ordered, times),
            actions,
            reward=gained,
            events={"gold": gained, "health": health},
            notes=notes,
        )


def _times(rows: list[Entry]) -> np.ndarray:
    """Game time of every frame, (N,) seconds."""
    times = np.array([row.number("gt") for row in rows])
    for number, row in enumerate(rows):
        if row.whole("frame", 0, 1 << 31) != number:
            raise row.wrong("frame", f"{number}, its place from 0")
        if number and times[number] <= times[number - 1]:
            raise row.wrong("gt", f"more than {times[number - 1]:g}, that of the frame before")
    return times


def _label(row: Entry) -> Entry | None:
    """What is known of a frame; None where the champion was not found in memory (all zero then)."""
    label = row.entry_or_none("label")
    if label is None:
        return None
    found = label.entry("champion_stats").number("hp_max", default=1.0) > 0
    return label if found else None


def _actions(labels: list[Entry | None], times: np.ndarray, name: str) -> dict[str, Track]:
    sectors = [None if label is None else _sector(label) for label in labels]
    return {
        "movement": Rows(
            times,
            np.array([[0 if sector is None else sector] for sector in sectors], np.float32),
            valid=np.array([sector is not None for sector in sectors]),
            file=name,
            numbers=range(len(labels)),
        )
    }


def _sector(label: Entry) -> int | None:
    """Where the champion goes from a frame on; None where it is not known."""
    if "movement" not in label:
        return None
    movement = label.entry_or_none("movement")
    if movement is None:
        return STILL
    here, there = label.point("champion_world"), movement.point("heading_world")
    if here is not None and there is not None:
        return sector_of(there[0] - here[0], there[1] - here[1])
    here, there = label.point("champion_screen"), movement.point("heading_screen")
    if here is not None and there is not None:
        return sector_of(there[0] - here[0], here[1] - there[1])
    return None


def _keys(clicks: Entry) -> tuple[Happenings, int]:
    """Casts as presses of KEYS, and how many were in other slots."""
    pressed, unused = [], 0
    for cast in clicks.entries("casts"):
        slot = cast.text("slot") if cast.holds("slot") else ""
        if cast.holds("spell_name") and cast.text("spell_name").lower() == "recall":
            slot = "B"
        if slot in KEYS:
            pressed.append((cast.number("game_t"), KEYS.index(slot)))
        else:
            unused += 1
    pressed.sort()
    values = np.zeros((len(pressed), len(KEYS)), np.float32)  # (C, K)
    values[np.arange(len(pressed)), [key for _, key in pressed]] = 1
    return Happenings(np.array([time for time, _ in pressed], np.float64), values), unused


def _gold(labels: list[Entry | None]) -> tuple[list[float | None], int]:
    """Gold that was ever gained, as read in each frame, and how many readings were bad."""
    gold: list[float | None] = []
    highest, bad = 0.0, 0
    for label in labels:
        value = None if label is None else label.entry("champion_stats").number_or_none("gold_total", 0, MOST_GOLD)
        if value is not None and value < highest:
            value, bad = None, bad + 1
        highest = highest if value is None else value
        gold.append(value)
    return gold, bad


def _health(labels: list[Entry | None]) -> list[float | None]:
    return [None if label is None else label.entry("champion_stats").number_or_none("hp") for label in labels]
