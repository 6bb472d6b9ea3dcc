"""Between the actions of a Gymnasium space and float32 rows: the spec that a space gives, and conversion both ways.

Shapes: A = ActionSpec.dim. A row holds the components' columns in the order of the spec.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from pydantic import ValidationError

from ahriuwu_cli.core.errors import DataError, InputError
from ahriuwu_cli.core.specs import LARGEST, WIDEST_BOUND, ActionComponent, ActionSpec, are_apart
from ahriuwu_cli.episodes.actions import POLICY_HINT, ActionRange, offence
from ahriuwu_cli.episodes.names import Keys, part_name

Bounds = Mapping[str, Sequence[float]]  # component -> (low, high)

WHOLE = "action"
"""Name of an action that is not nested."""


@dataclass(frozen=True)
class _Leaf:
    """A part of an action that is neither Dict nor Tuple, where it is, and its components."""

    keys: Keys
    space: spaces.Space[Any]
    parts: tuple[ActionComponent, ...]

    @property
    def width(self) -> int:
        return sum(part.dim for part in self.parts)


class ActionCodec:
    """Turns actions of a Gymnasium space into rows (A,) float32 and back.

    Discrete becomes a categorical component, MultiDiscrete one per entry, MultiBinary a binary
    component, a Box a continuous one (one per column when their bounds differ), and a Dict or Tuple
    the components of its members, named by the keys that lead there (episodes/names.py).

    Whatever row is in range, the action made of it is contained in the space: it is brought into the
    space's own bounds after it has the space's own type.

    Args:
        space: the action space.
        labels: names of the actions of a Discrete space.
        bounds: low and high by component (or by `NAME/COLUMN`), for boxes without bounds or with absurd ones.

    Raises:
        InputError: the space is of another type, has a single choice, or is not bounded; or `bounds` names no
            component, or leaves the space.
    """

    def __init__(self, space: spaces.Space[Any], labels: Sequence[str] = (), bounds: Bounds | None = None) -> None:
        self._space = space
        given = dict(bounds or {})
        unused = set(given)
        self._leaves = [
            _Leaf(keys, leaf, tuple(_components(keys, leaf, tuple(labels), given, unused)))
            for keys, leaf in leaves(space)
        ]
        if unused:
            names = sorted(part.name for leaf in self._leaves for part in leaf.parts if part.type == "continuous")
            raise InputError(
                f"data.action_bounds names {', '.join(map(repr, sorted(unused)))}; components with bounds are "
                f"{', '.join(map(repr, names)) or 'none'}",
                hint="correct data.action_bounds",
            )
        try:
            self.spec = ActionSpec(components=tuple(part for leaf in self._leaves for part in leaf.parts))
        except ValidationError as error:
            raise _unusable(space, error.errors()[0]["msg"]) from error
        self._range = ActionRange(self.spec)

    def to_row(self, action: Any) -> np.ndarray:
        """Give the row (A,) float32 of an action of the space.

        Raises:
            DataError: it is none.
        """
        columns = []
        for leaf in self._leaves:
            value = action
            try:
                for key in leaf.keys:
                    value = value[key]
                part = np.asarray(value, np.float64).reshape(-1) - np.ravel(getattr(leaf.space, "start", 0))
            except (LookupError, TypeError, ValueError):
                raise self._no_action(action) from None
            if part.shape != (leaf.width,):
                raise self._no_action(action)
            columns.append(part)
        row = np.concatenate(columns).astype(np.float32)
        if not self._range.inside(row).all():
            raise self._no_action(action)
        return row

    def to_action(self, row: np.ndarray) -> Any:
        """Give the action of the space that a row (A,) stands for.

        Raises:
            DataError: a value outside its component's range.
        """
        row = np.asarray(row, np.float32)
        if row.shape != self._range.low.shape:
            raise DataError(
                f"the policy gave an action row of shape {row.shape}; expected {self._range.low.shape}",
                hint=POLICY_HINT,
            )
        fine = self._range.inside(row)
        if not fine.all():
            found, expected = offence(self.spec, row, int(np.argmin(fine)))
            raise DataError(f"the policy's {found}; expected {expected}", hint=POLICY_HINT)
        ends = np.cumsum([leaf.width for leaf in self._leaves])
        pieces = np.split(row, ends[:-1])
        values = {leaf.keys: _from_columns(leaf.space, piece) for leaf, piece in zip(self._leaves, pieces, strict=True)}
        return _nested(self._space, values, ())

    def taken(self, row: np.ndarray) -> np.ndarray:
        """The row (A,) as the game took it: whole numbers where its box has them."""
        taken = np.array(row, np.float32)
        start = 0
        for leaf in self._leaves:
            if isinstance(leaf.space, spaces.Box) and np.issubdtype(leaf.space.dtype, np.integer):
                part = slice(start, start + leaf.width)
                taken[part] = np.clip(np.rint(taken[part]), self._range.low[part], self._range.high[part])
            start += leaf.width
        return taken

    def _no_action(self, action: Any) -> DataError:
        text = " ".join(repr(action).split())
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        ranges = ", ".join(
            f"{part.name} {part.low:g}..{part.high:g}"
            for part in self.spec.components
            if part.low is not None and part.high is not None
        )
        return DataError(
            f"the action {shown} is none of {self._space}" + (f" with {ranges}" if ranges else ""),
            hint="correct the environment's expert_action, or widen data.action_bounds",
        )


def leaves(space: spaces.Space[Any], keys: Keys = ()) -> Iterator[tuple[Keys, spaces.Space[Any]]]:
    """Every part of a space that is neither Dict nor Tuple, with the keys that lead to it, in the order of rows."""
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from leaves(inner, (*keys, key))
    elif isinstance(space, spaces.Tuple):
        for index, inner in enumerate(space.spaces):
            yield from leaves(inner, (*keys, index))
    else:
        yield keys, space


def _nested(space: spaces.Space[Any], values: Mapping[Keys, Any], keys: Keys) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _nested(inner, values, (*keys, key)) for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_nested(inner, values, (*keys, index)) for index, inner in enumerate(space.spaces))
    return values[keys]


# ---------------------------------------------------------------- spec


def _components(
    keys: Keys, space: spaces.Space[Any], labels: tuple[str, ...], bounds: Bounds, unused: set[str]
) -> Iterator[ActionComponent]:
    """The components of a leaf; takes what it uses of `bounds` out of `unused`."""
    name = part_name(keys) or WHOLE
    try:
        if isinstance(space, spaces.Discrete) and 2 <= space.n <= LARGEST:
            fitting = labels if len(labels) == int(space.n) else ()
            yield ActionComponent(name=name, type="categorical", num_classes=int(space.n), labels=fitting)
        elif isinstance(space, spaces.MultiDiscrete) and space.nvec.size and space.nvec.min() >= 2:
            for index, count in enumerate(space.nvec.reshape(-1)):
                yield ActionComponent(name=_column(keys, index), type="categorical", num_classes=int(count))
        elif isinstance(space, spaces.MultiBinary) and np.prod(space.shape) >= 1:
            yield ActionComponent(name=name, type="binary", dim=int(np.prod(space.shape)))
        elif isinstance(space, spaces.Box) and space.low.size:
            yield from _continuous(keys, space, bounds, unused)
        else:
            raise _unusable(space)
    except ValidationError as error:
        raise _unusable(space, error.errors()[0]["msg"]) from error


def _unusable(space: spaces.Space[Any], detail: str = "") -> InputError:
    return InputError(
        f"action space {space} cannot be used{f' ({detail})' if detail else ''}; expected Discrete or MultiDiscrete "
        "with two or more choices, MultiBinary, Box, or a Dict or Tuple of these",
        hint="wrap the environment so that its actions are of one of these types",
    )


def _column(keys: Keys, index: int) -> str:
    """Name of one column of a leaf; below the leaf's own name, where nothing else can be."""
    return part_name((*keys, index)) if keys else f"{WHOLE}_{index}"


