"""Actions in HDF5 files: the components that a mapping says, what it leaves out looked up in the data.

Shapes: T steps, D columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.specs import ActionComponent
from ahriuwu_cli.sources.imports.hdf5_columns import Columns, Place, join, num_rows
from ahriuwu_cli.sources.imports.hdf5_files import Hdf5File
from ahriuwu_cli.sources.imports.hdf5_mapping import Action
from ahriuwu_cli.sources.imports.protocol import RecordingError
from ahriuwu_cli.sources.imports.ranges import LARGEST_ACTION, usual_range


def columns_of(file: Hdf5File, place: Place, action: Action) -> Columns:
    """The columns of an episode, which has as many steps as there are actions."""
    rows = place.rows or (0, num_rows(file, join(place.group, action.path)))
    return Columns(file, place.group, rows, whole=place.rows is None)


def make_component(part: Action, places: Sequence[Place]) -> ActionComponent:
    """A component of the action; what the mapping does not say of it is looked up in all episodes.

    Raises:
        InputError: it cannot be told.
    """
    width = part.columns[1] - part.columns[0] if part.columns else 0
    known = {"continuous": part.low is not None and part.high is not None, "categorical": part.num_classes is not None}
    low, high = 0.0, 0.0
    if not width or not known.get(part.type, True):
        width, low, high = _survey(part, places)
    if part.kind == "categorical":
        count = width if part.type == "one_hot" else part.num_classes or max(2, int(high) - part.first + 1)
        if part.type == "categorical" and (width != 1 or low < part.first):
            raise InputError(
                f"actions {part.name}: {width} columns from {low:g}; expected one, from {part.first}",
                hint="correct the mapping: columns, first, or type one_hot",
            )
        fields: dict[str, Any] = {"num_classes": count}
    elif part.kind == "binary":
        fields = {"dim": width}
    else:
        seen = usual_range(low, high)
        bottom, top = (
            given if given is not None else own for given, own in zip((part.low, part.high), seen, strict=True)
        )
        fields = {"dim": width, "low": bottom, "high": top}
    try:
        return ActionComponent(name=part.name, type=part.kind, labels=tuple(part.labels), aggregate=part.rule, **fields)
    except ValueError as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(f"actions {part.name} make no sense: {text}", hint="correct the mapping") from error


def _survey(part: Action, places: Sequence[Place]) -> tuple[int, float, float]:
    """Columns that most episodes have, and the lowest and highest value in these; others are told when opened."""
    episodes: dict[int, int] = {}
    ends: dict[int, tuple[float, float]] = {}
    fault: RecordingError | None = None
    for place in places:
        try:
            file = Hdf5File(place.root, place.file)
            try:
                values = columns_of(file, place, part).read(part)
            finally:
                file.close()
        except RecordingError as error:
            fault = fault or error
            continue
        if values.size:
            width = values.shape[1]
            low, high = ends.get(width, (np.inf, -np.inf))
            ends[width] = min(low, float(values.min())), max(high, float(values.max()))
            episodes[width] = episodes.get(width, 0) + 1
    if not episodes:
        raise InputError(f"actions {part.name} cannot be used: {fault or 'no rows'}", hint="correct the mapping")
    width = max(episodes, key=episodes.__getitem__)
    low, high = ends[width]
    if max(-low, high) > LARGEST_ACTION:
        reason = f"they go from {low:g} to {high:g}; expected numbers up to {LARGEST_ACTION:g}"
        raise InputError(f"actions {part.name} cannot be used: {reason}", hint="correct the mapping")
    return width, low, high


def as_rows(
    part: Action, component: ActionComponent, values: np.ndarray, name: str, start: int
) -> tuple[np.ndarray, np.ndarray]:
    """A component's rows (T, D) float32, and where they are known (T,): a row of zeros chooses nothing.

    Args:
        part: what the mapping says.
        component: what it became.
        values: columns as they are in the file.
        name: of the file, for messages, and the row of the first.

    Raises:
        RecordingError: several choices at once, or another number of columns.
    """
    valid = np.ones(len(values), bool)
    if part.type == "one_hot":
        ones = (values != 0).sum(axis=1)
        wrong = np.flatnonzero(ones > 1)
        if len(wrong):
            row = int(wrong[0])
            reason = f"{part.path}: {ones[row]} choices of {part.name} at once; expected one"
            raise RecordingError(name, reason, row=start + row)
        if component.num_classes == values.shape[1]:
            valid, values = ones == 1, values.argmax(axis=1)[:, None]
    elif part.type == "categorical":
        values = values - part.first
    if values.shape[1] != component.dim:
        reason = f"{part.path} has {values.shape[1]} columns; other episodes have {component.dim}"
        raise RecordingError(name, reason)
    return values.astype(np.float32), valid
