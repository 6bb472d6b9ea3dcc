"""Settings as flat tables of dotted keys: what two calls of one plan asked for, and where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MOST_SHOWN = 4


def flat(table: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its dotted key; an empty table is a value."""
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{place}{name}.")
        else:
            yield f"{place}{name}", value


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Keys whose value is not the same in both, with the value of each (None where there is none)."""
    keys = sorted({*before, *now})
    return [(key, before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)]


def in_words(changed: list[tuple[str, Any, Any]]) -> str:
    """The first of the differences as `key old -> new`."""
    words = "; ".join(f"{key} {old!r} -> {new!r}" for key, old, new in changed[:MOST_SHOWN])
    return words + (f" and {len(changed) - MOST_SHOWN} more" if len(changed) > MOST_SHOWN else "")
