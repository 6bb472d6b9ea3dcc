"""Frames beside each other with captions.

Dimension letters: N contexts (rows), T time steps, H and W pixels of a frame, 3 RGB channels;
H' and W' pixels of the finished picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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
    Font,
    Frames,
    font_of,
    line_height,
)

CONTEXT_COLOUR: Colour = (86, 160, 230)
DREAM_COLOUR: Colour = (240, 150, 40)

BORDER = 2  # pixels of the coloured border of a tile
FONT_SIZES = (12, 20)  # smallest and largest caption


@dataclass(frozen=True)
class _Layout:
    """Where everything lies, in pixels of the finished picture."""

    height: int
    width: int
    caption_lines: tuple[tuple[str, ...], ...]
    row_names: tuple[str, ...]
    font: Font
    line_height: int
    columns_left: int
    cell_width: int
    tile_height: int
    tile_width: int
    tiles_top: int

    def column_left(self, column: int) -> int:
        """Left edge of a column's cell."""
        return self.columns_left + column * (self.cell_width + GAP)

    def tile_corner(self, row: int, column: int) -> tuple[int, int]:
        """Top and left of a tile's picture, inside its border; tiles are centred in their cells."""
        top = self.tiles_top + row * (self.tile_height + 2 * BORDER + GAP) + BORDER
        left = self.column_left(column) + (self.cell_width - self.tile_width) // 2
        return top, left


def side_by_side(
    columns: Mapping[str, Frames],
    *,
    scale: int = 4,
    context_length: int | None = None,
    row_names: Sequence[str] = (),
) -> Frames:
    """Lay out one row per context and one column per source, with captions and a progress bar.

    With `context_length` the line on top, the bar and the tiles' borders are blue while true context
    frames are shown and orange from the first dreamed frame on. A still (T = 1 without
    `context_length`) has neither line nor bar.

    Args:
        columns: by caption, frames (N, T, H, W, 3) uint8, all of one shape, left to right.
        scale: each pixel becomes scale x scale pixels.
        context_length: how many of the T frames are context, 0..T; None draws no such marker.
        row_names: captions of the N rows, drawn at the left; none by default.

    Returns:
        (T, H', W', 3) uint8.

    Raises:
        ValueError: no column, frames that are not uint8 RGB or differ in shape, nothing to draw,
            scale below 1, context_length outside 0..T or row_names that are not N.
    """
    shape = _check_columns(columns)
    num_rows, num_steps = shape[:2]
    if scale < 1:
        raise ValueError(f"scale is {scale}; expected at least 1")
    if context_length is not None and not 0 <= context_length <= num_steps:
        raise ValueError(f"context_length is {context_length}; expected 0..{num_steps}, the number of frames")
    if row_names and len(row_names) != num_rows:
        raise ValueError(f"row_names are {list(row_names)}; expected {num_rows}, one per row")
    layout = _lay_out(list(columns), row_names, shape, scale, context_length)
    pictures = np.stack([_backdrop(layout, num_rows, step, num_steps, context_length) for step in range(num_steps)])
    for column, frames in enumerate(columns.values()):
        for row in range(num_rows):
            top, left = layout.tile_corner(row, column)
            tile = frames[row].repeat(scale, axis=1).repeat(scale, axis=2)  # (T, scale * H, scale * W, 3)
            pictures[:, top : top + layout.tile_height, left : left + layout.tile_width] = tile
    return pictures


def evenly_spaced(total: int, count: int) -> list[int]:
    """Up to `count` evenly spaced places of 0 .. total - 1, the first and the last among them (of one: the first)."""
    return sorted({int(place) for place in np.linspace(0, total - 1, count).round()})


# ---------------------------------------------------------------- checks


def _check_columns(columns: Mapping[str, Frames]) -> tuple[int, ...]:
    if not columns:
        raise ValueError("there is no column; expected at least one")
    shape = next(iter(columns.values())).shape
    for name, frames in columns.items():
        if frames.dtype != np.uint8:
            raise ValueError(f"column {name!r} is {frames.dtype}; expected uint8 frames with values 0..255")
        if frames.ndim != 5 or frames.shape[-1] != 3 or 0 in frames.shape:
            raise ValueError(f"column {name!r} has shape {frames.shape}; expected RGB frames (N, T, H, W, 3)")
        if frames.shape != shape:
            raise ValueError(f"column {name!r} has shape {frames.shape}; expected {shape}, that of the first column")
    return shape


# ---------------------------------------------------------------- drawing


