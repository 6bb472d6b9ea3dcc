"""Action specs of several stores as one: components by their names, and a store's actions as rows of the common spec.

Shapes: T steps, A = dim of the common spec.

Decision: `action_valid` says of a whole action whether it is known. An episode of a store that lacks a component is
therefore unlabelled as a whole in the common spec, what its store does say of the action included: a half-known row
would pass for a known one. Whoever calls this leaves out stores in which no step is labelled: their components would
take the labels of all others away (a recording without side-cars has the one component `unlabelled`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.episodes.episode import Tracks

LATER = ("labels", "aggregate")
"""What one definition may leave open that another one says."""


@dataclass(frozen=True)
class Named:
    """The action spec of a store, and what the store is called in messages."""

    name: str
    spec: ActionSpec


def common_spec(stores: Sequence[Named]) -> ActionSpec:
    """All components in order of first appearance.

    Raises:
        InputError: two of one name are defined differently.
    """
    found: dict[str, tuple[ActionComponent, str]] = {}
    for store in stores:
        for part in store.spec.components:
            there = found.get(part.name)
            found[part.name] = (part, store.name) if there is None else (_agreed(there, part, store.name), there[1])
    return ActionSpec(components=tuple(part for part, _ in found.values()))


def lacking(spec: ActionSpec, common: ActionSpec) -> list[str]:
    """Names of the components that a store's spec lacks."""
    own = {part.name for part in spec.components}
    return [part.name for part in common.components if part.name not in own]


def in_common(tracks: Tracks, spec: ActionSpec, common: ActionSpec) -> Tracks:
    """Tracks of a store with `spec` as those of one with the common spec: actions (T, A), unlabelled if one lacks."""
    valid = tracks.action_valid & (not lacking(spec, common))
    actions, own = np.zeros((tracks.num_steps, common.dim), np.float32), spec.slices()
    for name, columns in common.slices().items():
        if name in own:
            actions[:, columns] = tracks.actions[:, own[name]]
    actions[~valid] = 0
    return replace(tracks, actions=actions, action_valid=valid)


def same_but_for_words(one: ActionSpec, other: ActionSpec) -> bool:
    """Whether two specs have the same components, whatever they call choices and however these were aggregated."""
    return [_core(part) for part in one.components] == [_core(part) for part in other.components]


def _agreed(there: tuple[ActionComponent, str], part: ActionComponent, name: str) -> ActionComponent:
    """Two definitions of one component as one; each may leave labels or the rule of aggregation to the other."""
    first, whose = there
    added = {key: getattr(part, key) for key in LATER if not getattr(first, key)}
    both = first.model_copy(update=added)
    if _core(first) != _core(part) or any(getattr(part, key) not in ((), None, getattr(both, key)) for key in LATER):
        raise InputError(
            f"action component {part.name!r} is {_said(first)} in {whose}, and {_said(part)} in {name}",
            hint="import one of them again with the definition of the other, or with another name",
        )
    return both


def _core(part: ActionComponent) -> dict[str, object]:
    return part.model_dump(exclude=set(LATER))


def _said(part: ActionComponent) -> str:
    values = part.model_dump(exclude={"name"}, exclude_defaults=True)
    return ", ".join(f"{key} {list(value) if isinstance(value, tuple) else value}" for key, value in values.items())
