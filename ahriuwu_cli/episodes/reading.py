"""Frames of a stored episode, read piece by piece: one protocol, whatever way they are kept.

Shapes: F frames of an episode, n of a piece, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from ahriuwu_cli.core.errors import ArtifactError
from ahriuwu_cli.core.loading import reading
from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.core.tensorfile import open_tensors
from ahriuwu_cli.episodes.episode import FRAMES

PIECE = 64
"""Frames that are read together where all of an episode are wanted in order."""


class FrameReader(Protocol):
    """The frames of one episode."""

    def __len__(self) -> int:
        """F."""
        ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames `start` to `stop` - 1, (n, H, W, 3) uint8, a copy; equal however they are asked for."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def pieces(reader: FrameReader, size: int = PIECE) -> Iterator[np.ndarray]:
    """All frames in order, up to `size` at a time."""
    for start in range(0, len(reader), size):
        yield reader.read(start, min(start + size, len(reader)))


class RawFrames:
    """Frames as they are, in the safetensors file of the episode.

    Raises:
        ArtifactError: the file is damaged, or has other frames than the manifest says.
    """

    def __init__(self, path: Path, num_frames: int, spec: FrameSpec) -> None:
        self._handle = open_tensors(path, "np")
        found, wanted = "missing", f"U8 {(num_frames, spec.height, spec.width, 3)}"
        with reading(path):
            if FRAMES in self._handle.keys():  # noqa: SIM118 (not a dict)
                rows = self._handle.get_slice(FRAMES)
                found = f"{rows.get_dtype()} {tuple(rows.get_shape())}"
        if found != wanted:
            raise ArtifactError(f"{path}: {FRAMES} is {found}; expected {wanted}", hint="make the episodes again")
        self._num_frames = num_frames

    def __len__(self) -> int:
        return self._num_frames

    def read(self, start: int, stop: int) -> np.ndarray:
        """See FrameReader."""
        assert 0 <= start < stop <= len(self)
        return np.array(self._handle.get_slice(FRAMES)[start:stop])

    def close(self) -> None:
        """See FrameReader."""
        self._handle = None
