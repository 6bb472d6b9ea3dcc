"""Episode seeds: distinct numbers from streams that are kept apart, none of them used before."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from enum import IntEnum

import numpy as np

BORDER = 1 << 30
"""Test episodes have seeds from here on, all others lower ones: streams of no run share an episode (pitfall 38)."""
TOP = 2**31 - 1


class Stream(IntEnum):
    """What the seeds are for.

    `TUNING` is played by `eval agent`, `CHECK` while imagination trains: settings may be chosen by what these return.
    `TEST` is played by `study run` alone, once settings are frozen.
    """

    TUNING = 0x5EED
    CHECK = 0xC4EC
    TEST = 0x7E57


def fresh_seeds(seed: int, stream: Stream, count: int, taken: AbstractSet[int]) -> list[int]:
    """`count` distinct episode seeds of a run's seed, in a fixed order, none of them in `taken`.

    Args:
        seed: the run's.
        stream: what the seeds are for.
        count: how many.
        taken: seeds not to use, those of recorded episodes for instance.
    """
    rng = np.random.default_rng([seed, stream])
    low, high = (BORDER, TOP) if stream is Stream.TEST else (0, BORDER)
    seeds: dict[int, None] = {}
    while len(seeds) < count:
        candidate = int(rng.integers(low, high))
        if candidate not in taken:
            seeds[candidate] = None
    return list(seeds)
