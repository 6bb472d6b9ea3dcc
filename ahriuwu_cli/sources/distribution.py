"""How many numbers lie where, in bounded memory: exact for few different ones, close for many.

Shapes: n numbers that come together, M different values that are kept (at most LIMIT).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIMIT = 4096
"""Different values that are kept; of more, neighbours are joined, each then stands for about as many numbers."""
NAMED_VALUES = 12  # more different values than these are put into bins
NUM_BINS = 20


class Distribution:
    """Counts numbers by value.

    Once there are more than LIMIT different values, neighbours become their weighted mean, LIMIT / 2 groups of about
    equal weight. A quantile is then right within a few LIMIT-ths of the numbers; least, greatest, mean and number of
    them stay exact.
    """

    def __init__(self) -> None:
        self._values = np.zeros(0)  # (M,) rising
        self._weights = np.zeros(0)  # (M,)
        self._sum = 0.0
        self._ends = (np.inf, -np.inf)
        self._exact = True

    @property
    def count(self) -> int:
        """Numbers so far."""
        return int(self._weights.sum())

    def add(self, numbers: NDArray[Any]) -> None:
        """Take in finite numbers (n,)."""
        if len(numbers) == 0:
            return
        values = numbers.astype(np.float64)
        self._sum += float(values.sum())
        self._ends = (min(self._ends[0], float(values.min())), max(self._ends[1], float(values.max())))
        self._values, place = np.unique(np.concatenate([self._values, values]), return_inverse=True)
        weights = np.concatenate([self._weights, np.ones(len(values))])
        self._weights = np.bincount(place, weights).astype(np.float64)
        if len(self._values) > LIMIT:
            self._compress()

    def quantiles(self, shares: Sequence[float]) -> list[float | None]:
        """For each share 0..1, the least value that so many numbers do not exceed; None where there are no numbers."""
        if not len(self._values):
            return [None] * len(shares)
        reached = np.cumsum(self._weights) / self._weights.sum()
        places = np.searchsorted(reached, np.asarray(shares) - 1e-12)
        found = np.where(np.asarray(shares) <= 0, self._ends[0], self._values[np.minimum(places, len(reached) - 1)])
        return [float(value) for value in np.where(np.asarray(shares) >= 1, self._ends[1], found)]

    def facts(self) -> dict[str, Any]:
        """Ready for JSON: `count`, `mean`, `min`, `p5`, `p25`, `median`, `p75`, `p95`, `max`; null without numbers."""
        names = ("min", "p5", "p25", "median", "p75", "p95", "max")
        found = self.quantiles((0, 0.05, 0.25, 0.5, 0.75, 0.95, 1))
        mean = self._sum / self.count if self.count else None
        return {"count": self.count, "mean": mean, **dict(zip(names, found, strict=True))}

    def histogram(self) -> list[dict[str, Any]]:
        """Ready for JSON: `low`, `high`, `count` of each of a few values (low is high), or of NUM_BINS equal bins."""
        if self._exact and len(self._values) <= NAMED_VALUES:
            pairs = zip(self._values.tolist(), self._weights.tolist(), strict=True)
            return [{"low": value, "high": value, "count": int(weight)} for value, weight in pairs]
        counts, edges = np.histogram(self._values, NUM_BINS, self._ends, weights=self._weights)
        bins = zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
        return [{"low": low, "high": high, "count": round(count)} for low, high, count in bins]

    def _compress(self) -> None:
        middles = np.cumsum(self._weights) - self._weights / 2
        _, group = np.unique(np.floor(middles / self._weights.sum() * (LIMIT // 2)), return_inverse=True)
        weights = np.bincount(group, self._weights).astype(np.float64)
        self._values = np.bincount(group, self._weights * self._values) / weights
        self._weights, self._exact = weights, False
