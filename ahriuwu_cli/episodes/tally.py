"""What is done at many steps: the share of each action, and of steps that repeat the action before.

Shapes: T steps, A = ActionSpec.dim, D = dim of one component, B bins of a histogram.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.episodes.labels import choice_names

NUM_BINS = 10
"""Bins of the histogram of a continuous component, between its low and its high."""


class ActionTally:
    """Counts over the actions of many episodes."""

    def __init__(self, spec: ActionSpec) -> None:
        self._spec = spec
        self._parts = [_Component(part) for part in spec.components]
        self._steps = self._followers = self._repeated = 0

    def add(self, actions: NDArray[np.float32], valid: NDArray[np.bool_] | None = None) -> None:
        """Take in the actions (T, A) of one episode, in order; of steps that are not `valid` (T,) nothing is known."""
        known = np.ones(len(actions), bool) if valid is None else valid
        same = (actions[1:] == actions[:-1])[known[1:] & known[:-1]]  # (pairs of known steps, A)
        actions = actions[known]
        self._steps += len(actions)
        self._followers += len(same)
        self._repeated += int(same.all(axis=1).sum())
        for part, columns in zip(self._parts, self._spec.slices().values(), strict=True):
            part.add(actions[:, columns], same[:, columns])

    def state(self) -> dict[str, Any]:
        """The counts, ready for JSON; `restore` takes them in again."""
        parts = [part.state() for part in self._parts]
        return {"steps": self._steps, "followers": self._followers, "repeated": self._repeated, "components": parts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the counts of an earlier tally of the same actions."""
        self._steps, self._followers = state["steps"], state["followers"]
        self._repeated = state["repeated"]
        for part, counts in zip(self._parts, state["components"], strict=True):
            part.restore(counts)

    def facts(self) -> dict[str, Any]:
        """Ready for JSON: `steps`, `repeated` and `components` by name.

        `repeated` is the share of steps, first steps of episodes left out, at which the whole action equals the one
        before; each component has its own. A categorical component has `shares` by label; a binary one `on`, the
        share of 1 of each switch; a continuous one `mean`, `spread` (standard deviation) and `histogram` (shares,
        B each) of each number, and the B + 1 `edges`. Null where no step was seen.
        """
        components = {part.spec.name: part.facts(self._steps, self._followers) for part in self._parts}
        repeated = _share(self._repeated, self._followers)
        return {"steps": self._steps, "repeated": repeated, "components": components}


class _Component:
    """Counts of one component."""

    def __init__(self, spec: ActionComponent) -> None:
        self.spec = spec
        self._repeated = 0
        self._sum, self._squares = np.zeros(spec.dim), np.zeros(spec.dim)  # (D,)
        if spec.type == "continuous":
            assert spec.low is not None and spec.high is not None
            edges: NDArray[Any] = np.linspace(spec.low, spec.high, NUM_BINS + 1)
        else:
            classes = spec.num_classes if spec.type == "categorical" else 2
            assert classes is not None
            edges = np.arange(classes + 1) - 0.5
        self._edges: NDArray[np.float64] = edges.astype(np.float64)  # (B+1,)
        self._counts = np.zeros((spec.dim, len(self._edges) - 1), np.int64)  # (D, B)

    def add(self, actions: NDArray[np.float32], same: NDArray[np.bool_]) -> None:
        self._repeated += int(same.all(axis=1).sum())
        for column in range(self.spec.dim):
            values = np.clip(actions[:, column].astype(np.float64), self._edges[0], self._edges[-1])
            self._counts[column] += np.histogram(values, self._edges)[0]
        centred = actions.astype(np.float64) - self._centre
        self._sum += centred.sum(axis=0)
        self._squares += (centred**2).sum(axis=0)

    def state(self) -> dict[str, Any]:
        sums, squares, counts = self._sum.tolist(), self._squares.tolist(), self._counts.tolist()
        return {"repeated": self._repeated, "sum": sums, "squares": squares, "counts": counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._repeated = state["repeated"]
        self._sum, self._squares = np.array(state["sum"]), np.array(state["squares"])
        self._counts = np.array(state["counts"], np.int64)

    def facts(self, steps: int, followers: int) -> dict[str, Any]:
        out: dict[str, Any] = {"type": self.spec.type, "repeated": _share(self._repeated, followers)}
        shares = [[_share(int(count), steps) for count in row] for row in self._counts]  # D x B
        if self.spec.type == "categorical":
            return out | {"shares": dict(zip(choice_names(self.spec), shares[0], strict=True))}
        if self.spec.type == "binary":
            return out | {"on": [row[1] for row in shares]}
        mean = self._sum / max(steps, 1)
        spread = np.sqrt(np.maximum(self._squares / max(steps, 1) - mean**2, 0.0))
        return out | {
            "mean": (mean + self._centre).tolist() if steps else [None] * self.spec.dim,
            "spread": spread.tolist() if steps else [None] * self.spec.dim,
            "histogram": shares,
            "edges": self._edges.tolist(),
        }

    @property
    def _centre(self) -> float:
        return float(self._edges[0] + self._edges[-1]) / 2


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
