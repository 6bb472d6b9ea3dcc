"""NPZ files of replay buffers, Dreamer style: an array each for pictures, actions, rewards and ends, a row a frame.

Shapes: N frames of an episode, A columns of an action.

Reward and ends of row t came with frame t. Whether action t led to frame t (V1, V2) or was chosen on seeing it (V3) is
told from the first actions, or asked for (npz_actions.py). Nothing says at what rate it was played: `fps` is an option,
and the rows are taken to be even.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.specs import LARGEST, ActionSpec
from ahriuwu_cli.sources.imports.array_pictures import Colours, as_picture, as_rgb, is_picture
from ahriuwu_cli.sources.imports.fields import settings
from ahriuwu_cli.sources.imports.npz_actions import (
    ACTION,
    Alignment,
    Survey,
    as_rows,
    find_alignment,
    make_spec,
    survey,
)
from ahriuwu_cli.sources.imports.npz_chunks import FIRST, Part, Stretch, list_files, opened, stretches, title
from ahriuwu_cli.sources.imports.protocol import Found, FrameSource, Happenings, Recorded, RecordingError, Rows, Source
from ahriuwu_cli.sources.imports.tiles import Tiles, choose_cameras

KIND = "npz"
REWARD, LAST, TERMINAL, DISCOUNT = "reward", "is_last", "is_terminal", "discount"


class Options(Section):
    """Settings of the kind."""

    fps: float = Field(default=15.0, gt=0, le=1000, description="rows per second")
    action: Alignment | None = Field(
        default=None,
        description="led: row t has the action that led to frame t; chosen: the one chosen on seeing it; "
        "left out: told from the data where it can be",
    )
    cameras: str | list[str] = Field(
        default="", description="array with the pictures; several are tiled; all; may be left out where there is one"
    )
    num_actions: int | None = Field(default=None, ge=2, le=LARGEST, description="choices, where not all were made")
    aggregate: Literal["mean", "sum", "last"] = Field(
        default="mean", description="how continuous actions between two frames become one"
    )
    colours: Colours = Field(default="rgb", description="their order in the pictures; bgr: as OpenCV keeps them")


@dataclass(frozen=True)
class _Replay:
    """What the episodes of a source have in common."""

    cameras: tuple[str, ...]
    spec: ActionSpec
    seen: Survey
    alignment: Alignment
    fps: float
    colours: Colours


class NpzImporter:
    """See Importer."""

    KIND = KIND
    SAYS = "NPZ files of a replay buffer (Dreamer V1, V2, V3): image, action, reward, is_first, is_last, is_terminal"
    EXTRA: str | None = None

    def detect(self, source: Path) -> str | None:
        """See Importer."""
        try:
            name = next(iter(list_files(source)), None)
            if name is None or Path(name).suffix != ".npz":
                return None
            root = source.parent if source.is_file() else source
            names = set(opened(root, name).names())
        except (OSError, RecordingError):
            return None
        wanted = names & {FIRST, TERMINAL, DISCOUNT}
        return (
            f"{Path(name).name} with {ACTION}, {REWARD}, {min(wanted)}"
            if {ACTION, REWARD} <= names and wanted
            else None
        )

    def open_source(self, source: Path, options: Mapping[str, Any]) -> Source:
        """See Importer."""
        chosen = settings(Options, options, KIND)
        names = list_files(source)
        if not names:
            raise InputError(f"{source} has no .npz files", hint="give the folder with the episodes of a replay buffer")
        root = source.parent if source.is_file() else source
        defects: list[RecordingError] = []
        found = [each for each in stretches(root, names, defects) if len(each)]
        if not found:
            raise InputError(
                f"{source}: {defects[0] if defects else 'its files have no rows'}", hint="give other files"
            )
        cameras = choose_cameras(_pictures(found), chosen.cameras, KIND)
        unreadable: list[RecordingError] = []  # told again when the episode is opened
        seen = survey(found, unreadable)
        alignment = find_alignment(seen, chosen.action)
        spec = make_spec(seen, chosen.num_actions, chosen.aggregate)
        replay = _Replay(tuple(cameras), spec, seen, alignment, chosen.fps, chosen.colours)
        how = "led to its frame" if alignment == "led" else "was chosen on seeing its frame"
        return Source(
            spec, [_found(replay, each) for each in found], chosen.fps, defects, [f"the action of a row {how}"]
        )


def _pictures(found: Sequence[Stretch]) -> list[str]:
    """Arrays of the first file that can be read that are pictures."""
    for stretch in found:
        part = stretch.parts[0]
        try:
            archive = part.archive()
            headers = {name: archive.header(name) for name in archive.names()}
        except RecordingError:
            continue
        return [
            name
            for name, (shape, kind) in headers.items()
            if kind == np.uint8 and is_picture(shape[1:]) and not name.startswith("log")
        ]
    return []


def _found(replay: _Replay, stretch: Stretch) -> Found:
    name, part = title(stretch)
    files = dict.fromkeys(each.root / each.name for each in stretch.parts)
    return Found(name, tuple(files), partial(_open, replay, stretch), part)


# ---------------------------------------------------------------- one episode


def _open(replay: _Replay, stretch: Stretch) -> Recorded:
    times = np.arange(len(stretch)) / replay.fps
    pieces = [as_rows(replay.spec, replay.seen, part) for part in stretch.parts]
    values, valid = np.concatenate([rows for rows, _ in pieces]), np.concatenate([known for _, known in pieces])
    numbers = [row for part in stretch.parts for row in range(part.start, part.stop)]
    if replay.alignment == "led":
        track = Rows(times[:-1], values[1:], valid[1:], stretch.parts[0].name, numbers[1:])
    else:
        track = Rows(times, values, valid, stretch.parts[0].name, numbers)
    reward = np.concatenate([_column(part, REWARD) for part in stretch.parts]).astype(np.float32)
    last = _flags(stretch, LAST, lambda column: column != 0)
    over = _flags(stretch, TERMINAL, lambda column: column != 0)
    if over is None:
        over = _flags(stretch, DISCOUNT, lambda column: column == 0)
    for name, flags in ((LAST, last), (TERMINAL, over)):
        _require_end(stretch, name, flags)
    return Recorded(
        frames=Tiles([_camera(stretch, camera, times, replay.colours) for camera in replay.cameras]),
        actions={ACTION: track},
        reward=Happenings(times, reward[:, None]),
        terminal=over is not None and bool(over[-1]),
    )


def _column(part: Part, key: str) -> np.ndarray:
    """One number a row, (M,), all finite."""
    found = part.array(part.archive(), key)
    if found.size != len(part) or found.dtype.kind not in "biuf":
        raise RecordingError(part.name, f"array {key} is {found.dtype} of shape {found.shape}; expected a number a row")
    column = found.reshape(-1)
    wrong = np.flatnonzero(~np.isfinite(column))
    if len(wrong):
        raise RecordingError(part.name, f"{key} is {column[wrong[0]]}; expected a number", part.start + int(wrong[0]))
    return column


def _flags(stretch: Stretch, key: str, true: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
    """Where something is true, (N,) bool; None where the files do not say."""
    if any(key not in part.archive().names() for part in stretch.parts):
        return None
    return np.concatenate([true(_column(part, key)) for part in stretch.parts])


def _require_end(stretch: Stretch, name: str, flags: np.ndarray | None) -> None:
    """An end is that of the episode: nothing follows."""
    if flags is not None and flags[:-1].any():
        row = int(np.argmax(flags[:-1]))
        for part in stretch.parts:
            if row < len(part):
                reason = f"{name} says that the episode ends, and it goes on"
                raise RecordingError(part.name, reason, row=part.start + row)
            row -= len(part)


class _PartPictures:
    """Pictures in the parts of an episode, one array each, read row by row; see FrameSource."""

    def __init__(self, stretch: Stretch, key: str, times: np.ndarray, colours: Colours) -> None:
        self._stretch, self._key, self.times, self._colours = stretch, key, times, colours

    def chosen(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """See FrameSource."""
        rows, passed = self._rows(), -1
        for number in numbers:
            while passed < number:
                name, row, values = next(rows)
                passed += 1
            yield as_rgb(as_picture(values, name, row), self._colours)

    def close(self) -> None:
        """See FrameSource."""

    def _rows(self) -> Iterator[tuple[str, int, np.ndarray]]:
        """File, row and values of every frame in order."""
        for part in self._stretch.parts:
            rows = part.archive().rows(self._key)
            for row in range(part.stop):
                values = next(rows)
                if row >= part.start:
                    yield part.name, row, values


def _camera(stretch: Stretch, key: str, times: np.ndarray, colours: Colours) -> FrameSource:
    for part in stretch.parts:
        shape, kind = part.archive().header(key)
        part.require_height(key, shape)
        if kind != np.uint8 or not is_picture(shape[1:]):
            raise RecordingError(part.name, f"array {key} is {kind} of shape {shape}; expected pictures of bytes")
    return _PartPictures(stretch, key, times, colours)
