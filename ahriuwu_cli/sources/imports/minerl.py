"""Kind `minerl`: the MineRL v0 data set, `<task>/<recording>/{recording.mp4, rendered.npz, metadata.json}`.

`rendered.npz` has an array for every part of the action (`action$forward`, `action$camera`, ...), what was in the
inventory, and `reward`. Action t was taken on seeing frame t, reward t came with frame t+1. The video begins before the
play does: its last len(reward) + 1 frames are those of the play (minerl/data/data_pipeline.py, load_data).

Shapes: T actions, T+1 frames.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import AhriuwuError, InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.sources.imports.archive import Archive
from ahriuwu_cli.sources.imports.fields import read_json, settings, shown
from ahriuwu_cli.sources.imports.folders import folders_of
from ahriuwu_cli.sources.imports.frames import PickedFrames, VideoSource
from ahriuwu_cli.sources.imports.protocol import (
    Found,
    Happenings,
    Recorded,
    RecordingError,
    Rows,
    Source,
    Track,
)

VIDEO, ARRAYS, ABOUT = "recording.mp4", "rendered.npz", "metadata.json"
ACTION, STOCK = "action$", "observation$inventory$"
KEYS = ("attack", "back", "forward", "jump", "left", "right", "sneak", "sprint", "use")
"""Parts of the action that are pressed or not."""
FPS = 20.0
NOTHING = "none"
MOST_CLASSES = 1000
TURN = 180.0
"""Degrees of the camera in one step, to either side."""


class MinerlOptions(Section):
    """Options of kind `minerl`: none."""


class MinerlImporter:
    """See Importer."""

    KIND = "minerl"
    SAYS = f"MineRL v0: folders with {VIDEO}, {ARRAYS} and {ABOUT}"
    EXTRA: str | None = None

    def detect(self, source: Path) -> str | None:
        """See Importer."""
        with suppress(AhriuwuError, OSError):
            if next(folders_of(source, _is_recording, depth=2), None) is not None:
                return f"{VIDEO} and {ARRAYS} in a folder"
        return None

    def open_source(self, source: Path, options: Mapping[str, Any]) -> Source:
        """See Importer."""
        settings(MinerlOptions, options, self.KIND)
        folders = list(folders_of(source, _is_recording, depth=2))
        if not folders:
            raise InputError(
                f"{source} has no folder with {VIDEO} and {ARRAYS}",
                hint="give the folder of the data set, of one of its tasks or of one recording",
            )
        space = Space.of(folders)
        recordings = []
        for folder in folders:
            files = tuple(path for path in (folder / VIDEO, folder / ARRAYS, folder / ABOUT) if path.is_file())
            recordings.append(Found(shown(folder, source), files, _opener(folder, source, space)))
        return Source(action=space.spec(), recordings=recordings, fps=FPS)


def _is_recording(folder: Path) -> bool:
    return (folder / ARRAYS).is_file() and (folder / VIDEO).is_file()


@dataclass(frozen=True)
class Space:
    """What can be done in any of the recordings.

    Attributes:
        keys: what is pressed or not.
        choices: by name, what is chosen among; the first one is nothing.
        turns: whether the camera turns.
    """

    keys: tuple[str, ...]
    choices: Mapping[str, tuple[str, ...]]
    turns: bool

    @classmethod
    def of(cls, folders: Sequence[Path]) -> Space:
        """What the arrays of recordings name. One that cannot be read says nothing here; it is told when it is opened.

        Raises:
            InputError: none names any action.
        """
        keys, turns = set(), False
        words: dict[str, set[str]] = {}
        for folder in folders:
            with suppress(RecordingError):
                archive = Archive(folder / ARRAYS, ARRAYS)
                names = [name.removeprefix(ACTION) for name in archive.names() if name.startswith(ACTION)]
                keys |= {name for name in names if name in KEYS}
                turns |= "camera" in names
                for name in set(names) - {*KEYS, "camera"}:
                    with suppress(RecordingError):
                        column = archive.column(ACTION + name)
                        words.setdefault(name, set()).update(map(_word, np.unique(column).tolist()))
        crowded = sorted(name for name, found in words.items() if len(found) >= MOST_CLASSES)
        if crowded or not (keys or turns or words):
            what = f"more than {MOST_CLASSES} choices of {crowded[0]}" if crowded else "no action that can be read"
            raise InputError(f"{ARRAYS} files name {what}", hint="this is not MineRL v0 as it was published")
        choices = {name: (NOTHING, *sorted(words[name] - {NOTHING}, key=_order)) for name in sorted(words)}
        return cls(
            keys=tuple(key for key in KEYS if key in keys),
            choices={name: found if len(found) > 1 else (*found, "other") for name, found in choices.items()},
            turns=turns,
        )

    def spec(self) -> ActionSpec:
        """The spec of these actions."""
        parts = []
        if self.turns:
            parts.append(
                ActionComponent(
                    name="camera",
                    type="continuous",
                    dim=2,
                    low=-TURN,
                    high=TURN,
                    labels=("pitch in degrees", "yaw in degrees"),
                    aggregate="sum",
                )
            )
        if self.keys:
            parts.append(
                ActionComponent(name="keys", type="binary", dim=len(self.keys), labels=self.keys, aggregate="any")
            )
        parts += [
            ActionComponent(
                name=name, type="categorical", num_classes=len(words), labels=tuple(words), aggregate="mode"
            )
            for name, words in self.choices.items()
        ]
        return ActionSpec(components=tuple(parts))

    def tracks(self, archive: Archive, times: np.ndarray, name: str) -> dict[str, Track]:
        """What was done from each frame (T,) on. What a task does not offer was not done."""
        count, there = len(times), set(archive.names())
        found: dict[str, np.ndarray] = {}
        if self.turns:
            camera = archive.array(ACTION + "camera") if ACTION + "camera" in there else np.zeros((count, 2))
            if camera.shape != (count, 2) or camera.dtype.kind not in "iuf":
                raise RecordingError(
                    name, f"array {ACTION}camera is {camera.dtype} {camera.shape}; expected numbers ({count}, 2)"
                )
            found["camera"] = _floats(camera)
        if self.keys:
            columns = [
                _numbers(archive, ACTION + key, count, name) if ACTION + key in there else np.zeros(count, np.float32)
                for key in self.keys
            ]
            found["keys"] = np.stack(columns, axis=1)
        for part, words in self.choices.items():
            column = archive.column(ACTION + part, count) if ACTION + part in there else np.full(count, NOTHING)
            found[part] = np.array([[_place(value, words, part, name)] for value in column.tolist()], np.float32)
        return {part: Rows(times, values, file=name, numbers=range(count)) for part, values in found.items()}


def _word(value: Any) -> str:
    """A choice as a word; older files number them, from nothing on."""
    if isinstance(value, str):
        return value
    return NOTHING if value == 0 else f"{value:g}"


def _place(value: Any, words: tuple[str, ...], part: str, name: str) -> int:
    word = _word(value)
    if word not in words:  # the file changed after its choices were read
        raise RecordingError(name, f"{ACTION}{part} is {ascii(word)[:60]}; expected one of {len(words)} choices")
    return words.index(word)


def _order(word: str) -> tuple[int, float, str]:
    return (0, float(word), word) if re.fullmatch(r"\d+", word) else (1, 0.0, word)


def _numbers(archive: Archive, array: str, count: int, name: str) -> np.ndarray:
    found = archive.column(array, count)
    if found.dtype.kind == "U":
        raise RecordingError(name, f"array {array} holds words; expected numbers")
    return _floats(found)


def _floats(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _opener(folder: Path, source: Path, space: Space) -> Any:
    return lambda: _open(folder, source, space)


def _open(folder: Path, source: Path, space: Space) -> Recorded:
    name = shown(folder / ARRAYS, source)
    archive = Archive(folder / ARRAYS, name)
    reward = _numbers(archive, "reward", len(archive.column("reward")), name)
    wrong = np.flatnonzero(~np.isfinite(reward))
    if len(wrong):
        raise RecordingError(name, f"reward is {reward[wrong[0]]}; expected a number", row=int(wrong[0]))
    ended, notes = _about(folder, source)
    video = VideoSource(folder / VIDEO, name=shown(folder / VIDEO, source))
    try:
        if not len(reward) or len(video.times) <= len(reward):
            raise RecordingError(
                name, f"{len(reward)} rewards for {len(video.times)} frames; expected some, and a frame more at least"
            )
        play = np.arange(len(video.times) - len(reward) - 1, len(video.times))
        frames = PickedFrames(video, play, video.times[play])
        tracks = space.tracks(archive, frames.times[:-1], name)
        return Recorded(
            frames=frames,
            actions=tracks,
            reward=Happenings(frames.times[1:], reward[:, None]),
            events=_gains(archive, frames.times, name),
            terminal=ended,
            task=folder.parent.name if folder.parent.name.startswith("MineRL") else None,
            notes=notes,
        )
    except RecordingError:
        video.close()
        raise


def _about(folder: Path, source: Path) -> tuple[bool, list[str]]:
    """Whether the play ended by reaching its goal, and what is to be told."""
    if not (folder / ABOUT).is_file():
        return False, [f"no {ABOUT}: whether the goal was reached is not known, it is taken to be cut off"]
    return read_json(folder / ABOUT, shown(folder / ABOUT, source)).flag("success", default=False), []


def _gains(archive: Archive, times: np.ndarray, name: str) -> dict[str, Happenings]:
    """How much more of each thing was in the inventory with a frame than with the one before it."""
    found = {}
    for array in archive.names():
        if array.startswith(STOCK):
            held = _numbers(archive, array, len(times), name)
            if not np.isfinite(held).all():
                raise RecordingError(name, f"{array} is not finite", row=int(np.argmin(np.isfinite(held))))
            event = re.sub(r"[^A-Za-z0-9_]", "_", array.removeprefix(STOCK))
            if (held != held[0]).any():
                found[f"gained_{event}"] = Happenings(times[1:], np.diff(held)[:, None])
    return found
