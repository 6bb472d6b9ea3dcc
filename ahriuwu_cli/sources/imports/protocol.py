"""What an importer gives: recordings with frames on a clock, and what was done and what happened on that clock.

Shapes: N frames of a recording, h x w their pixels, M entries of a track, D columns of an action component.

All times are float64 seconds on one clock for each recording; where it begins does not matter. Nothing here knows the
run's frame rate: frames are chosen, and tracks are brought to steps, in clock.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.core.specs import ActionSpec

IMPORT_HINT = "correct the recording, or leave it out; the others are imported"


class RecordingError(DataError):
    """What is wrong with one recording: it is left out and listed.

    Attributes:
        file: as the source names it.
        row: of the file, counted as its reader would (lines of text from 1); None where no row is to blame.
        reason: in words, without file and row.
    """

    def __init__(self, file: str | Path, reason: str, row: int | None = None, hint: str = IMPORT_HINT) -> None:
        super().__init__(f"{file}{'' if row is None else f', row {row}'}: {reason}", hint=hint)
        self.file, self.row, self.reason = str(file), row, reason


class FrameSource(Protocol):
    """The frames of one recording, read in order."""

    @property
    def times(self) -> np.ndarray:
        """When each was shown, (N,) float64 seconds."""
        ...

    def chosen(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames by rising numbers: uint8 (h, w, 3) RGB, or grey (h, w).

        Raises:
            DataError: one is missing or damaged.
        """
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


@dataclass(frozen=True)
class Rows:
    """A value that holds from its time on until that of the next row.

    Attributes:
        times: (M,) float64, rising.
        values: (M, D) float32.
        valid: (M,) bool, False where the value is not known; None where all are.
        file: where they are from, for messages.
        numbers: (M,) rows of the file they are from, for messages; None where they are counted from 1.
    """

    times: np.ndarray
    values: np.ndarray
    valid: np.ndarray | None = None
    file: str = ""
    numbers: Sequence[int] | None = None


@dataclass(frozen=True)
class Switch:
    """A key or button that goes down and up.

    Attributes:
        times: (M,) float64, not falling.
        down: (M,) bool, what it is from that time on; the same again changes nothing.
        before: what it was before the first change.
    """

    times: np.ndarray
    down: np.ndarray
    before: bool = False


@dataclass(frozen=True)
class Switches:
    """Several of them, one for each column of a binary component."""

    switches: tuple[Switch, ...]


@dataclass(frozen=True)
class Happenings:
    """Values that come at a moment and do not last: mouse deltas, clicks, rewards.

    Attributes:
        times: (M,) float64, not falling.
        values: (M, D) float32.
    """

    times: np.ndarray
    values: np.ndarray


Track = Rows | Switches | Happenings


@dataclass(frozen=True)
class Recorded:
    """One recording, opened.

    Attributes:
        frames: its pictures.
        actions: by component of the source's action spec; a component without a track is not known.
        unknown: spans (from, to) in seconds in which actions are not known.
        reward: of each moment, (M, 1); None where there is none. A reward that came with a frame has the frame's time.
        events: by name, (M, 1), timed as rewards are.
        terminal: the game ended with the last frame; else the recording was cut off.
        task: name of the task; None for the run's own (data.task).
        notes: what is to be told of it, in words.
    """

    frames: FrameSource
    actions: Mapping[str, Track] = field(default_factory=dict)
    unknown: Sequence[tuple[float, float]] = ()
    reward: Happenings | None = None
    events: Mapping[str, Happenings] = field(default_factory=dict)
    terminal: bool = False
    task: str | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Found:
    """One recording of a source, not opened yet.

    Attributes:
        name: within the source, for people: a relative path, with the part where a file has several.
        files: whose bytes say whether it is the same recording as one imported before.
        part: which of the recordings in these files; empty where they hold one.
        open: reads it; raises DataError (RecordingError where file and row are known) where it is defective.
    """

    name: str
    files: tuple[Path, ...]
    open: Callable[[], Recorded]
    part: str = ""


@dataclass(frozen=True)
class Source:
    """What is in a folder or file of one kind.

    Attributes:
        action: the action spec of all its recordings; every component has its `aggregate` rule.
        recordings: in a fixed order. Defects of single ones are not raised before they are opened.
        fps: frames per second that it was recorded with, as far as it says so.
        defects: of what cannot even be listed as a recording.
        notes: what is to be told of it, in words.
    """

    action: ActionSpec
    recordings: Sequence[Found]
    fps: float | None = None
    defects: Sequence[RecordingError] = ()
    notes: Sequence[str] = ()


class Importer(Protocol):
    """One kind of recordings; a module in this folder with these names, and a line in registry.py."""

    KIND: str
    """Its name on the command line."""
    SAYS: str
    """What it reads, in one line of words."""
    EXTRA: str | None
    """The extra of this package that brings the libraries it needs, `import` say; None where it needs none."""

    def detect(self, source: Path) -> str | None:
        """What is seen in `source`, in words, when it is of this kind, else None. Looks at names and a few bytes only.

        `source` exists. Never raises for odd content.
        """
        ...

    def open_source(self, source: Path, options: Mapping[str, Any]) -> Source:
        """List the recordings.

        Args:
            source: folder or file.
            options: settings of the kind (data.source.options and the mapping), checked by the importer itself.

        Raises:
            InputError: this is no such source, or an option is unknown or makes no sense.
        """
        ...
