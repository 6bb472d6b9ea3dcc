"""The one frame transform: whatever an environment or importer shows becomes (H, W, 3) uint8 of the wanted size.

Shapes: h x w the source's pixels, H x W the wanted ones, K taps per output pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ahriuwu_cli.core.errors import DataError, InputError


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
    scaled = image.astype(np.float32)  # (h, w, 3)
    scaled = _scale_rows(scaled, height)  # (H, w, 3)
    scaled = _scale_rows(scaled.transpose(1, 0, 2), width)  # (W, H, 3)
    return np.ascontiguousarray(np.rint(scaled).astype(np.uint8).transpose(1, 0, 2))


def cropped(image: np.ndarray, crop: Sequence[int], whose: str) -> np.ndarray:
    """The part (top, left, height, width) of a picture.

    Raises:
        InputError: it reaches beyond the picture.
    """
    top, left, height, width = crop
    if top + height > image.shape[0] or left + width > image.shape[1]:
        raise InputError(
            f"data.crop {list(crop)} reaches beyond the picture of {whose}, which has "
            f"{image.shape[0]}x{image.shape[1]} pixels",
            hint="data.crop is [top, left, height, width] in pixels of the picture before it is scaled",
        )
    return image[top : top + height, left : left + width]


def _scale_rows(image: np.ndarray, size: int) -> np.ndarray:
    """Scale the first axis of (n, m, 3) float32 to `size`; sums in a fixed order, so equal on every machine."""
    if image.shape[0] == size:
        return image
    if size % image.shape[0] == 0:
        return np.repeat(image, size // image.shape[0], axis=0)
    index, weight = _taps(image.shape[0], size)
    out: np.ndarray = image[index[0]] * weight[0][:, None, None]
    for tap in range(1, len(index)):
        out += image[index[tap]] * weight[tap][:, None, None]
    return out


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
