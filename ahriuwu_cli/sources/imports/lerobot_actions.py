"""The action spec of a LeRobot data set: names of its columns, and bounds from statistics or from the data.

Shapes: D columns of an action.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, Aggregate
from ahriuwu_cli.sources.imports.fields import Entry, describing, read_json, read_lines
from ahriuwu_cli.sources.imports.folders import named_path
from ahriuwu_cli.sources.imports.lerobot_episodes import HINT, INFO, Feature, Info
from ahriuwu_cli.sources.imports.parquet import each_batch
from ahriuwu_cli.sources.imports.protocol import RecordingError
from ahriuwu_cli.sources.imports.ranges import LARGEST_ACTION, with_width

Bounds = tuple[np.ndarray, np.ndarray]
"""Lowest and highest value of each column, (D,) float64 each; infinite the wrong way round where none was seen."""
WIDEST_ACTION = 4096
NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool")


def action_feature(info: Info, key: str) -> Feature:
    """The feature that holds actions.

    Raises:
        InputError: there is none of that name, or it is no list of numbers.
    """
    feature = info.features.get(key)
    if feature is None:
        raise InputError(
            f"{INFO}: there is no feature {key!r}; there are {', '.join(info.features)}"[:400],
            hint="name the one with the actions: data.source.options.action",
        )
    if feature.dtype not in NUMBERS or len(feature.shape) != 1 or not 1 <= feature.shape[0] <= WIDEST_ACTION:
        raise InputError(
            f"{INFO}: {key} is {feature.dtype} of shape {list(feature.shape)[:8]}; expected one row of numbers",
            hint="name another feature: data.source.options.action",
        )
    return feature


def column_names(feature: Feature) -> tuple[str, ...]:
    """Names of the columns; empty where it does not say.

    They come as a list, as a table of one list (`{"motors": [...]}`), or as a table of places (`{"x": 0}`).
    """
    names = feature.names
    if isinstance(names, dict):
        if names and all(isinstance(value, int) for value in names.values()):
            names = sorted(names, key=lambda name: names[name])
        else:
            names = [name for group in names.values() if isinstance(group, list) for name in group]
    fine = isinstance(names, list) and len(names) == feature.shape[0] and all(isinstance(name, str) for name in names)
    return tuple(names) if fine else ()


def make_spec(key: str, labels: tuple[str, ...], bounds: Bounds, rule: Aggregate, *, apart: bool) -> ActionSpec:
    """One component for all columns, or one for each with bounds of its own.

    A range that has no width, since nothing else was seen, is made one wider to both sides.

    Raises:
        InputError: the bounds are no numbers that can be used.
    """
    lows, highs = bounds
    if not (lows <= highs).all():
        raise InputError(f"there is no number in {key} that can be read", hint=HINT)
    if max(abs(lows).max(), abs(highs).max()) > LARGEST_ACTION:
        raise InputError(
            f"{key} goes from {lows.min():g} to {highs.max():g}; expected numbers up to {LARGEST_ACTION:g}", hint=HINT
        )
    if not apart:
        low, high = with_width(float(lows.min()), float(highs.max()))
        part = ActionComponent(
            name=key, type="continuous", dim=len(lows), low=low, high=high, labels=labels, aggregate=rule
        )
        return ActionSpec(components=(part,))
    parts = []
    for column, (lowest, highest) in enumerate(zip(lows.tolist(), highs.tolist(), strict=True)):
        low, high = with_width(lowest, highest)
        name = f"{key}/{column}"
        parts.append(
            ActionComponent(
                name=name, type="continuous", low=low, high=high, labels=labels[column : column + 1], aggregate=rule
            )
        )
    return ActionSpec(components=tuple(parts))


def written_spec(value: Any, width: int, rule: Aggregate) -> ActionSpec | None:
    """The spec that a data set says in so many words; None where it does not.

    Args:
        value: as it is in the description.
        width: D.
        rule: of continuous components that have none.

    Raises:
        InputError: it is none, or one of another width.
    """
    if value is None:
        return None
    try:
        spec = ActionSpec.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise InputError(f"{INFO}: action_spec: {fault['msg']}"[:300], hint=HINT) from error
    if spec.dim != width:
        raise InputError(f"{INFO}: action_spec has {spec.dim} columns; the action has {width}", hint=HINT)
    rules: dict[str, Aggregate] = {"binary": "any", "categorical": "mode", "continuous": rule}
    parts = [
        each if each.aggregate else each.model_copy(update={"aggregate": rules[each.type]}) for each in spec.components
    ]
    return ActionSpec(components=tuple(parts))


# ---------------------------------------------------------------- bounds


def known_bounds(root: Path, key: str, width: int) -> Bounds | None:
    """Bounds from the data set's own statistics (meta/stats.json, or those of each episode); None where it has none.

    Raises:
        InputError: a file of statistics is damaged.
    """
    low, high = _nothing(width)
    with describing("remove the damaged file: bounds are then found in the data"):
        for stats in _statistics(root):
            own = stats.entry_or_none(key)
            pair = [] if own is None else [_numbers(own.anything(name), width) for name in ("min", "max")]
            if len(pair) != 2 or pair[0] is None or pair[1] is None:
                return None
            low, high = np.minimum(low, pair[0]), np.maximum(high, pair[1])
    return (low, high) if (low <= high).all() else None


def _statistics(root: Path) -> Iterator[Entry]:
    name, lines = "meta/stats.json", "meta/episodes_stats.jsonl"
    if (root / name).exists():
        yield read_json(named_path(root, name, INFO), name)
    elif (root / lines).exists():
        yield from (entry.entry("stats") for entry in read_lines(named_path(root, lines, INFO), lines))


def _numbers(value: Any, width: int) -> np.ndarray | None:
    """A list as (D,) float64; None where it is something else, or not finite."""
    try:
        found = np.asarray(value, np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found.shape == (width,) and np.isfinite(found).all() else None


def bounds_of_data(root: Path, files: Iterable[str], key: str, width: int) -> Bounds:
    """Bounds of all that is finite in some Parquet files; one column is read, piece by piece.

    Files that cannot be read are passed over: their recordings are told when they are opened.
    """
    ends = list(_nothing(width))

    def take(values: np.ndarray, _: int) -> None:
        if values.shape[1] == width:
            numbers = values.astype(np.float64)
            finite = np.isfinite(numbers)
            ends[0] = np.minimum(ends[0], np.where(finite, numbers, np.inf).min(axis=0, initial=np.inf))
            ends[1] = np.maximum(ends[1], np.where(finite, numbers, -np.inf).max(axis=0, initial=-np.inf))

    for name in files:
        try:
            each_batch(named_path(root, name, INFO), name, key, take)
        except RecordingError:
            continue
    return ends[0], ends[1]


def _nothing(width: int) -> Bounds:
    return np.full(width, np.inf), np.full(width, -np.inf)
