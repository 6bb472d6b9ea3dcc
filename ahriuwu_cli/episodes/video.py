"""Video files, frame-exact: frame i read at random is frame i read in order.

Shapes: F frames of a file, n of a piece, H x W pixels.

Decision: what we write is H.264 in RGB (no chroma subsampling, no colour matrix to be guessed again when it is read),
lossless up to LOSSLESS_PIXELS and at CRF beyond, a key frame every GOP frames, no B-frames, and CAVLC, which takes an
eighth more room than CABAC and half of its time to read: random clips are what this is for. README, "Storage", has what
that costs beside other codecs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from threading import Lock
from typing import Any, Self

import av
import numpy as np

from ahriuwu_cli.core.errors import DataError

RATE = 25
"""Frames per second that players show our files at; the times of frames are in the episode's tracks."""
GOP = 8
CRF = 16
LOSSLESS_PIXELS = 64 * 64
VIDEO_HINT = "restore the file, or make it again"


def write_video(path: Path, frames: Iterable[np.ndarray], height: int, width: int) -> int:
    """Write pieces (n, H, W, 3) uint8 as one MP4 file; returns how many frames came."""
    count = 0
    with VideoWriter(path, height, width) as writer:
        for piece in frames:
            writer.add(piece, range(count, count + len(piece)))
            count += len(piece)
    return count


class VideoWriter:
    """An MP4 file that is written piece by piece; a context.

    Args:
        path: of the file.
        height: H.
        width: W.
        unit: seconds that time stamps are counted in.
    """

    def __init__(self, path: Path, height: int, width: int, unit: Fraction = Fraction(1, RATE)) -> None:
        quality = {"qp": "0"} if height * width <= LOSSLESS_PIXELS else {"crf": str(CRF)}
        # one thread: with several, the bits depend on how many there are
        options = quality | {
            "preset": "veryfast",
            "bf": "0",
            "g": str(GOP),
            "sc_threshold": "0",
            "coder": "0",
            "threads": "1",
        }
        self._container, self._unit = av.open(str(path), "w", format="mp4"), unit
        self._stream = self._container.add_stream("libx264rgb", rate=RATE, options=options)
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "rgb24"
        self._stream.codec_context.time_base = unit

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._container.mux(self._stream.encode())
        self._container.close()

    def add(self, piece: np.ndarray, stamps: Iterable[int]) -> None:
        """Frames (n, H, W, 3) uint8 with their time stamps (n,), which rise from one frame to the next."""
        for frame, stamp in zip(piece, stamps, strict=True):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = stamp, self._unit
            self._container.mux(self._stream.encode(picture))


