"""Episodes of a store read in two parts: everything but the frames, and the frames piece by piece."""

from __future__ import annotations

import numpy as np

from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.store import EpisodeStore

Tracks = Episode


class StoredFrames:
    """The frames of one episode."""

    def __init__(self, frames: np.ndarray) -> None:
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames `start` to `stop` - 1, (n, H, W, 3) uint8, a copy."""
        return self._frames[start:stop].copy()


def tracks(store: EpisodeStore, episode_id: str) -> Tracks:
    """Everything of one episode but its frames."""
    return store.read(episode_id)


def frames(store: EpisodeStore, episode_id: str) -> StoredFrames:
    """The frames of one episode, to be read piece by piece."""
    return StoredFrames(store.read(episode_id).frames)
