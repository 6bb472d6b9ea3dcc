"""Actions as float32 rows: specs from Gymnasium spaces, conversion both ways, range checks, random rows.

Shapes: T steps, A = ActionSpec.dim. A row holds the components' columns in the order of the spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from ahriuwu_cli.core.errors import DataError, InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec

Leaf = tuple[tuple[str, ...], "spaces.Space[Any]"]  # path of keys in a Dict space, and the space found there


POLICY_HINT = "use a policy made for this environment's action spec"


class ActionRange:
    """Lowest and highest value of every column of a row, and which columns hold integers."""

    def __init__(self, spec: ActionSpec) -> None:
        low: list[float] = []
        high: list[float] = []
        integral: list[bool] = []
        for part in spec.components:
            bottom, top = component_range(part)
            low += [bottom] * part.dim
            high += [top] * part.dim
            integral += [part.type != "continuous"] * part.dim
        self.low = np.array(low, np.float32)  # (A,)
        self.high = np.array(high, np.float32)  # (A,)
        self.integral = np.array(integral)  # (A,) bool

    def inside(self, actions: np.ndarray) -> np.ndarray:
        """Which entries of (..., A) are finite, in range and, where they must be, whole numbers."""
        fine = (actions >= self.low) & (actions <= self.high)  # NaN compares False
        return np.asarray(fine & (~self.integral | (actions == np.rint(actions))))


def component_range(part: ActionComponent) -> tuple[float, float]:
    """Lowest and highest value a component's columns may hold."""
    if part.type == "categorical":
        assert part.num_classes is not None
        return 0.0, float(part.num_classes - 1)
    if part.type == "binary":
        return 0.0, 1.0
    assert part.low is not None and part.high is not None
    return part.low, part.high


def check_actions(spec: ActionSpec, actions: np.ndarray, valid: np.ndarray, *, where: str) -> None:
    """Refuse actions (T, A) outside their declared range; steps that are not `valid` (T,) need only be finite.

    Raises:
        DataError: names component, value, range and step of the first offender.
    """
    fine = np.where(valid[:, None], ActionRange(spec).inside(actions), np.isfinite(actions))  # (T, A)
    if fine.all():
        return
    step, column = (int(index) for index in np.argwhere(~fine)[0])
    found, expected = _offence(spec, actions[step], column)
    raise DataError(
        f"{where}: {found} at step {step}; expected {expected}",
        hint="the policy, importer or action spec is wrong; correct it and record again",
    )


def _offence(spec: ActionSpec, row: np.ndarray, column: int) -> tuple[str, str]:
    """What is in a column of a row (A,), and what should be."""
    part = next(part for part in spec.components if column < spec.slices()[part.name].stop)
    bottom, top = component_range(part)
    kind = "a number" if part.type == "continuous" else "a whole number"
    found = f"action component {part.name!r} ({part.type}) is {row[column]:g}"
    return found, f"{kind} in {bottom:g}..{top:g}"


def random_row(spec: ActionSpec, rng: np.random.Generator) -> np.ndarray:
    """One action row (A,) float32, every component uniform over its range."""
    columns = []
    for part in spec.components:
        bottom, top = component_range(part)
        if part.type == "continuous":
            columns.append(rng.uniform(bottom, top, part.dim))
        else:
            columns.append(rng.integers(0, int(top) + 1, part.dim).astype(np.float64))
    bounds = ActionRange(spec)
    return np.clip(np.concatenate(columns).astype(np.float32), bounds.low, bounds.high)


class ActionCodec:
    """Turns actions of a Gymnasium space into rows (A,) float32 and back.

    Discrete becomes a categorical component, MultiDiscrete one per entry, MultiBinary a binary
    component, a bounded Box a continuous one (one per column when their bounds differ), and a Dict
    the components of its members with the key in front.

    Args:
        space: the action space.
        labels: names of the actions of a Discrete space.

    Raises:
        InputError: the space is of another type, has a single choice, or is not bounded.
    """

    def __init__(self, space: spaces.Space[Any], labels: Sequence[str] = ()) -> None:
        self._leaves = list(_leaves(space, ()))
        self._widths = [sum(part.dim for part in _components(leaf, ())) for leaf in self._leaves]
        self.spec = ActionSpec(
            components=tuple(part for leaf in self._leaves for part in _components(leaf, tuple(labels)))
        )
        self._range = ActionRange(self.spec)

    def to_row(self, action: Any) -> np.ndarray:
        """Give the row (A,) float32 of an action of the space."""
        parts = []
        for path, space in self._leaves:
            value = action
            for key in path:
                value = value[key]
            start = getattr(space, "start", 0)
            parts.append((np.asarray(value, np.float64) - start).reshape(-1))
        return np.concatenate(parts).astype(np.float32)

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
            found, expected = _offence(self.spec, row, int(np.argmin(fine)))
            raise DataError(f"the policy's {found}; expected {expected}", hint=POLICY_HINT)
        if not self._leaves[0][0]:
            return _from_columns(self._leaves[0][1], row)
        out: dict[str, Any] = {}
        start = 0
        for (path, space), width in zip(self._leaves, self._widths, strict=True):
            inner = out
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = _from_columns(space, row[start : start + width])
            start += width
        return out


def _leaves(space: spaces.Space[Any], path: tuple[str, ...]) -> Iterator[Leaf]:
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        yield path, space


def _components(leaf: Leaf, labels: tuple[str, ...]) -> list[ActionComponent]:
    path, space = leaf
    name = re.sub(r"[^A-Za-z0-9_]", "_", "_".join(path)) or "action"
    if isinstance(space, spaces.Discrete) and space.n >= 2:
        fitting = labels if len(labels) == int(space.n) else ()
        return [ActionComponent(name=name, type="categorical", num_classes=int(space.n), labels=fitting)]
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.min() >= 2:
        return [
            ActionComponent(name=f"{name}_{index}", type="categorical", num_classes=int(count))
            for index, count in enumerate(space.nvec.reshape(-1))
        ]
    if isinstance(space, spaces.MultiBinary):
        return [ActionComponent(name=name, type="binary", dim=int(np.prod(space.shape)))]
    if isinstance(space, spaces.Box) and space.is_bounded("both") and (space.low < space.high).all():
        low, high = space.low.reshape(-1), space.high.reshape(-1)
        if (low == low[0]).all() and (high == high[0]).all():
            part = ActionComponent(name=name, type="continuous", dim=len(low), low=float(low[0]), high=float(high[0]))
            return [part]
        return [
            ActionComponent(name=f"{name}_{index}", type="continuous", low=float(low[index]), high=float(high[index]))
            for index in range(len(low))
        ]
    raise InputError(
        f"action space {space} cannot be used; expected Discrete or MultiDiscrete with two or more choices, "
        "MultiBinary, a bounded Box, or a Dict of these",
        hint="wrap the environment so that its actions are of one of these types",
    )


def _from_columns(space: spaces.Space[Any], columns: np.ndarray) -> Any:
    if isinstance(space, spaces.Discrete):
        return int(columns[0]) + int(space.start)
    assert space.shape is not None
    if isinstance(space, spaces.MultiDiscrete):
        return columns.reshape(space.shape).astype(space.dtype) + space.start
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer):
        columns = np.rint(columns)
    return columns.reshape(space.shape).astype(space.dtype)


def as_row(value: Mapping[str, Any] | Any, dim: int) -> np.ndarray | None:
    """`value` as a row (dim,) float32, or None when it is not one."""
    try:
        row = np.asarray(value, np.float32).reshape(-1)
    except (TypeError, ValueError):
        return None
    return row if row.shape == (dim,) else None
