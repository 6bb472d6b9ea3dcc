"""Frames beside each other with captions, written as GIF, MP4 or PNG.

Dimension letters: N contexts (rows), T time steps, H and W pixels of a frame, 3 RGB channels;
H' and W' pixels of the finished picture; P colours of a palette.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import cKDTree

from ahriuwu_cli.core.artifact import write_atomically

Frames = NDArray[np.uint8]
Colour = tuple[int, int, int]

BACKGROUND: Colour = (20, 22, 28)
TEXT: Colour = (235, 235, 235)
NEUTRAL_COLOUR: Colour = (110, 114, 124)
CONTEXT_COLOUR: Colour = (86, 160, 230)
DREAM_COLOUR: Colour = (240, 150, 40)
TRACK_COLOUR: Colour = (50, 54, 64)

GAP = 8  # pixels between tiles and around the picture
BORDER = 2  # pixels of the coloured border of a tile
BAR = 4  # height of the progress bar in pixels
FONT_SIZES = (12, 20)  # smallest and largest caption

GIF_COLOURS = 255  # one entry stays free: the writer uses it for unchanged pixels
GIF_SAMPLE = 1 << 20  # pixels looked at to choose a palette
KEYFRAME_INTERVAL = 16


@dataclass(frozen=True)
class _Layout:
    """Where everything lies, in pixels of the finished picture."""

    height: int
    width: int
    caption_lines: tuple[tuple[str, ...], ...]
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    line_height: int
    cell_width: int
    tile_height: int
    tile_width: int
    caption_top: int
    tiles_top: int

    def column_left(self, column: int) -> int:
        """Left edge of a column's cell."""
        return GAP + column * (self.cell_width + GAP)

    def tile_corner(self, row: int, column: int) -> tuple[int, int]:
        """Top and left of a tile's picture, inside its border; tiles are centred in their cells."""
        top = self.tiles_top + row * (self.tile_height + 2 * BORDER + GAP) + BORDER
        left = self.column_left(column) + (self.cell_width - self.tile_width) // 2
        return top, left


def side_by_side(columns: Mapping[str, Frames], *, scale: int = 4, context_length: int | None = None) -> Frames:
    """Lay out one row per context and one column per source, with captions and a progress bar.

    With `context_length` the line on top, the bar and the tiles' borders are blue while true context
    frames are shown and orange from the first dreamed frame on.

    Args:
        columns: by caption, frames (N, T, H, W, 3) uint8, all of one shape, left to right.
        scale: each pixel becomes scale x scale pixels.
        context_length: how many of the T frames are context, 0..T; None draws no such marker.

    Returns:
        (T, H', W', 3) uint8.

    Raises:
        ValueError: no column, frames that are not uint8 RGB or differ in shape, nothing to draw,
            scale below 1 or context_length outside 0..T.
    """
    shape = _check_columns(columns)
    num_rows, num_steps = shape[:2]
    if scale < 1:
        raise ValueError(f"scale is {scale}; expected at least 1")
    if context_length is not None and not 0 <= context_length <= num_steps:
        raise ValueError(f"context_length is {context_length}; expected 0..{num_steps}, the number of frames")
    layout = _lay_out(list(columns), shape, shape[2] * scale, shape[3] * scale, context_length)
    pictures = np.stack([_backdrop(layout, num_rows, step, num_steps, context_length) for step in range(num_steps)])
    for column, frames in enumerate(columns.values()):
        for row in range(num_rows):
            top, left = layout.tile_corner(row, column)
            tile = frames[row].repeat(scale, axis=1).repeat(scale, axis=2)  # (T, scale * H, scale * W, 3)
            pictures[:, top : top + layout.tile_height, left : left + layout.tile_width] = tile
    return pictures


def write_gif(path: Path, frames: Frames, fps: float) -> None:
    """Write an animation that loops forever, atomically.

    All frames share one palette: the exact colours when there are at most 255, else the nearest of
    255 chosen ones, without dithering (small files, no flicker). GIF counts time in hundredths of
    a second: delays are rounded so that the whole animation keeps its length; above 50 frames per
    second it plays at 50, the fastest that viewers show.

    Args:
        path: the file to write.
        frames: (T, H, W, 3) uint8.
        fps: frames per second.

    Raises:
        ValueError: frames are not (T, H, W, 3) uint8 with T >= 1, or fps is not positive.
    """
    _check_video(frames, fps)
    palette, indices = _index_colours(frames)
    ends = np.rint(np.arange(len(frames) + 1) * 100.0 / min(fps, 50.0)).astype(int)
    delays = [int(ticks) * 10 for ticks in np.diff(ends)]  # milliseconds
    write_atomically(
        path,
        lambda temporary: iio.imwrite(
            temporary,
            indices,
            plugin="pillow",
            extension=".gif",
            mode="P",
            is_batch=True,
            palette=palette.tobytes(),
            duration=delays if len(delays) > 1 else delays[0],
            loop=0,
        ),
    )


