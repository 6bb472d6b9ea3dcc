"""What the layouts of the first prototype share: sectors of movement, keys, and readings that become gains.

Shapes: N frames, n readings that were made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ahriuwu_cli.sources.imports.protocol import Happenings

STILL = 18
"""The class of standing still, after the sectors 0 to 17."""
SECTORS = (*(f"{20 * sector} to {20 * sector + 20} degrees" for sector in range(STILL)), "still")
"""Sector k is from 20 k degrees on, counter-clockwise from East (right)."""
MOST_GOLD = 1e6
"""Of a match; what says more was not read from the game."""
KEYS = ("Q", "W", "E", "R", "D", "F", "item", "B")


def sector_of(right: float, up: float) -> int:
    """The sector of a movement; STILL where there is none."""
    if not right and not up:
        return STILL
    return int(math.degrees(math.atan2(up, right)) % 360 / 20) % STILL


def differences(times: np.ndarray, readings: Sequence[float | None]) -> Happenings:
    """How much a reading changed up to each frame (N,) from the last one that was made, at the frame's time.

    Changes add up to the right thing at any frame rate, as positions would not.
    """
    made = [number for number, reading in enumerate(readings) if reading is not None]
    values = np.array([readings[number] for number in made], np.float64)  # (n,)
    return Happenings(times[made[1:]], np.diff(values).astype(np.float32)[:, None])
