"""Rows of data sets that are steps: what came back with the frame after that of the row.

Shapes: N frames, n = N or N - 1 rows, D columns.
"""

from __future__ import annotations

import numpy as np

from ahriuwu_cli.sources.imports.protocol import Happenings


def with_next_frame(values: np.ndarray, times: np.ndarray, *, ended: bool) -> Happenings:
    """What came back after row t, at the time of frame t + 1.

    Where there are as many rows as frames, the frame that the last row led to was not recorded. Where the episode ended
    there, the last frame that there is counts as its end and what came back with the missing one is credited to it:
    else the reward that many episodes have, at their end, would be lost. Where it was cut off, it is left out.

    Args:
        values: (n, D), finite.
        times: of the frames, (N,).
        ended: the last row ended the episode.
    """
    came = np.array(values[: len(times) - 1], np.float32)
    if ended and len(values) == len(times) and len(came):
        came[-1] += np.asarray(values[-1], np.float32)
    return Happenings(times[1 : 1 + len(came)], came)