def _lay_out(
    names: list[str], row_names: Sequence[str], shape: tuple[int, ...], scale: int, context_length: int | None
) -> _Layout:
    num_rows, num_steps, tile_height, tile_width = shape[0], shape[1], shape[2] * scale, shape[3] * scale
    font = font_of(min(max(tile_width // 7, FONT_SIZES[0]), FONT_SIZES[1]))
    height_of_line = line_height(font)

    def longest(texts: Iterable[str]) -> int:
        return max((math.ceil(font.getlength(text)) for text in texts), default=0)

    cell_width = max(tile_width + 2 * BORDER, longest(word for name in names for word in name.split()))
    columns_left = GAP + longest(row_names) + (GAP if row_names else 0)
    still = num_steps == 1 and context_length is None
    status_width = 0 if still else longest(_status(step, num_steps, context_length)[0] for step in range(num_steps))
    caption_lines = tuple(wrapped(name, font, cell_width) for name in names)
    caption_top = GAP if still else GAP + height_of_line + BAR + GAP
    tiles_top = caption_top + max(len(lines) for lines in caption_lines) * height_of_line + GAP // 2
    return _Layout(
        height=tiles_top + num_rows * (tile_height + 2 * BORDER + GAP),
        width=max(columns_left + len(names) * (cell_width + GAP), status_width + 2 * GAP),
        caption_lines=caption_lines,
        row_names=tuple(row_names),
        font=font,
        line_height=height_of_line,
        columns_left=columns_left,
        cell_width=cell_width,
        tile_height=tile_height,
        tile_width=tile_width,
        tiles_top=tiles_top,
    )


def wrapped(name: str, font: Font, width: int) -> tuple[str, ...]:
    """Break a caption between words so that each line fits the width in pixels."""
    lines = [""]
    for word in name.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return tuple(lines)


def _status(step: int, num_steps: int, context_length: int | None) -> tuple[str, Colour]:
    """Say what is shown at a step: the line on top of the picture, and its colour."""
    if context_length is None:
        return f"frame {step + 1} of {num_steps}", NEUTRAL_COLOUR
    if step < context_length:
        return f"context {step + 1} of {context_length}", CONTEXT_COLOUR
    return f"dream {step + 1 - context_length} of {num_steps - context_length}", DREAM_COLOUR


def _backdrop(layout: _Layout, num_rows: int, step: int, num_steps: int, context_length: int | None) -> Frames:
    """Everything but the frames themselves at one step: (H', W', 3)."""
    status, colour = _status(step, num_steps, context_length)
    image = Image.new("RGB", (layout.width, layout.height), BACKGROUND)
    draw = ImageDraw.Draw(image)
    if num_steps > 1 or context_length is not None:
        draw.text((GAP, GAP - 2), status, fill=colour, font=layout.font)
        _draw_bar(draw, layout, step + 1, num_steps, context_length)
    for row, name in enumerate(layout.row_names):
        middle = layout.tile_corner(row, 0)[0] + (layout.tile_height - layout.line_height) // 2
        draw.text((GAP, middle), name, fill=TEXT, font=layout.font)
    for column, lines in enumerate(layout.caption_lines):
        centre = layout.column_left(column) + layout.cell_width / 2
        first = layout.tiles_top - GAP // 2 - len(lines) * layout.line_height
        for number, line in enumerate(lines):
            left = math.floor(centre - layout.font.getlength(line) / 2)
            draw.text((left, first + number * layout.line_height), line, fill=TEXT, font=layout.font)
        for row in range(num_rows):
            top, left = layout.tile_corner(row, column)
            right, bottom = left + layout.tile_width + BORDER - 1, top + layout.tile_height + BORDER - 1
            draw.rectangle((left - BORDER, top - BORDER, right, bottom), fill=colour)
    return np.asarray(image)


def _draw_bar(draw: ImageDraw.ImageDraw, layout: _Layout, shown: int, num_steps: int, context: int | None) -> None:
    """Draw the progress bar; each part already shown keeps the colour of its phase."""
    top, span = GAP + layout.line_height, layout.width - 2 * GAP
    first_dream = num_steps if context is None else context
    context_colour = NEUTRAL_COLOUR if context is None else CONTEXT_COLOUR
    parts = (
        (0, num_steps, TRACK_COLOUR),
        (0, min(shown, first_dream), context_colour),
        (first_dream, shown, DREAM_COLOUR),
    )
    for begin, end, colour in parts:
        left, right = GAP + span * begin // num_steps, GAP + span * end // num_steps
        if right > left:
            draw.rectangle((left, top, right - 1, top + BAR - 1), fill=colour)
