"""Ranges of continuous actions that nothing names: from what is seen in the data, as 32-bit numbers hold it."""

from __future__ import annotations

import numpy as np

from ahriuwu_cli.core.specs import WIDEST_BOUND, are_apart

LARGEST_ACTION = 0.1 * WIDEST_BOUND
"""Beyond that a number is no action."""


def with_width(low: float, high: float) -> tuple[float, float]:
    """Bounds as 32-bit numbers, rounded outwards; one wider to both sides where they do not differ."""
    bottom, top = np.float32(low), np.float32(high)
    bottom = np.nextafter(bottom, np.float32(-np.inf)) if bottom > low else bottom
    top = np.nextafter(top, np.float32(np.inf)) if top < high else top
    ends = float(bottom), float(top)
    return ends if are_apart(*ends) else (ends[0] - 1, ends[1] + 1)


def usual_range(low: float, high: float) -> tuple[float, float]:
    """From -1 to 1 where all that was seen is within, as environments mostly have it; else `with_width`."""
    return (-1.0, 1.0) if low >= -1 and high <= 1 else with_width(low, high)