def _continuous(keys: Keys, space: spaces.Box, bounds: Bounds, unused: set[str]) -> Iterator[ActionComponent]:
    name = part_name(keys) or WHOLE
    ends = [
        _ends(space, (float(low), float(high)), (_column(keys, index), name), bounds, unused)
        for index, (low, high) in enumerate(zip(space.low.reshape(-1), space.high.reshape(-1), strict=True))
    ]
    if len(set(ends)) == 1:
        yield ActionComponent(name=name, type="continuous", dim=len(ends), low=ends[0][0], high=ends[0][1])
        return
    for index, (low, high) in enumerate(ends):
        yield ActionComponent(name=_column(keys, index), type="continuous", low=low, high=high)


def _ends(
    space: spaces.Box, own: tuple[float, float], names: Sequence[str], bounds: Bounds, unused: set[str]
) -> tuple[float, float]:
    """Low and high of one column: what the user says of it by one of its names, or else the space's own."""
    given = [name for name in names if name in bounds]
    unused.difference_update(given)
    low, high = map(float, bounds[given[0]]) if given else own
    if given and np.issubdtype(space.dtype, np.integer):
        low, high = (math.ceil(low) if math.isfinite(low) else low), (math.floor(high) if math.isfinite(high) else high)
    slack = 1e-6 * max(abs(low), abs(high))  # bounds of 32 bits, written in decimals
    if given and (low < own[0] - slack or high > own[1] + slack):
        raise InputError(
            f"data.action_bounds gives {given[0]!r} {low:g}..{high:g}; the environment takes {own[0]:g}..{own[1]:g}",
            hint="stay within the environment's own bounds",
        )
    if max(abs(low), abs(high)) <= WIDEST_BOUND and are_apart(low, high):
        return low, high
    raise InputError(
        f"action space {space} cannot be used: {names[-1]!r} goes from {low:g} to {high:g}; expected bounds up to "
        f"{WIDEST_BOUND:g} that differ",
        hint=f"say what the game makes of it: data.action_bounds = {{ {names[-1]!r} = [-1.0, 1.0] }}, for example",
    )


# ---------------------------------------------------------------- values


def _from_columns(space: spaces.Space[Any], columns: np.ndarray) -> Any:
    if isinstance(space, spaces.Discrete):
        return int(columns[0]) + int(space.start)
    assert space.shape is not None
    values = columns.astype(np.float64).reshape(space.shape)
    if isinstance(space, spaces.MultiDiscrete):
        return values.astype(space.dtype) + space.start
    if isinstance(space, spaces.Box):
        return _within(space, values)
    return values.astype(space.dtype)


def _within(space: spaces.Box, values: np.ndarray) -> np.ndarray:
    """Values in the type of a box, and then inside its bounds: a cast may leave them by a rounding, or by far."""
    if np.issubdtype(space.dtype, np.floating):
        with np.errstate(over="ignore"):
            cast = values.astype(space.dtype)
    else:
        whole = np.rint(values)
        highest = whole >= space.high.astype(np.float64)
        lowest = whole <= space.low.astype(np.float64)
        inner = np.where(highest | lowest, 0, whole).astype(space.dtype)  # 2**63 as a float is no int64
        cast = np.where(highest, space.high, np.where(lowest, space.low, inner))
    return np.asarray(np.clip(cast, space.low, space.high), space.dtype)