class VideoFrames:
    """Frames of a video file by their numbers in order of showing.

    Neither B-frames nor open groups of pictures nor a seek that lands late change what is read: every frame is known by
    its time stamp.

    Args:
        path: of the file.
        stamps: time stamp of every frame, rising, in the stream's unit; None for a file that `write_video` made, whose
            stamps are evenly spaced.
        num_frames: how many a file that `write_video` made has.

    Raises:
        DataError: the file cannot be opened or has no video; or, when it is read, a frame is missing or damaged.
    """

    def __init__(self, path: Path, stamps: Sequence[int] | np.ndarray | None = None, num_frames: int = 0) -> None:
        self._path, self._lock = path, Lock()
        self._container = open_video(path)
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1
        if stamps is None:
            step = Fraction(1, RATE) / Fraction(self._stream.time_base or 1)
            if step.denominator != 1 or num_frames < 1:
                raise self._fault("it was not written by this program")
            stamps = range(0, num_frames * int(step), int(step))
        self._stamps = stamps if isinstance(stamps, range) else [int(stamp) for stamp in stamps]
        self._decoded: Iterator[tuple[int, Any]] = iter(())  # of what follows the frame read last
        self._next = -1  # its number

    def __len__(self) -> int:
        return len(self._stamps)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames `start` to `stop` - 1, (n, H, W, 3) uint8."""
        assert 0 <= start < stop <= len(self)
        with self._lock:
            return np.stack([picture for _, picture in self._pictures(range(start, stop))])

    def chosen(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8 by rising numbers, one at a time; those between them are decoded and dropped."""
        with self._lock:
            for _, picture in self._pictures(numbers):
                yield picture

    def close(self) -> None:
        """Let go of the file."""
        self._decoded = iter(())
        self._container.close()

    def _pictures(self, numbers: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        for number in numbers:
            if not self._next <= number < self._next + 2 * GOP or self._next < 0:
                self._seek(number)
            stamp = self._stamps[number]
            found = self._until(stamp)
            if found is None or found[0] != stamp:
                self._next = -1
                raise self._fault(f"frame {number} of {len(self)} is missing")
            self._next = number + 1
            if found[1].is_corrupt:
                raise self._fault(f"frame {number} of {len(self)} is damaged")
            yield number, self._upright(found[1])

    def _upright(self, picture: Any) -> np.ndarray:
        """A decoded picture as it is to be shown (H, W, 3): turned and mirrored as the stream's display matrix says."""
        pixels: np.ndarray = picture.to_ndarray(format="rgb24")
        matrix = picture.side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return pixels
        # column p and row q are shown at column a p + c q and row b p + d q, but for where that begins
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
        if (a or d) and (b or c):
            raise self._fault(f"it is to be shown at an angle of {picture.rotation} degrees; expected quarter turns")
        if b or c:
            pixels, a, d = pixels.transpose(1, 0, 2), c, b
        return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])

    def _until(self, stamp: int) -> tuple[int, Any] | None:
        """The first frame from where the decoder is that is shown at `stamp` or later."""
        return next((item for item in self._decoded if item[0] >= stamp), None)

    def _seek(self, number: int) -> None:
        """Let `_decoded` go on with a frame that comes before `number`, or with it.

        Where decoding from a key frame begins too late (frames before it that lean on the group before are left out),
        it is begun one group earlier, at last at the file's beginning.
        """
        wanted, target = self._stamps[number], number
        while True:
            self._decoded = self._from(self._stamps[target] if target else None)
            first = next(self._decoded, None)
            if first is not None and first[0] <= wanted:
                self._decoded = _with(first, self._decoded)
                return
            if target == 0:
                raise self._fault(f"frame {number} of {len(self)} is missing")
            target = max(0, target - GOP)

    def _from(self, stamp: int | None) -> Iterator[tuple[int, Any]]:
        """Decoded frames with their stamps, from the key frame at or before `stamp` on; from the beginning for None."""
        try:
            self._container.seek(stamp if stamp is not None else self._stamps[0], stream=self._stream, backward=True)
            for frame in self._container.decode(self._stream):
                if frame.pts is not None:
                    yield frame.pts, frame
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._fault(str(error)) from error

    def _fault(self, reason: str) -> DataError:
        return DataError(f"{self._path}: {reason}", hint=VIDEO_HINT)


def _with(first: tuple[int, Any], rest: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    yield first
    yield from rest


def open_video(path: Path) -> Any:
    """An open container with a video stream.

    Raises:
        DataError: it cannot be opened, or has no video.
    """
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be opened as video: {error}", hint=VIDEO_HINT) from error
    if not container.streams.video:
        container.close()
        raise DataError(f"{path} has no video in it", hint="give a file with a video stream")
    return container


def frame_stamps(path: Path) -> tuple[np.ndarray, Fraction]:
    """Time stamp of every frame (F,) int64, rising, and the unit in seconds; nothing is decoded.

    Raises:
        DataError: it cannot be read, or a frame has no time stamp or that of another one.
    """
    with closing(open_video(path)) as container:
        stream, found = container.streams.video[0], []
        try:
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    found.append(packet.pts)  # noqa: PERF401 (what was found is told where it breaks off)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise DataError(f"{path}: it breaks off after frame {len(found)}: {error}", hint=VIDEO_HINT) from error
        unit = Fraction(stream.time_base or 1)
    if None in found:
        raise DataError(f"{path}: frame {found.index(None)} has no time stamp", hint="remux it, with ffmpeg say")
    stamps = np.sort(np.array(found, np.int64))
    if not len(stamps):
        raise DataError(f"{path} has no frames", hint=VIDEO_HINT)
    repeated = np.flatnonzero(np.diff(stamps) == 0)
    if len(repeated):
        raise DataError(
            f"{path}: frames {repeated[0]} and {repeated[0] + 1} have one time stamp", hint="remux it, with ffmpeg say"
        )
    return stamps, unit
