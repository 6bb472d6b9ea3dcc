"""One palette for all frames of an animation, and the palette index of every pixel.

Dimension letters: T frames, H and W pixels, 3 RGB channels; P colours of the palette.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from ahriuwu_cli.core.pictures.style import Frames

NUM_COLOURS = 255  # GIF has 256; one stays free for the writer to mark unchanged pixels
TOLERANCE = 4  # of 255; smaller changes between frames are not shown
SAMPLE_PIXELS = 1 << 20  # pixels looked at to choose a palette
REFINEMENTS = 3  # k-means passes over the chosen palette


def index_colours(frames: Frames) -> tuple[Frames, Frames]:
    """Reduce frames to one palette.

    A pixel whose channels all stay within `TOLERANCE` of what is shown keeps it, so small noise
    neither flickers nor costs bytes. Up to 255 colours are kept exactly; of more, the nearest of 255
    chosen ones is taken.

    Args:
        frames: (T, H, W, 3) uint8.

    Returns:
        The palette (P, 3) uint8 with P <= 255, and indices (T, H, W) uint8 into it.
    """
    calm = _hold_small_changes(frames)
    seen = np.zeros(1 << 24, dtype=bool)
    for frame in calm:
        seen[_pack(frame)] = True
    codes = np.flatnonzero(seen)
    colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8)  # (colours seen, 3)
    palette = colours if len(colours) <= NUM_COLOURS else _choose_palette(calm)
    table = np.zeros(1 << 24, dtype=np.uint8)
    table[codes] = cKDTree(palette.astype(np.float64)).query(colours.astype(np.float64))[1]  # nearest entry
    return palette, np.stack([table[_pack(frame)] for frame in calm])


def _pack(frame: Frames) -> NDArray[np.int64]:
    """Write each colour as one number 0..2^24-1: (H, W, 3) -> (H, W)."""
    red, green, blue = np.moveaxis(frame.astype(np.int64), -1, 0)
    packed: NDArray[np.int64] = red << 16 | green << 8 | blue
    return packed


def _hold_small_changes(frames: Frames) -> Frames:
    shown = frames.copy()
    for step in range(1, len(frames)):
        change = np.abs(frames[step].astype(np.int16) - shown[step - 1]).max(axis=-1, keepdims=True)  # (H, W, 1)
        shown[step] = np.where(change <= TOLERANCE, shown[step - 1], frames[step])
    return shown


def _choose_palette(frames: Frames) -> Frames:
    """Choose 255 colours for the pixels of all frames: (T, H, W, 3) -> (P, 3)."""
    pixels = frames.reshape(-1, 3)
    sample = pixels[:: max(1, len(pixels) // SAMPLE_PIXELS)]
    image = Image.fromarray(sample[None])  # one row of pixels
    # Maximum coverage keeps rare colours (a small ball, captions), which median cut merges away.
    quantised = image.quantize(NUM_COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=REFINEMENTS)
    return np.asarray(quantised.getpalette(), dtype=np.uint8).reshape(-1, 3)[:NUM_COLOURS]
