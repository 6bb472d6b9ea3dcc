"""Where the frames of a recording are: in a video, in a folder of pictures, in an array.

Shapes: N frames, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ahriuwu_cli.episodes.video import VideoFrames, frame_stamps
from ahriuwu_cli.sources.imports.protocol import RecordingError

LARGEST_PICTURE = 1 << 26
"""Pixels; a file that says it has more is not opened."""


class VideoSource:
    """A video file, or the part of one from `start` up to `stop` seconds; times are those of its own stamps.

    Raises:
        DataError: it cannot be read, or has no frames in that part.
    """

    def __init__(self, path: Path, start: float | None = None, stop: float | None = None, name: str = "") -> None:
        stamps, unit = frame_stamps(path)
        times = stamps * float(unit)
        margin = 0.25 * (float(np.median(np.diff(times))) if len(times) > 1 else 0.0)
        first = 0 if start is None else int(np.searchsorted(times, start - margin))
        last = len(times) if stop is None else int(np.searchsorted(times, stop - margin))
        if first >= last:
            raise RecordingError(
                name or path.name, f"no frame from {start:g} to {stop:g} s; it ends at {times[-1]:g} s"
            )
        self._frames, self._first = VideoFrames(path, stamps), first
        self._times = times[first:last]

    @property
    def times(self) -> np.ndarray:
        """See FrameSource."""
        return self._times

    def chosen(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """See FrameSource."""
        return self._frames.chosen(self._first + number for number in numbers)

    def close(self) -> None:
        """See FrameSource."""
        self._frames.close()


class ImageFiles:
    """One picture file for each frame."""

    def __init__(self, paths: Sequence[Path], times: np.ndarray) -> None:
        assert len(paths) == len(times)
        self._paths, self.times = paths, times

    def chosen(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """See FrameSource."""
        for number in numbers:
            yield read_picture(self._paths[number])

    def close(self) -> None:
        """See FrameSource."""


class ArrayFrames:
    """Frames that `read(number)` gives, or of an array (N, h, w, 3)."""

    def __init__(self, times: np.ndarray, read: Callable[[int], np.ndarray] | np.ndarray) -> None:
        self.times = times
        self._read = read if callable(read) else read.__getitem__

    def chosen(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """See FrameSource."""
        for number in numbers:
            yield self._read(number)

    def close(self) -> None:
        """See FrameSource."""


def read_picture(path: Path) -> np.ndarray:
    """A picture file as (h, w, 3) uint8.

    Raises:
        RecordingError: it is no picture, cut short, or larger than any.
    """
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > LARGEST_PICTURE:
                raise RecordingError(path.name, f"a picture of {picture.width}x{picture.height} pixels is too large")
            return np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RecordingError(path.name, f"no picture that can be read: {error}") from error
