"""What of an action is guessed from frames: its choices, switches and numbers, each as one of a few classes.

Shapes: T steps, A = ActionSpec.dim, M labelled steps of several episodes, P parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.episodes.labels import column_names

UNKNOWN = -1
"""The class where the action is not known."""
CLASSES = 24
"""Of a part, the most frequent values; all others are one class more."""
QUANTILES = (0.2, 0.4, 0.6, 0.8)
"""Of a number: it is below, at or above each of them."""
MOST_PARTS = 32
"""The ones that change most often; a keyboard has more keys than a game."""
LEAST_CHANGES = 8
"""Of a part in all episodes: of fewer nothing can be learnt."""


@dataclass(frozen=True)
class Part:
    """One column of the action as classes.

    Attributes:
        name: for people.
        column: of the action row.
        cuts: of a number, where it is cut; () where its values themselves are the classes.
        values: what each class is: the value, or the place among the cuts. Any other is the class after the last.
    """

    name: str
    column: int
    cuts: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        """Classes, the one of all other values included."""
        return len(self.values) + 1

    def encode(self, actions: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Classes (T,) int16 of actions (T, A), UNKNOWN where they are not `valid` (T,)."""
        found = _placed(actions[:, self.column], self.cuts)
        known = np.array(self.values)
        place = np.searchsorted(known, found).clip(max=len(known) - 1)
        classes = np.where(known[place] == found, place, len(known)).astype(np.int16)
        return np.where(valid, classes, UNKNOWN).astype(np.int16)


def parts_of(spec: ActionSpec, actions: Sequence[np.ndarray], valid: Sequence[np.ndarray]) -> list[Part]:
    """The parts that act: those that change in these episodes (each (T, A) and (T,)), at most MOST_PARTS."""
    found: list[tuple[int, Part]] = []
    columns = spec.slices()
    for component in spec.components:
        first = columns[component.name].start
        for place, name in enumerate(column_names(component)):
            labelled = np.concatenate([a[known, first + place] for a, known in zip(actions, valid, strict=True)])
            if len(labelled) and np.ptp(labelled) > 0:
                part = _part(component, name, first + place, labelled)
                found.append((_changes(part, actions, valid), part))
    acting = [entry for entry in found if entry[0] >= LEAST_CHANGES]
    return [part for _, part in sorted(acting, key=lambda entry: -entry[0])[:MOST_PARTS]]


def changed(classes: np.ndarray) -> np.ndarray:
    """Steps (..., T) of classes (..., T) before or after which the action is another one."""
    new = (classes[..., 1:] != classes[..., :-1]) & (classes[..., 1:] != UNKNOWN) & (classes[..., :-1] != UNKNOWN)
    edge = np.zeros(classes.shape, bool)
    edge[..., 1:] |= new
    edge[..., :-1] |= new
    return edge


def _part(component: ActionComponent, name: str, column: int, labelled: np.ndarray) -> Part:
    title = component.name if component.dim == 1 else f"{component.name} {name}"
    cuts: tuple[float, ...] = ()
    if component.type == "continuous":
        cuts = tuple(np.unique(np.quantile(labelled, QUANTILES, method="nearest")).tolist())
    seen, counts = np.unique(_placed(labelled, cuts), return_counts=True)
    kept = np.sort(seen[np.argsort(-counts, kind="stable")[:CLASSES]])
    return Part(title, column, cuts, tuple(kept.tolist()))


def _placed(values: np.ndarray, cuts: tuple[float, ...]) -> np.ndarray:
    """The values themselves, or how many cuts each is at or above plus how many it is above."""
    if not cuts:
        return values.astype(np.float64)
    edges = np.array(cuts)
    return np.asarray(
        np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, side="right"), np.float64
    )


def _changes(part: Part, actions: Sequence[np.ndarray], valid: Sequence[np.ndarray]) -> int:
    return sum(int(changed(part.encode(a, known)).sum()) // 2 for a, known in zip(actions, valid, strict=True))
