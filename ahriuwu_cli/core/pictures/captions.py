"""Lines of text at the frames of a video, with what changes from frame to frame, and a bar of how far it is.

Dimension letters: T frames, L lines of text, H and W pixels of a frame, H' and W' of the finished picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ahriuwu_cli.core.pictures.style import (
    BACKGROUND,
    BAR,
    GAP,
    NEUTRAL_COLOUR,
    TEXT,
    TRACK_COLOUR,
    Colour,
    Frames,
    font_of,
    line_height,
)

SPACE = 6  # pixels between two spans of a line
PADDING = 3  # pixels between a box and the text in it
GAUGE = 48  # width of a gauge in pixels


@dataclass(frozen=True)
class Span:
    """A piece of a line.

    Attributes:
        text: what it says.
        colour: of the text.
        box: colour of the box behind it; None for none.
        gauge: where a number lies in its range, 0..1, drawn as a bar after the text; None for none.
        column: pixels from the left edge at which what follows begins, at the least.
    """

    text: str
    colour: Colour = TEXT
    box: Colour | None = None
    gauge: float | None = None
    column: int = 0

    @property
    def width(self) -> int:
        """Pixels that it takes."""
        text = math.ceil(font_of().getlength(self.text)) + (2 * PADDING if self.box else 0)
        return text if self.gauge is None else text + SPACE + GAUGE


Line = str | Sequence[Span]


def captioned(
    frames: Iterable[Frames],
    captions: Sequence[Sequence[Line]],
    *,
    scale: int = 4,
    under: bool = False,
    bar: bool = True,
) -> Iterator[Frames]:
    """Draw each frame with its own lines of text above it (or `under` it) and a bar of how far the video is.

    Args:
        frames: T frames (H, W, 3) uint8 of one size, taken one after the other.
        captions: for each of the T frames, L lines of text.
        scale: each pixel becomes scale x scale pixels.
        under: the text comes below the frame.
        bar: draw how far the video is.

    Returns:
        T pictures (H', W', 3) uint8; as wide as the frames or the longest line.

    Raises:
        ValueError: no frame, captions that are not T with L lines each, or scale below 1.
    """
    counts = {len(lines) for lines in captions}
    if len(counts) != 1:
        raise ValueError(f"there are captions of {sorted(counts)} lines; expected some, all of one number of lines")
    if scale < 1:
        raise ValueError(f"scale is {scale}; expected at least 1")
    return _captioned(frames, captions, counts.pop(), scale, under=under, bar=bar)


def _captioned(
    frames: Iterable[Frames], captions: Sequence[Sequence[Line]], num_lines: int, scale: int, *, under: bool, bar: bool
) -> Iterator[Frames]:
    between = line_height(font_of()) + (2 if under else 0)
    bar_space = GAP + BAR if bar else 0 if under else GAP
    text_height = num_lines * between + bar_space
    text_width = max((line_width(line) for lines in captions for line in lines), default=0)
    for count, (frame, lines) in enumerate(zip(frames, captions, strict=True), start=1):
        height, width = frame.shape[0] * scale, frame.shape[1] * scale
        full_height, full_width = GAP + text_height + height + GAP, max(width, text_width) + 2 * GAP
        top, left = GAP if under else GAP + text_height, (full_width - width) // 2  # of the frame
        image = Image.new("RGB", (full_width, full_height), BACKGROUND)
        draw = ImageDraw.Draw(image)
        first = GAP + height + bar_space if under else GAP  # top of the text
        for number, line in enumerate(lines):
            _draw_line(draw, line, first - 2 + number * between)
        if bar:
            bar_top = GAP + height + GAP // 2 if under else top - GAP // 2 - BAR
            end = GAP + (full_width - 2 * GAP) * count // len(captions)
            draw.rectangle((GAP, bar_top, full_width - GAP - 1, bar_top + BAR - 1), fill=TRACK_COLOUR)
            draw.rectangle((GAP, bar_top, max(GAP, end - 1), bar_top + BAR - 1), fill=NEUTRAL_COLOUR)
        picture = np.array(image)
        tile = frame.repeat(scale, axis=0).repeat(scale, axis=1)  # (scale * H, scale * W, 3)
        picture[top : top + height, left : left + width] = tile
        yield picture


def _spans(line: Line) -> Sequence[Span]:
    return [Span(line)] if isinstance(line, str) else line


def line_width(line: Line) -> int:
    """Pixels that a line takes."""
    end = 0
    for span in _spans(line):
        end = max(end + span.width + SPACE, span.column)
    return end - SPACE if end else 0


def shortened(text: str, width: int) -> str:
    """Text cut, with a mark, so that it takes at most `width` pixels."""
    if line_width(text) <= width:
        return text
    while text and line_width(f"{text}...") > width:
        text = text[:-1]
    return f"{text.rstrip()}..."


def broken(line: Sequence[Span], width: int, indent: int) -> list[list[Span]]:
    """Break a line between its spans so that each part fits `width` pixels; the parts after the first are indented."""
    lines: list[list[Span]] = [[]]
    for span in line:
        if lines[-1] and line_width([*lines[-1], span]) > width:
            lines.append([Span("", column=indent)])
        lines[-1].append(span)
    return lines


def _draw_line(draw: ImageDraw.ImageDraw, line: Line, top: int) -> None:
    font, left = font_of(), GAP
    height = line_height(font)
    for span in _spans(line):
        if span.box is not None:
            right = left + math.ceil(font.getlength(span.text)) + 2 * PADDING
            draw.rectangle((left, top, right - 1, top + height - 1), fill=span.box)
        start = left + (PADDING if span.box is not None else 0)
        draw.text((start, top), span.text, fill=span.colour, font=font)
        if span.gauge is not None:
            begin, middle = left + span.width - GAUGE, top + height // 2
            draw.rectangle((begin, middle - 2, begin + GAUGE - 1, middle + 1), fill=TRACK_COLOUR)
            place = begin + round(span.gauge * (GAUGE - 3))
            draw.rectangle((place, middle - 5, place + 2, middle + 4), fill=span.colour)
        left = max(left + span.width + SPACE, GAP + span.column)