def write_mp4(path: Path, frames: Frames, fps: float) -> None:
    """Write an H.264 video (yuv420p, a keyframe every 16 frames), atomically.

    Odd heights and widths are made even by repeating the last row or column.

    Args:
        path: the file to write.
        frames: (T, H, W, 3) uint8.
        fps: frames per second.

    Raises:
        ValueError: frames are not (T, H, W, 3) uint8 with T >= 1, or fps is not positive.
    """
    _check_video(frames, fps)
    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")

    def write(temporary: Path) -> None:
        with iio.imopen(temporary, "w", plugin="pyav", extension=".mp4", container="mp4") as video:
            video.init_video_stream("libx264", fps=fps, pixel_format="yuv420p", max_keyframe_interval=KEYFRAME_INTERVAL)
            for frame in even:
                video.write_frame(frame)

    write_atomically(path, write)


def write_png(path: Path, picture: Frames) -> None:
    """Write one picture (H, W, 3) uint8 without loss, atomically.

    Raises:
        ValueError: the picture is not (H, W, 3) uint8.
    """
    _check_video(picture[None], fps=1.0)
    write_atomically(path, lambda temporary: iio.imwrite(temporary, picture, plugin="pillow", extension=".png"))


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


def _check_video(frames: Frames, fps: float) -> None:
    if frames.dtype != np.uint8:
        raise ValueError(f"frames are {frames.dtype}; expected uint8 with values 0..255")
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames have shape {frames.shape}; expected RGB frames (T, H, W, 3)")
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}; expected a positive number of frames per second")


# ---------------------------------------------------------------- drawing


def _lay_out(
    names: list[str], shape: tuple[int, ...], tile_height: int, tile_width: int, context_length: int | None
) -> _Layout:
    num_rows, num_steps = shape[:2]
    font = ImageFont.load_default(size=min(max(tile_width // 7, FONT_SIZES[0]), FONT_SIZES[1]))
    line_height = math.ceil(font.getbbox("Ag|")[3]) + 2
    words = [word for name in names for word in name.split()]
    longest = max((math.ceil(font.getlength(word)) for word in words), default=0)
    cell_width = max(tile_width + 2 * BORDER, longest)
    longest_status = max(font.getlength(_status(step, num_steps, context_length)[0]) for step in range(num_steps))
    width = max(GAP + len(names) * (cell_width + GAP), math.ceil(longest_status) + 2 * GAP)
    caption_lines = tuple(_wrap(name, font, cell_width) for name in names)
    caption_top = GAP + line_height + BAR + GAP
    tiles_top = caption_top + max(len(lines) for lines in caption_lines) * line_height + GAP // 2
    return _Layout(
        height=tiles_top + num_rows * (tile_height + 2 * BORDER + GAP),
        width=width,
        caption_lines=caption_lines,
        font=font,
        line_height=line_height,
        cell_width=cell_width,
        tile_height=tile_height,
        tile_width=tile_width,
        caption_top=caption_top,
        tiles_top=tiles_top,
    )


def _wrap(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> tuple[str, ...]:
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
    draw.text((GAP, GAP - 2), status, fill=colour, font=layout.font)
    _draw_bar(draw, layout, step + 1, num_steps, context_length)
    for column, lines in enumerate(layout.caption_lines):
        centre = layout.column_left(column) + layout.cell_width / 2
        first = layout.tiles_top - GAP // 2 - len(lines) * layout.line_height
        for number, line in enumerate(lines):
            left = round(centre - layout.font.getlength(line) / 2)
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


# ---------------------------------------------------------------- palette


def _index_colours(frames: Frames) -> tuple[Frames, Frames]:
    """One palette (P, 3) for all frames and the palette index of every pixel (T, H, W), P <= 255."""
    red, green, blue = (frames[..., channel].astype(np.uint32) for channel in range(3))
    packed = red << 16 | green << 8 | blue  # (T, H, W)
    seen = np.zeros(1 << 24, dtype=bool)
    seen[packed] = True
    codes = np.flatnonzero(seen)
    colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8)  # (seen colours, 3)
    palette = colours if len(colours) <= GIF_COLOURS else _choose_palette(frames)
    table = np.zeros(1 << 24, dtype=np.uint8)
    table[codes] = cKDTree(palette.astype(np.float64)).query(colours.astype(np.float64))[1]  # nearest entry
    return palette, table[packed]


def _choose_palette(frames: Frames) -> Frames:
    """255 colours that stand for the pixels of all frames (median cut): (T, H, W, 3) -> (P, 3)."""
    pixels = frames.reshape(-1, 3)
    sample = pixels[:: max(1, len(pixels) // GIF_SAMPLE)]
    quantised = Image.fromarray(sample[None]).quantize(GIF_COLOURS, method=Image.Quantize.MEDIANCUT)
    return np.asarray(quantised.getpalette(), dtype=np.uint8).reshape(-1, 3)[:GIF_COLOURS]
