"""Arrays that are pictures, as data sets keep them: grey or RGB, channels first or last, bytes.

Shapes: h x w pixels, C = 1 (grey) or 3 (RGB) channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ahriuwu_cli.sources.imports.frames import LARGEST_PICTURE
from ahriuwu_cli.sources.imports.protocol import RecordingError

Colours = Literal["rgb", "bgr"]
SMALLEST_SIDE = 8
CHANNELS = (1, 3)
EXPECTED = "(h, w), (h, w, C) or (C, h, w) with C 1 or 3"


def is_picture(shape: Sequence[int]) -> bool:
    """Whether an array of this shape may be one picture."""
    if not all(0 < side <= LARGEST_PICTURE for side in shape) or np.prod(shape, dtype=float) > 3 * LARGEST_PICTURE:
        return False
    if len(shape) == 2:
        return min(shape) >= SMALLEST_SIDE
    if len(shape) != 3:
        return False
    last = shape[2] in CHANNELS and min(shape[:2]) >= SMALLEST_SIDE
    return last or (shape[0] in CHANNELS and min(shape[1:]) >= SMALLEST_SIDE)


def as_picture(array: np.ndarray, name: str, row: int | None = None) -> np.ndarray:
    """One picture as (h, w, 3) or, grey, (h, w) uint8.

    Args:
        array: of a shape that is a picture.
        name: of the file, for messages, and the row.

    Raises:
        RecordingError: it is none, or not of bytes.
    """
    if array.dtype != np.uint8 or not is_picture(array.shape):
        raise RecordingError(
            name, f"a picture is {array.dtype} of shape {array.shape}; expected uint8 of {EXPECTED}", row
        )
    if array.ndim == 3 and array.shape[2] not in CHANNELS:
        array = np.moveaxis(array, 0, -1)
    return array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array


def as_rgb(picture: np.ndarray, colours: Colours) -> np.ndarray:
    """A picture (h, w, 3), or a grey one, with its colours in the order red, green, blue."""
    return picture[..., ::-1] if colours == "bgr" and picture.ndim == 3 else picture
