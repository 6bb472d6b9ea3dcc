"""What the choices, switches and numbers of an action are called."""

from __future__ import annotations

from ahriuwu_cli.core.specs import ActionComponent


def choice_names(part: ActionComponent) -> list[str]:
    """The names of a categorical component's choices; their numbers where they have no names of their own."""
    assert part.num_classes is not None
    return _names(part, part.num_classes)


def column_names(part: ActionComponent) -> list[str]:
    """The names of the D switches or numbers of a component; their places where they have no names of their own."""
    return _names(part, part.dim)


def _names(part: ActionComponent, count: int) -> list[str]:
    fine = len(set(part.labels)) == len(part.labels) == count
    return list(part.labels) if fine else [str(index) for index in range(count)]
