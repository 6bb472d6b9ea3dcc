"""Kind `prototype`: League of Legends as the first prototype kept it, folders of pictures with what was seen or read.

Three layouts, one folder for each recording:

- `<video>/frames/frame_000000.jpg` ... (or right in `<video>`) and `features.json`: read off the picture of a replay.
- `<match>/frames/000000.png` ..., `labels.json` and `clicks.json`: read from the game's memory (prototype_labels.py).
- pictures named `frame_000000.jpg` ... alone: play without actions.

Shapes: N frames, K = 8 keys.

Decision: `features.json` says of frame t what changed from frame t-1 to it (optical flow; an icon that went dark). That
is the effect of what was done on seeing frame t-1: every row but the first is given to the frame before it. Gold that
appeared in frame t came with frame t.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import AhriuwuError, InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.sources.imports.fields import Entry, read_json, settings, shown
from ahriuwu_cli.sources.imports.folders import counted_from_zero, folders_of, pictures_of
from ahriuwu_cli.sources.imports.frames import ImageFiles
from ahriuwu_cli.sources.imports.protocol import Found, Happenings, Recorded, RecordingError, Rows, Source
from ahriuwu_cli.sources.imports.prototype_labels import LabelledMatch
from ahriuwu_cli.sources.imports.prototype_space import KEYS, MOST_GOLD, SECTORS, STILL, differences

FEATURES, LABELS, CLICKS = "features.json", "labels.json", "clicks.json"
FIRST_FRAMES = ("frame_000000.jpg", "frame_000000.png")
FIELDS = ("ability_q", "ability_w", "ability_e", "ability_r", "summoner_d", "summoner_f", "item_used", "recall_b")
"""Of `features.json`, in the order of KEYS."""
SLOWEST = 1.0
"""Pixels of the 1080p picture from a frame to the next, on both axes; what moved less was written down as sector 0."""


class PrototypeOptions(Section):
    """Options of kind `prototype`."""

    fps: float = Field(default=20.0, gt=0, le=1000, description="frames per second of folders of pictures alone")


class PrototypeImporter:
    """See Importer."""

    KIND = "prototype"
    SAYS = "League of Legends folders of the first prototype: frames with features.json, or labels.json and clicks.json"
    EXTRA: str | None = None

    def detect(self, source: Path) -> str | None:
        """See Importer."""
        try:
            first = next(folders_of(source, _has_side_car), None)
        except (AhriuwuError, OSError):
            return None
        return None if first is None else f"{FEATURES if (first / FEATURES).is_file() else LABELS} beside frames"

    def open_source(self, source: Path, options: Mapping[str, Any]) -> Source:
        """See Importer."""
        chosen = settings(PrototypeOptions, options, self.KIND)
        recordings = [_found(folder, source, chosen) for folder in folders_of(source, _is_recording)]
        if not recordings:
            raise InputError(
                f"{source} has no recordings of the first prototype",
                hint=f"give a folder with {FEATURES} or {LABELS} beside its frames, or the folder around such folders",
            )
        action = ActionSpec(
            components=(
                ActionComponent(
                    name="movement", type="categorical", num_classes=STILL + 1, labels=SECTORS, aggregate="mode"
                ),
                ActionComponent(name="keys", type="binary", dim=len(KEYS), labels=KEYS, aggregate="any"),
            )
        )
        return Source(action=action, recordings=recordings)


def _has_side_car(folder: Path) -> bool:
    return (folder / FEATURES).is_file() or ((folder / LABELS).is_file() and (folder / "frames").is_dir())


def _is_recording(folder: Path) -> bool:
    places = (folder, folder / "frames")
    return _has_side_car(folder) or any((place / name).is_file() for place in places for name in FIRST_FRAMES)


def _found(folder: Path, source: Path, options: PrototypeOptions) -> Found:
    pictures = pictures_of(folder / "frames") or [path for path in pictures_of(folder) if path.stem[:6] == "frame_"]
    name = shown(folder, source)
    if (folder / LABELS).is_file():
        side_cars = tuple(path for path in (folder / LABELS, folder / CLICKS) if path.is_file())
        return Found(name, (*side_cars, *pictures), LabelledMatch(folder, source, pictures).open)
    if (folder / FEATURES).is_file():
        return Found(name, (folder / FEATURES, *pictures), lambda: _open_features(folder, source, pictures))
    return Found(name, tuple(pictures), lambda: _open_pictures(name, pictures, options.fps))


def _open_pictures(name: str, pictures: list[Path], fps: float) -> Recorded:
    ordered = counted_from_zero(pictures, name)
    notes = ("neither features.json nor labels.json: its actions are not known",)
    return Recorded(ImageFiles(ordered, np.arange(len(ordered)) / fps), notes=notes)


def _open_features(folder: Path, source: Path, pictures: list[Path]) -> Recorded:
    """A video with `features.json`."""
    name = shown(folder / FEATURES, source)
    head = read_json(folder / FEATURES, name)
    rows = head.entries("frames")
    ordered = counted_from_zero(pictures, shown(folder, source))
    if head.whole("num_frames", 0, 1 << 31, default=len(rows)) != len(rows):
        raise head.wrong("num_frames", f"{len(rows)}, the number of its frames")
    if len(rows) != len(ordered) or not rows:
        raise RecordingError(name, f"{len(rows)} frames in it, and {len(ordered)} pictures; expected as many, and some")
    times = _times(rows)
    movement = np.array([[_sector(row)] for row in rows], np.float32)  # (N, 1)
    keys = np.array([[row.flag(key, default=_default(key)) for key in FIELDS] for row in rows], np.float32)  # (N, K)
    gold = np.array([[row.number("gold_gained", 0, MOST_GOLD)] for row in rows], np.float32)  # (N, 1)
    numbers = range(1, len(rows))
    moved = {
        f"health_bar_d{axis}": differences(times, [row.number_or_none(f"health_bar_{axis}", -1e5, 1e5) for row in rows])
        for axis in "xy"
    }
    return Recorded(
        frames=ImageFiles(ordered, times),
        actions={
            "movement": Rows(times[:-1], movement[1:], file=name, numbers=numbers),
            "keys": Rows(times[:-1], keys[1:], file=name, numbers=numbers),
        },
        reward=Happenings(times, gold),
        events={"gold": Happenings(times, gold)} | {name: track for name, track in moved.items() if len(track.times)},
        notes=_notes(rows),
    )


def _default(key: str) -> bool | None:
    """Recall was not looked for at first."""
    return False if key == "recall_b" else None


def _times(rows: list[Entry]) -> np.ndarray:
    times = np.array([row.number("timestamp_ms", 0) for row in rows]) / 1000
    for number, row in enumerate(rows):
        if row.whole("frame_idx", 0, 1 << 31) != number:
            raise row.wrong("frame_idx", f"{number}, its place from 0")
        if number and times[number] <= times[number - 1]:
            raise row.wrong("timestamp_ms", f"more than {1000 * times[number - 1]:g}, that of the frame before")
    return times


def _sector(row: Entry) -> int:
    """Where the champion went: the sector, or STILL where 0 was written for want of movement."""
    sector = row.whole("movement_slice", 0, STILL - 1)
    moved = max(abs(row.number("movement_dx")), abs(row.number("movement_dy")))
    return STILL if sector == 0 and moved < SLOWEST else sector


def _notes(rows: list[Entry]) -> list[str]:
    notes = []
    if not any("recall_b" in row for row in rows):
        notes.append("features.json has no recall_b: B is never pressed")
    if any("mouse_x" in row for row in rows):
        notes.append("mouse_x and mouse_y are left out: they were guessed, not read")
    return notes
