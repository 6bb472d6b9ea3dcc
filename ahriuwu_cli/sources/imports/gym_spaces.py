"""Gymnasium spaces that are written as JSON, the way Minari writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from ahriuwu_cli.sources.imports.fields import Entry

LARGEST = 1 << 24
"""Numbers in a space, and choices of a discrete one."""


def space_of(entry: Entry) -> spaces.Space[Any]:
    """The space that an entry describes; text, sequences and the like come out as Text, which holds no numbers.

    Raises:
        RecordingError: it makes no sense.
    """
    kind = entry.text("type")
    try:
        return MAKERS[kind](entry) if kind in MAKERS else spaces.Text(1)
    except (ValueError, TypeError, OverflowError, AssertionError, MemoryError) as error:
        text = " ".join(str(error).split())[:200]
        raise entry.fault(f"a {kind} that makes no sense: {text}") from error


def _dict(entry: Entry) -> spaces.Dict:
    inner = entry.entry("subspaces")
    return spaces.Dict({name: space_of(inner.entry(name)) for name in inner.names()})


def _tuple(entry: Entry) -> spaces.Tuple[Any]:
    return spaces.Tuple([space_of(each) for each in entry.entries("subspaces")])


def _discrete(entry: Entry) -> spaces.Discrete:
    return spaces.Discrete(entry.whole("n", 1, LARGEST), start=entry.whole("start", -LARGEST, LARGEST, 0))


def _multi_discrete(entry: Entry) -> spaces.MultiDiscrete:
    counts = np.asarray(entry.items("nvec"), np.int64)
    start = np.asarray(entry.items("start"), np.int64) if entry.holds("start") else None
    return spaces.MultiDiscrete(counts, start=start)


def _multi_binary(entry: Entry) -> spaces.MultiBinary:
    if isinstance(entry.anything("n"), list):
        return spaces.MultiBinary(entry.wholes("n", 1, LARGEST))
    return spaces.MultiBinary(entry.whole("n", 1, LARGEST))


def _box(entry: Entry) -> spaces.Box:
    shape = tuple(entry.wholes("shape", 0, LARGEST))
    if np.prod(shape, dtype=np.float64) > LARGEST:
        raise entry.wrong("shape", f"at most {LARGEST:,} numbers")
    dtype = np.dtype(entry.text("dtype"))
    if dtype.kind not in "biuf":
        raise entry.wrong("dtype", "a type of numbers")
    ends = [np.broadcast_to(np.asarray(entry.anything(name), dtype), shape) for name in ("low", "high")]
    return spaces.Box(ends[0], ends[1], shape=shape, dtype=dtype.type)


MAKERS: dict[str, Callable[[Entry], spaces.Space[Any]]] = {
    "Dict": _dict,
    "Tuple": _tuple,
    "Discrete": _discrete,
    "MultiDiscrete": _multi_discrete,
    "MultiBinary": _multi_binary,
    "Box": _box,
}
