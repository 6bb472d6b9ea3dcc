"""Where the frames of a recording are: in a video, in a folder of pictures, in an array.

Shapes: N frames, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.episodes.video import VideoFrames, frame_stamps
from ahriuwu_cli.sources.imports.fields import plain_size
from ahriuwu_cli.sources.imports.protocol import FrameSource, RecordingError

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
            span = f"from {start or 0:g} to {'the end' if stop is None else f'{stop:g} s'}"
            raise RecordingError(name or path.name, f"no frame {span}; the last one is at {times[-1]:g} s")
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


class VideoRows:
    """Frames of a video that are known by the times at which rows of a table say they are shown.

    Args:
        path: of the video; other recordings may be in it too.
        name: as the source names it.
        times: of the rows, (N,) rising seconds.
        start: seconds in the video at which the rows' clock is zero.
        tolerance: seconds by which a frame may be shown earlier or later than its row says.

    Raises:
        DataError: the video cannot be read, or has no frame, or the same one, at the times of two rows.
    """

    def __init__(self, path: Path, name: str, times: np.ndarray, start: float, tolerance: float) -> None:
        plain_size(path, name)
        try:
            stamps, unit = _stamps(path, path.stat().st_mtime_ns)
        except DataError as error:
            reason = error.message.replace(str(path), name).removeprefix(name).lstrip(": ")
            raise RecordingError(name, reason) from error
        shown, wanted = stamps * float(unit), times + start
        after = np.clip(np.searchsorted(shown, wanted), 1, max(1, len(shown) - 1))
        before = after - 1
        after = np.minimum(after, len(shown) - 1)
        self._numbers = np.where(wanted - shown[before] <= shown[after] - wanted, before, after)
        far = np.flatnonzero(np.abs(shown[self._numbers] - wanted) > tolerance)
        again = np.flatnonzero(np.diff(self._numbers) <= 0) + 1
        if len(far) or len(again):
            row = int(min([*far[:1], *again[:1]]))
            found = float(shown[self._numbers[row]])
            raise RecordingError(
                name,
                f"has no frame of its own at {wanted[row]:.3f} s, for frame {row} of {len(times)}; "
                f"the nearest is at {found:.3f} s",
            )
        self.times = times
        self._frames = VideoFrames(path, stamps)

    def chosen(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """See FrameSource."""
        return self._frames.chosen(int(self._numbers[number]) for number in numbers)

    def close(self) -> None:
        """See FrameSource."""
        self._frames.close()


@lru_cache(maxsize=8)
def _stamps(path: Path, _changed: int) -> tuple[np.ndarray, Fraction]:
    """Time stamps of a video, remembered for the recordings that follow in it."""
    return frame_stamps(path)


class PickedFrames:
    """Some frames of a source, at times of their own.

    Args:
        frames: of which some are picked.
        numbers: which, (N,) rising.
        times: when each was shown, (N,) seconds.
    """

    def __init__(self, frames: FrameSource, numbers: np.ndarray, times: np.ndarray) -> None:
        assert len(numbers) == len(times)
        self._frames, self._numbers, self.times = frames, numbers, times

    def chosen(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """See FrameSource."""
        return self._frames.chosen(int(self._numbers[number]) for number in numbers)

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
    """A picture file as (h, w, 3) uint8, turned as its EXIF says; what is transparent is black.

    Raises:
        RecordingError: it is no picture, cut short, or larger than any.
    """
    return _picture(path, path.name, None)


def decode_picture(data: bytes, name: str, row: int | None = None) -> np.ndarray:
    """The bytes of a picture file as (h, w, 3) uint8.

    Args:
        data: all of it.
        name: of the file that it is in, and the row, for messages.

    Raises:
        RecordingError: see `read_picture`.
    """
    return _picture(BytesIO(data), name, row)


def _picture(source: Path | BytesIO, name: str, row: int | None) -> np.ndarray:
    try:
        with Image.open(source) as picture:
            if picture.width * picture.height > LARGEST_PICTURE:
                reason = f"a picture of {picture.width}x{picture.height} pixels is too large"
                raise RecordingError(name, reason, row)
            return _pixels(picture)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        text = "unknown or damaged" if isinstance(error, UnidentifiedImageError) else error
        raise RecordingError(name, f"no picture that can be read: {text}", row) from error


def _pixels(picture: Image.Image) -> np.ndarray:
    """A picture of any mode as (h, w, 3) uint8; Pillow itself would cut 16 bits off at 255."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):  # grey of 16 bits
        grey = np.asarray(upright).astype(np.int64).clip(0, 0xFFFF)
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[:, :, None], 3, axis=2)
    if upright.has_transparency_data:
        clear = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", clear.size, (0, 0, 0, 255)), clear)
    return np.asarray(upright.convert("RGB"))
