"""Parts of the screen that the tokenizer's loss and its metrics leave out (no torch import).

Shapes: H and W frame size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def counted_pixels(regions: Sequence[Sequence[int]], height: int, width: int) -> np.ndarray:
    """Which pixels count: (H, W) bool, False inside the regions.

    Args:
        regions: [top, left, height, width] in pixels each, as `tokenizer.loss.ignored_regions` has them.
        height: of the frames.
        width: of the frames.

    Raises:
        ValueError: a region is empty or reaches outside the frame, or no pixel is left.
    """
    counted = np.ones((height, width), dtype=bool)
    for top, left, rows, columns in regions:
        if not rows or not columns or top + rows > height or left + columns > width:
            raise ValueError(
                f"tokenizer.loss.ignored_regions has [{top}, {left}, {rows}, {columns}]; expected [top, left, height, "
                f"width] of at least one pixel inside the frame of {height}x{width}"
            )
        counted[top : top + rows, left : left + columns] = False
    if not counted.any():
        raise ValueError(f"tokenizer.loss.ignored_regions cover the whole frame of {height}x{width}")
    return counted
