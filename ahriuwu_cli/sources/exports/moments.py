"""Lowest, highest, mean and deviation of columns that come piece by piece.

Shapes: n rows of a piece, D columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Moments:
    """Of all rows that were added."""

    def __init__(self) -> None:
        self._count = 0
        self._low = self._high = self._mean = self._spread = np.zeros(0)

    def add(self, rows: np.ndarray) -> None:
        """Take rows (n, D), at least one; D is the same in every piece."""
        values = rows.astype(np.float64)
        count, low, high, mean = len(values), values.min(axis=0), values.max(axis=0), values.mean(axis=0)
        spread = ((values - mean) ** 2).sum(axis=0)
        if not self._count:
            self._count, self._low, self._high, self._mean, self._spread = count, low, high, mean, spread
            return
        apart, total = mean - self._mean, self._count + count
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        self._spread = self._spread + spread + apart**2 * (self._count * count / total)
        self._mean, self._count = self._mean + apart * (count / total), total

    def facts(self, *, wide: bool) -> dict[str, Any]:
        """By name, as LeRobot's statistics are: (D,), or (D, 1, 1) where they are of channels (`wide`)."""
        found = {"min": self._low, "max": self._high, "mean": self._mean, "std": np.sqrt(self._spread / self._count)}
        shaped = {name: (values[:, None, None] if wide else values).tolist() for name, values in found.items()}
        return shaped | {"count": [self._count]}
