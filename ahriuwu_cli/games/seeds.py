"""Episode seeds: distinct numbers from streams that are kept apart, none of them used before."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import numpy as np


def fresh_seeds(seed: int, stream: int, count: int, taken: AbstractSet[int]) -> list[int]:
    """`count` distinct episode seeds of a run's seed, in a fixed order, none of them in `taken`.

    Args:
        seed: the run's.
        stream: what the seeds are for; other numbers give other seeds.
        count: how many.
        taken: seeds not to use, those of recorded episodes for instance.
    """
    rng = np.random.default_rng([seed, stream])
    seeds: dict[int, None] = {}
    while len(seeds) < count:
        candidate = int(rng.integers(2**31 - 1))
        if candidate not in taken:
            seeds[candidate] = None
    return list(seeds)
