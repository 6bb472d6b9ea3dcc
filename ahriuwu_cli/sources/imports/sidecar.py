"""From a side-car's table and its mapping to tracks on the clock of the video.

Shapes: N frames of the video, M rows of the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ahriuwu_cli.sources.imports.clock import usual_interval
from ahriuwu_cli.sources.imports.mapping import UNITS, ActionMap, Mapping, ValueMap
from ahriuwu_cli.sources.imports.protocol import (
    FrameSource,
    Happenings,
    Recorded,
    RecordingError,
    Rows,
    Switch,
    Switches,
    Track,
)
from ahriuwu_cli.sources.imports.table import TRUE, Table

HOLDING = ("last", "mean", "mode")
"""Rules by which a number in a log is taken to hold until the next one; those of other rules happen and are over."""


@dataclass(frozen=True)
class Labels:
    """What a side-car says of its video."""

    actions: dict[str, Track] = field(default_factory=dict)
    reward: Happenings | None = None
    events: dict[str, Happenings] = field(default_factory=dict)
    terminal: bool = False
    task: str | None = None

    def recorded(self, frames: FrameSource, notes: Sequence[str] = ()) -> Recorded:
        """The recording of these frames."""
        return Recorded(
            frames, self.actions, reward=self.reward, events=self.events, terminal=self.terminal, task=self.task,
            notes=notes,
        )  # fmt: skip


def labels_of(table: Table, mapping: Mapping, frames: np.ndarray) -> Labels:
    """The tracks of a table, given the times of the video's frames (N,).

    Raises:
        RecordingError: a column is missing, a value makes no sense, or the rows are not those of the frames.
    """
    times = _times(table, mapping, frames)
    reader = _Log(table, mapping, times) if mapping.log is not None else _RowsOfFrames(table, mapping, times)
    return Labels(
        actions={action.name: reader.action(action) for action in mapping.actions},
        reward=None if mapping.reward is None else reader.value(mapping.reward),
        events={name: reader.value(event) for name, event in mapping.events.items()},
        terminal=_terminal(table, mapping),
        task=_task(table, mapping),
    )


def _times(table: Table, mapping: Mapping, frames: np.ndarray) -> np.ndarray:
    """When each row was (M,), on the video's clock."""
    time = mapping.time
    if not time.column:
        if len(table) not in (len(frames), len(frames) - 1):
            raise RecordingError(
                table.file, f"{len(table)} rows for {len(frames)} frames; expected one for each, or one fewer"
            )
        return frames[: len(table)]
    values = table.floats(time.column)
    if time.unit == "frames":
        places = np.rint(values).astype(np.int64) if len(values) and np.abs(values).max() < 2**53 else None
        if places is None or places.min() < 0 or places.max() >= len(frames):
            row = int(np.argmax((values < 0) | (values >= len(frames)))) if len(values) else 0
            raise RecordingError(
                table.file, f"{time.column} is of a frame that is not there; the video has {len(frames)}",
                row=table.numbers[row] if len(values) else None,
            )  # fmt: skip
        found = frames[places] + time.offset
    else:
        found = values * UNITS[time.unit]
        if time.zero == "first row" and len(found):
            found = found - found[0]
        found = found + time.offset
    found = np.asarray(found, np.float64)
    falls = np.flatnonzero(np.diff(found) < 0)
    if len(falls):
        raise RecordingError(
            table.file, f"{time.column} goes back from the row before", row=table.numbers[int(falls[0]) + 1]
        )
    return found


def _terminal(table: Table, mapping: Mapping) -> bool:
    if not mapping.terminal or not len(table):
        return False
    flags = table.floats(mapping.terminal)
    early = np.flatnonzero(flags[:-1])
    if len(early):
        row = table.numbers[int(early[0])]
        raise RecordingError(table.file, f"{mapping.terminal} is true before the last row", row=row)
    return bool(flags[-1])


