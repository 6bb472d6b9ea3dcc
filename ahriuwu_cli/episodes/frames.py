"""The one frame transform: whatever an environment or importer shows becomes (H, W, 3) uint8 of the wanted size.

Shapes: h x w the source's pixels, H x W the wanted ones, K taps per output pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ahriuwu_cli.core.errors import DataError, InputError
from ahriuwu_cli.episodes.config import DataSection, Fit

BLOCK = 64
"""Output rows that are made together: what they are made of stays in the cache."""


@dataclass(frozen=True)
class FrameTransform:
    """What is done to every picture, in this order: regions masked, a part cut out, brought to the frame's size.

    Recording, importing and playing all take it from the `[data]` settings that are in the store (pitfall 27).

    Attributes:
        height: H; width: W.
        crop: part (top, left, height, width) of the picture that is used; None for all of it.
        fit: what becomes of a part of another aspect than the frame's; see DataSection.
        masks: regions (top, left, height, width) of the picture that are painted black.
    """

    height: int
    width: int
    crop: Sequence[int] | None = None
    fit: Fit = "stretch"
    masks: Sequence[Sequence[int]] = ()

    @classmethod
    def of(cls, data: DataSection) -> FrameTransform:
        """The one that `[data]` settings describe."""
        return cls(data.height, data.width, data.crop, data.fit, data.masks)

    def __call__(self, image: np.ndarray, whose: str) -> np.ndarray:
        """Turn a picture (h, w, 3), (h, w, 1) or (h, w) uint8 into a frame (H, W, 3) uint8.

        The picture is left as it is; where nothing is to be done the frame is the picture itself.

        Args:
            image: the picture.
            whose: it is, for messages.

        Raises:
            DataError: it is no such picture.
            InputError: crop or a mask reaches beyond it.
        """
        if self.masks:
            image = image.copy()
            for mask in self.masks:
                part_of(image, mask, "data.masks", whose)[:] = 0
        if self.crop is not None:
            image = part_of(image, self.crop, "data.crop", whose)
        if self.fit == "stretch" or image.ndim < 2 or 0 in image.shape:
            return to_frame(image, self.height, self.width)
        h, w = image.shape[:2]
        if self.fit == "cover":
            return to_frame(_middle(image, *_within(self.height, self.width, h, w)), self.height, self.width)
        rows, columns = _within(h, w, self.height, self.width)
        frame = np.zeros((self.height, self.width, 3), np.uint8)
        _middle(frame, rows, columns)[:] = to_frame(image, rows, columns)
        return frame


def part_of(image: np.ndarray, part: Sequence[int], setting: str, whose: str) -> np.ndarray:
    """The part (top, left, height, width) of a picture, as a view.

    Raises:
        InputError: it reaches beyond the picture.
    """
    top, left, height, width = part
    if top + height > image.shape[0] or left + width > image.shape[1]:
        raise InputError(
            f"{setting} {list(part)} reaches beyond the picture of {whose}, which has "
            f"{image.shape[0]}x{image.shape[1]} pixels",
            hint=f"{setting} is [top, left, height, width] in pixels of the picture before it is scaled",
        )
    return image[top : top + height, left : left + width]


def _within(height: int, width: int, bound_height: int, bound_width: int) -> tuple[int, int]:
    """Sides of the largest rectangle as high to wide as (height, width) within the bounds, in whole pixels."""
    if height * bound_width >= width * bound_height:  # as high as there is room
        return bound_height, max(1, round(width * bound_height / height))
    return max(1, round(height * bound_width / width)), bound_width


def _middle(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The middle of a picture, as a view; the odd pixel is left out below and on the right."""
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    return image[top : top + rows, left : left + columns]


def to_frame(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Turn an image (h, w, 3), (h, w, 1) or (h, w) uint8 into a frame (height, width, 3) uint8.

    Shrinking averages the covered area; enlarging repeats pixels where the factor is a whole number, so that a
    world of cells stays sharp, and is bilinear elsewhere; each axis apart. A frame of the wanted size is passed on
    as it is (a copy only where grey becomes RGB).

    Raises:
        DataError: not a uint8 image of one of these shapes.
    """
    if image.ndim == 2:
        image = image[:, :, None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise DataError(
            f"frame is {image.dtype} {image.shape}; expected uint8 (height, width, 3) or grey",
            hint="wrap the environment so that it shows uint8 RGB or grey images",
        )
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    if image.shape[:2] == (height, width):
        return image
    scaled = _scale_rows(image, height)  # (H, w, 3)
    scaled = _scale_rows(scaled.transpose(1, 0, 2), width)  # (W, H, 3)
    if scaled.dtype != np.uint8:
        scaled = np.rint(scaled, out=scaled).astype(np.uint8)
    return np.ascontiguousarray(scaled.transpose(1, 0, 2))


def _scale_rows(image: np.ndarray, size: int) -> np.ndarray:
    """Scale the first axis of (n, m, 3) uint8 or float32 to `size`; uint8 where nothing had to be weighed.

    Sums have a fixed order and no library that chooses one by the machine, so that they are equal on every machine.
    """
    if image.shape[0] == size:
        return image
    if size % image.shape[0] == 0:
        return np.repeat(image, size // image.shape[0], axis=0)
    index, weight = _taps(image.shape[0], size)
    rows = np.ascontiguousarray(image).reshape(image.shape[0], -1)
    out = np.empty((size, rows.shape[1]), np.float32)
    part = np.empty((min(BLOCK, size), rows.shape[1]), np.float32)
    for start in range(0, size, BLOCK):
        block = slice(start, start + BLOCK)
        total, tapped = out[block], part[: min(BLOCK, size - start)]
        np.multiply(rows[index[0, block]], weight[0, block, None], out=total)
        for tap in range(1, len(index)):
            total += np.multiply(rows[index[tap, block]], weight[tap, block, None], out=tapped)
    return out.reshape(size, *image.shape[1:])


@lru_cache(maxsize=64)
def _taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Source rows and weights of every output row: index (K, target) int64, weight (K, target) float32."""
    if target < source:  # area: output row i covers [i, i+1) * source / target
        edges = np.arange(target + 1) * (source / target)
        start = np.floor(edges[:-1]).astype(np.int64)
        num_taps = int(np.ceil(source / target)) + 1
        index = start[None, :] + np.arange(num_taps)[:, None]  # (K, target)
        weight = np.minimum(index + 1, edges[None, 1:]) - np.maximum(index, edges[None, :-1])
        weight = np.maximum(weight, 0)
    else:  # bilinear between pixel centres
        centre = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
        start = np.floor(centre).astype(np.int64)
        index = np.stack([start, start + 1])
        weight = np.stack([1 - (centre - start), centre - start])
    weight = weight / weight.sum(axis=0)
    return np.minimum(index, source - 1), weight.astype(np.float32)
