"""Frames of a running episode: the latest in memory, those before them in a file, so that memory is bounded.

Shapes: T steps, H x W pixels.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO

import numpy as np

HELD_BYTES = 512 << 20
"""Frames in memory of all running episodes together."""


class FrameTape:
    """Takes one frame after another and gives all of them at the end.

    Args:
        share: bytes of frames that are held in memory.
        folder: where the file is made, without a name, once that is not enough; None for the system's own place.
    """

    def __init__(self, share: int, folder: Path | None = None) -> None:
        self._share, self._folder = share, folder
        self._held: list[np.ndarray] = []
        self._file: IO[bytes] | None = None
        self._num_filed = 0

    @property
    def last(self) -> np.ndarray:
        """The latest frame, (H, W, 3) uint8."""
        return self._held[-1]

    def begin(self, frame: np.ndarray) -> None:
        """Forget what was, and take the first frame of an episode."""
        self._held, self._num_filed = [frame], 0
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()

    def append(self, frame: np.ndarray) -> None:
        """Take a frame (H, W, 3) uint8."""
        if len(self._held) * frame.nbytes >= self._share:
            self._put_away()
        self._held.append(frame)

    def frames(self) -> np.ndarray:
        """All frames, (T+1, H, W, 3) uint8."""
        if self._file is None or not self._num_filed:
            return np.stack(self._held)
        frames = np.empty((self._num_filed + len(self._held), *self.last.shape), np.uint8)
        self._file.seek(0)
        read = self._file.readinto(frames[: self._num_filed].reshape(-1))  # type: ignore[attr-defined]
        assert read == self._num_filed * self.last.nbytes, "what was put away is there"
        np.stack(self._held, out=frames[self._num_filed :])
        return frames

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _put_away(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (closed with the tape)
        for frame in self._held:
            self._file.write(np.ascontiguousarray(frame).data)
        self._num_filed += len(self._held)
        self._held = []