def _task(table: Table, mapping: Mapping) -> str | None:
    """The name of the task; None where there is none."""
    name = table.column(mapping.task)[0] if mapping.task and len(table) else None
    return None if name in (None, "") else str(name)


class _RowsOfFrames:
    """A table with a row for each frame."""

    def __init__(self, table: Table, mapping: Mapping, times: np.ndarray) -> None:
        self._table, self._times = table, times
        if len(times) > 1 and (np.diff(times) <= 0).any():
            row = int(np.argmax(np.diff(times) <= 0)) + 1
            raise RecordingError(table.file, "it has the time of the row before", row=table.numbers[row])
        step = usual_interval(times)
        if mapping.led:  # of what led to the frame: it was begun at the frame before
            self._begun, self._came = np.concatenate([times[:1] - step, times[:-1]]), times
        else:
            self._begun, self._came = times, np.concatenate([times[1:], times[-1:] + step])
        self._known = table.floats(mapping.known) != 0 if mapping.known else None

    def action(self, action: ActionMap) -> Rows:
        values = _columns(self._table, action, None)
        return Rows(self._begun, values, self._known, file=self._table.file, numbers=self._table.numbers)

    def value(self, value: ValueMap) -> Happenings:
        if not value.column:
            raise RecordingError(self._table.file, "entries by kind are in logs; rows need a column")
        return Happenings(self._came, self._table.floats(value.column, TRUE | value.words)[:, None] * value.value)


class _Log:
    """A log of events on a clock."""

    def __init__(self, table: Table, mapping: Mapping, times: np.ndarray) -> None:
        assert mapping.log is not None
        self._table, self._log, self._times = table, mapping.log, times
        self._kinds = [str(kind).strip() for kind in table.column(mapping.log.kind)]

    def action(self, action: ActionMap) -> Track:
        if action.keys:
            return Switches(tuple(self._switch(key) for key in action.keys))
        rows = self._rows(action.of, action.columns[0])
        values, times = _columns(self._table, action, rows), self._times[rows]
        if action.component().aggregate not in HOLDING:
            return Happenings(times, values)
        last = np.flatnonzero(np.append(np.diff(times) > 0, True)) if len(rows) else np.zeros(0, int)
        numbers = [self._table.numbers[rows[place]] for place in last]
        return Rows(times[last], values[last], file=self._table.file, numbers=numbers)

    def value(self, value: ValueMap) -> Happenings:
        rows = self._rows(value.of, value.column)
        words = TRUE | value.words
        sizes = self._table.floats(value.column, words, rows) if value.column else np.ones(len(rows))
        return Happenings(self._times[rows], sizes[:, None] * value.value)

    def _switch(self, key: str) -> Switch:
        """Decision: a key that is first seen going up was down from before the log."""
        changes = {**dict.fromkeys(self._log.up, False), **dict.fromkeys(self._log.down, True)}
        names = self._table.column(self._log.key)
        rows = [row for row, kind in enumerate(self._kinds) if kind in changes and str(names[row]).strip() == key]
        down = np.array([changes[self._kinds[row]] for row in rows], bool)
        return Switch(self._times[rows], down, before=bool(rows) and not down[0])

    def _rows(self, kinds: Sequence[str], column: str) -> list[int]:
        """Entries of these kinds; of all, where none are named, that have something in the column."""
        if kinds:
            return [row for row, kind in enumerate(self._kinds) if kind in kinds]
        return [row for row, value in enumerate(self._table.column(column)) if value not in (None, "")]


def _columns(table: Table, action: ActionMap, rows: Sequence[int] | None) -> np.ndarray:
    """The values (M, D) float32 of an action's columns."""
    labels = action.labels if action.type == "categorical" else ()  # of switches they say which, not whether
    words = TRUE | action.words | {label.lower(): float(place) for place, label in enumerate(labels)}
    values = np.stack([table.floats(column, words, rows) for column in action.columns], axis=1)
    if action.clip:
        assert action.low is not None and action.high is not None
        values = values.clip(action.low, action.high)
    return values.astype(np.float32)
