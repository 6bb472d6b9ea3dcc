"""What all pictures of frames have in common: colours, distances, the font.

Dimension letters: H and W pixels of a picture.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

Frames = NDArray[np.uint8]
Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

BACKGROUND: Colour = (20, 22, 28)
TEXT: Colour = (235, 235, 235)
NEUTRAL_COLOUR: Colour = (110, 114, 124)
TRACK_COLOUR: Colour = (50, 54, 64)

GAP = 8  # pixels between tiles and around the picture
BAR = 4  # height of the progress bar in pixels
FONT_SIZE = 12  # of captions that need not grow


@lru_cache(maxsize=16)
def font_of(size: int = FONT_SIZE) -> Font:
    """The font of all captions, at `size` pixels."""
    return ImageFont.load_default(size=size)


def line_height(font: Font) -> int:
    """Pixels from one line of text to the next."""
    return math.ceil(font.getbbox("Ag|")[3]) + 2
