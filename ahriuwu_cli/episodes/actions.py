"""Actions as float32 rows: their ranges, checks, random rows (games/codec.py makes them of a game's own actions).

Shapes: T steps, A = ActionSpec.dim. A row holds the components' columns in the order of the spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec

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
    found, expected = offence(spec, actions[step], column)
    raise DataError(
        f"{where}: {found} at step {step}; expected {expected}",
        hint="the policy, importer or action spec is wrong; correct it and record again",
    )


def offence(spec: ActionSpec, row: np.ndarray, column: int) -> tuple[str, str]:
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


def as_row(value: Mapping[str, Any] | Any, dim: int) -> np.ndarray | None:
    """`value` as a row (dim,) float32, or None when it is not one."""
    try:
        row = np.asarray(value, np.float32).reshape(-1)
    except (TypeError, ValueError):
        return None
    return row if row.shape == (dim,) else None
