"""A bar of text above the frames of a video, with what changes from frame to frame.

Dimension letters: T frames, L lines of text, H and W pixels of a frame, H' and W' of the finished picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ahriuwu_cli.evaluation.pictures import (
    BACKGROUND,
    BAR,
    GAP,
    NEUTRAL_COLOUR,
    TEXT,
    TRACK_COLOUR,
    Frames,
)

FONT_SIZE = 12


def captioned(frames: Frames, captions: Sequence[Sequence[str]], *, scale: int = 4) -> Frames:
    """Draw each frame below its own lines of text and a bar of how far the video is.

    Args:
        frames: (T, H, W, 3) uint8.
        captions: for each of the T frames, L lines of text.
        scale: each pixel becomes scale x scale pixels.

    Returns:
        (T, H', W', 3) uint8; as wide as the frames or the longest line.

    Raises:
        ValueError: no frame, captions that are not T with L lines each, or scale below 1.
    """
    counts = {len(lines) for lines in captions}
    if len(frames) == 0 or len(captions) != len(frames) or len(counts) != 1:
        raise ValueError(
            f"there are {len(captions)} captions of {sorted(counts)} lines; expected one for each of {len(frames)} "
            "frames, all of one number of lines"
        )
    if scale < 1:
        raise ValueError(f"scale is {scale}; expected at least 1")
    font = ImageFont.load_default(size=FONT_SIZE)
    line_height = math.ceil(font.getbbox("Ag|")[3]) + 2
    height, width = frames.shape[1] * scale, frames.shape[2] * scale
    text_width = max(math.ceil(font.getlength(line)) for lines in captions for line in lines)
    full_width = max(width, text_width) + 2 * GAP
    top, left = GAP + counts.pop() * line_height + BAR + GAP, (full_width - width) // 2  # of the frame
    pictures = np.empty((len(frames), top + height + GAP, full_width, 3), np.uint8)
    for step, (frame, lines) in enumerate(zip(frames, captions, strict=True)):
        image = Image.new("RGB", (full_width, top + height + GAP), BACKGROUND)
        draw = ImageDraw.Draw(image)
        for number, line in enumerate(lines):
            draw.text((GAP, GAP - 2 + number * line_height), line, fill=TEXT, font=font)
        end = GAP + (full_width - 2 * GAP) * (step + 1) // len(frames)
        bar_top = top - GAP // 2 - BAR
        draw.rectangle((GAP, bar_top, full_width - GAP - 1, bar_top + BAR - 1), fill=TRACK_COLOUR)
        draw.rectangle((GAP, bar_top, max(GAP, end - 1), bar_top + BAR - 1), fill=NEUTRAL_COLOUR)
        pictures[step] = np.asarray(image)
        tile = frame.repeat(scale, axis=0).repeat(scale, axis=1)  # (scale * H, scale * W, 3)
        pictures[step, top : top + height, left : left + width] = tile
    return pictures
