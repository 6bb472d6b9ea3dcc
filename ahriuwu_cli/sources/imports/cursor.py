"""A mouse cursor for recordings whose pictures have none, though the player saw one.

Shapes: N frames, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ahriuwu_cli.sources.imports.protocol import FrameSource

SIZE = 16
INSIDE = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 6, 6)
"""Pixels of the arrow in each row, from its left edge on."""


def _arrow() -> tuple[np.ndarray, np.ndarray]:
    """An arrow to the upper left, white with a dark edge: colour (16, 16, 1) and what it covers (16, 16, 1) bool."""
    rows, columns = np.indices((SIZE, SIZE))
    width = np.array([*INSIDE, *[0] * (SIZE - len(INSIDE))])
    shaft = (rows >= len(INSIDE)) & (rows < SIZE) & (columns >= rows // 2 - 3) & (columns < rows // 2)
    covers = (columns < width[rows]) | shaft
    inner = np.pad(covers, 1)
    inside = covers & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return np.where(inside, 255, 30)[..., None].astype(np.uint8), covers[..., None]


COLOUR, COVERS = _arrow()


def draw_cursor(picture: np.ndarray, x: int, y: int) -> np.ndarray:
    """A picture (h, w, 3) uint8 with the tip of a cursor at column `x`, row `y`; what is outside is cut off."""
    drawn = picture.copy()
    top, left = max(0, y), max(0, x)
    bottom, right = min(picture.shape[0], y + SIZE), min(picture.shape[1], x + SIZE)
    if top < bottom and left < right:
        part = np.s_[top - y : bottom - y, left - x : right - x]
        place = drawn[top:bottom, left:right]
        place[:] = np.where(COVERS[part], COLOUR[part], place)
    return drawn


class WithCursor:
    """Frames with a cursor where there was one.

    Args:
        frames: without.
        places: of the cursor in each frame, (N, 2) column and row; NaN where none is.
        height: of the window that they are counted in.
    """

    def __init__(self, frames: FrameSource, places: np.ndarray, height: int) -> None:
        self._frames, self._places, self._height = frames, places, height

    @property
    def times(self) -> np.ndarray:
        """See FrameSource."""
        return self._frames.times

    def chosen(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """See FrameSource."""
        wanted = list(numbers)
        for number, picture in zip(wanted, self._frames.chosen(wanted), strict=True):
            place = self._places[number] * (picture.shape[0] / self._height)
            if np.isfinite(place).all():
                yield draw_cursor(picture, int(place[0]), int(place[1]))
            else:
                yield picture

    def close(self) -> None:
        """See FrameSource."""
        self._frames.close()
