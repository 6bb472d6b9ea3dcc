"""Frames written as GIF, MP4 or PNG, each file whole or not there.

Dimension letters: T time steps, H and W pixels of a frame, 3 RGB channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image

from ahriuwu_cli.core.files import write_atomically
from ahriuwu_cli.core.pictures.palette import index_colours
from ahriuwu_cli.core.pictures.style import Frames

GIF_MAX_FPS = 50.0  # viewers slow down animations that ask for more
KEYFRAME_INTERVAL = 16


def write_gif(path: Path, frames: Frames, fps: float) -> None:
    """Write an animation that loops forever, atomically.

    All frames share one palette of at most 255 colours, without dithering, and a pixel that changes
    by 4 of 255 or less stays as it is shown (small files, no flicker). GIF counts time in hundredths
    of a second: delays are rounded so that the whole animation keeps its length; above 50 frames per
    second it plays at 50.

    Args:
        path: the file to write.
        frames: (T, H, W, 3) uint8.
        fps: frames per second.

    Raises:
        ValueError: frames are not (T, H, W, 3) uint8 with T >= 1, or fps is not positive.
    """
    _check_frames(frames)
    _check_rate(fps)
    palette, indices = index_colours(frames)
    images = [Image.fromarray(index) for index in indices]
    for image in images:
        image.putpalette(palette.tobytes())
    ends = np.rint(np.arange(len(frames) + 1) * 100.0 / min(fps, GIF_MAX_FPS)).astype(int)
    delays = [int(hundredths) * 10 for hundredths in np.diff(ends)]  # milliseconds
    write_atomically(
        path,
        lambda temporary: images[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=delays if len(delays) > 1 else delays[0],
            loop=0,
        ),
    )


def write_mp4(path: Path, frames: Iterable[Frames], fps: float) -> None:
    """Write an H.264 video (yuv420p, a keyframe every 16 frames), atomically.

    Odd heights and widths are made even by repeating the last row or column. Frames are taken one after the other:
    a long video need not be in memory.

    Args:
        path: the file to write.
        frames: T frames (H, W, 3) uint8, all of one size.
        fps: frames per second.

    Raises:
        ValueError: a frame is not (H, W, 3) uint8 of the first one's size, there is none, or fps is not positive.
    """
    _check_rate(fps)

    def write(temporary: Path) -> None:
        with iio.imopen(temporary, "w", plugin="pyav", extension=".mp4", container="mp4") as video:
            video.init_video_stream("libx264", fps=fps, pixel_format="yuv420p", max_keyframe_interval=KEYFRAME_INTERVAL)
            size = None
            for frame in frames:
                _check_frames(frame[None])
                size = size or frame.shape
                if frame.shape != size:
                    raise ValueError(f"a frame has shape {frame.shape}; expected {size}, that of the first one")
                video.write_frame(np.pad(frame, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge"))
            if size is None:
                raise ValueError("there is no frame; expected RGB frames (H, W, 3)")

    write_atomically(path, write)


def write_png(path: Path, picture: Frames) -> None:
    """Write one picture (H, W, 3) uint8 without loss, atomically.

    Raises:
        ValueError: the picture is not (H, W, 3) uint8.
    """
    _check_frames(picture[None])
    write_atomically(path, lambda temporary: iio.imwrite(temporary, picture, plugin="pillow", extension=".png"))


def _check_frames(frames: Frames) -> None:
    if frames.dtype != np.uint8:
        raise ValueError(f"frames are {frames.dtype}; expected uint8 with values 0..255")
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames have shape {frames.shape}; expected RGB frames (T, H, W, 3)")


def _check_rate(fps: float) -> None:
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}; expected a positive number of frames per second")
