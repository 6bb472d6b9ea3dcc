"""Actions in NPZ files, whose type nothing names: what they are is seen from all of them.

Shapes: M rows of a file, D columns of an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.specs import LARGEST, ActionComponent, ActionSpec, Aggregate
from ahriuwu_cli.episodes.actions import ActionRange, offence
from ahriuwu_cli.sources.imports.npz_chunks import Part, Stretch
from ahriuwu_cli.sources.imports.protocol import RecordingError
from ahriuwu_cli.sources.imports.ranges import LARGEST_ACTION, usual_range

ACTION = "action"
WIDEST_ACTION = 4096
Alignment = Literal["led", "chosen"]
"""Row t holds the action that led to frame t, or the one that was chosen on seeing it."""


@dataclass
class Survey:
    """What is seen of the actions of a source.

    Attributes:
        width: columns, 0 for numbers of choices.
        low, high: of each column, (D,).
        whole: all are whole numbers.
        single: every row has a single one and zeros, or zeros alone.
        starts: rows in which episodes begin.
        idle_starts: those of them that are zero throughout.
        busy: some other row is not zero.
    """

    width: int
    low: np.ndarray
    high: np.ndarray
    whole: bool = True
    single: bool = True
    starts: int = 0
    idle_starts: int = 0
    busy: bool = False

    @property
    def are_choices(self) -> bool:
        """One number a row, which says what was chosen."""
        return self.width == 0

    @property
    def are_one_hot(self) -> bool:
        """A one in the column of what was chosen."""
        return self.width > 1 and self.single and self.busy


def read_actions(part: Part) -> np.ndarray:
    """Actions of a part: (M,) int64 numbers of choices, or (M, D) float64.

    Raises:
        RecordingError: they are no numbers, or not finite.
    """
    found = part.array(part.archive(), ACTION)
    if (
        found.dtype.kind not in "biuf"
        or found.ndim > 2
        or (found.ndim == 2 and not 0 < found.shape[1] <= WIDEST_ACTION)
    ):
        raise RecordingError(
            part.name,
            f"array {ACTION} is {found.dtype} of shape {found.shape}; expected a row of numbers for each frame",
        )
    if found.ndim == 2 and found.shape[1] == 1 and found.dtype.kind in "iu":
        found = found[:, 0]
    if found.ndim == 1 and found.dtype.kind in "iu":
        return found.astype(np.int64)
    values = found.reshape(len(found), -1).astype(np.float64)
    wrong = np.flatnonzero(~(np.abs(values) <= LARGEST_ACTION).all(axis=1))
    if len(wrong):
        raise RecordingError(
            part.name, f"{ACTION} is {values[wrong[0]][:4]}; expected numbers", part.start + int(wrong[0])
        )
    return values


def survey(found: Sequence[Stretch], defects: list[RecordingError]) -> Survey:
    """Look at all actions, file by file.

    Raises:
        InputError: there are none that can be read, or they differ in width.
    """
    seen: Survey | None = None
    for stretch in found:
        for place, part in enumerate(stretch.parts):
            try:
                values = read_actions(part)
            except RecordingError as error:
                defects.append(error)
                continue
            width = 0 if values.ndim == 1 else values.shape[1]
            if seen is None:
                seen = Survey(width, np.full(max(width, 1), np.inf), np.full(max(width, 1), -np.inf))
            if width != seen.width:
                raise InputError(
                    f"{part.name}: actions have {width or 'no'} columns; those before have {seen.width or 'none'}",
                    hint="import recordings of one game at a time",
                )
            if len(values):
                _take(seen, values, begins=stretch.whole and place == 0)
    if seen is None or not np.isfinite(seen.low).all():
        raise InputError(
            "there are no actions that can be read" + (f": {defects[0]}" if defects else ""),
            hint=f"each file needs an array {ACTION!r}, a row for each frame",
        )
    return seen


def _take(seen: Survey, values: np.ndarray, *, begins: bool) -> None:
    rows = values.reshape(len(values), -1)
    seen.low, seen.high = np.minimum(seen.low, rows.min(axis=0)), np.maximum(seen.high, rows.max(axis=0))
    seen.whole &= bool((rows == np.rint(rows)).all())
    zeros, ones = (rows == 0).sum(axis=1), (rows == 1).sum(axis=1)
    seen.single &= bool(((zeros + ones == rows.shape[1]) & (ones <= 1)).all())
    if begins:
        seen.starts += 1
        seen.idle_starts += bool(zeros[0] == rows.shape[1])
        zeros = zeros[1:]
    seen.busy |= bool((zeros < rows.shape[1]).any())


def find_alignment(seen: Survey, given: Alignment | None) -> Alignment:
    """Which frame an action belongs to.

    Dreamer V1 and V2 write what led to a frame: an episode's first action is zero throughout. V3 writes what was chosen
    on seeing it. Numbers of choices say nothing: 0 is a choice.

    Raises:
        InputError: it is not given and cannot be told.
    """
    if given is not None:
        return given
    if seen.starts and seen.idle_starts == seen.starts and seen.busy and not seen.are_choices:
        return "led"
    what = (
        "actions are numbers of choices, of which 0 is one"
        if seen.are_choices
        else f"the first action is zero in {seen.idle_starts} of {seen.starts} episodes"
        if seen.busy
        else "all actions are zero"
    )
    raise InputError(
        f"it cannot be told whether row t has the action that led to frame t or the one chosen on seeing it: {what}",
        hint='set data.source.options.action to "led" (Dreamer V1, V2) or to "chosen" (Dreamer V3)',
    )


def make_spec(seen: Survey, num_actions: int | None, rule: Aggregate) -> ActionSpec:
    """The action spec: choices, switches, or numbers, from -1 to 1 where they stay within.

    Raises:
        InputError: there are more choices than `num_actions`, or a negative one.
    """
    if seen.are_choices or seen.are_one_hot:
        highest = int(seen.high[0]) if seen.are_choices else seen.width - 1
        count = num_actions or max(highest + 1, 2)
        if highest >= count or seen.low.min() < 0 or count > LARGEST:
            raise InputError(
                f"{ACTION} goes from {int(seen.low.min())} to {highest}; expected choices from 0 to {count - 1}",
                hint="correct data.source.options.num_actions, or leave it out",
            )
        part = ActionComponent(name=ACTION, type="categorical", num_classes=count, aggregate="mode")
    elif seen.whole and seen.low.min() >= 0 and seen.high.max() <= 1 and seen.busy:
        part = ActionComponent(name=ACTION, type="binary", dim=seen.width, aggregate="any")
    else:
        low, high = usual_range(float(seen.low.min()), float(seen.high.max()))
        part = ActionComponent(name=ACTION, type="continuous", dim=seen.width, low=low, high=high, aggregate=rule)
    return ActionSpec(components=(part,))


def as_rows(spec: ActionSpec, seen: Survey, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Actions of a part as rows (M, A) float32, and where they are known (M,): a row of zeros chooses nothing.

    Raises:
        RecordingError: one is not what it was seen to be before.
    """
    values = read_actions(part)
    valid = np.ones(len(values), bool)
    if seen.are_one_hot:
        valid = (values != 0).any(axis=1)
        values = values.argmax(axis=1)
    rows = values.reshape(len(values), -1).astype(np.float32)
    fine = ActionRange(spec).inside(rows)
    if not fine.all():
        row, column = (int(index) for index in np.argwhere(~fine)[0])
        found, expected = offence(spec, rows[row], column)
        raise RecordingError(part.name, f"{found}; expected {expected}", row=part.start + row)
    return rows, valid
