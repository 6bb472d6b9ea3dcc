"""Clips of recorded frames: which ones are drawn, and reading them.

Shapes: B clips, T frames per clip, H and W frame size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.core.training.batches import Batch
from ahriuwu_cli.episodes.manifest import Split
from ahriuwu_cli.episodes.store import EpisodeStore


class Clip(NamedTuple):
    """Where a clip begins: an episode's id and the number of a frame."""

    episode: str
    start: int


@dataclass(frozen=True)
class Clips(Batch):
    """A batch of clips: frames (B, T, H, W, 3) uint8."""

    frames: Tensor


class ClipSampler:
    """Random clips of consecutive frames of one split. It knows how long episodes are and reads none.

    Args:
        store: the episodes.
        length: T.
        split: which episodes.

    Raises:
        DataError: every episode is shorter than a clip.
    """

    def __init__(self, store: EpisodeStore, length: int, split: Split = "train") -> None:
        numbers = {id_: store.record(id_).num_steps + 2 - length for id_ in store.ids(split)}
        self._ids = [id_ for id_, number in numbers.items() if number > 0]
        if not self._ids:
            raise DataError(
                f"no {'training' if split == 'train' else 'held-out'} episode has {length} frames, the configured "
                "clip length",
                hint="lower tokenizer.clip_length or record longer episodes",
            )
        self._starts = np.array([numbers[id_] for id_ in self._ids])  # clips of each episode
        self._ends = np.cumsum(self._starts)

    def draw(self, rng: np.random.Generator, count: int) -> list[Clip]:
        """Clips, every start equally likely."""
        positions = rng.integers(self._ends[-1], size=count)
        chosen = np.searchsorted(self._ends, positions, side="right")
        starts = positions - (self._ends - self._starts)[chosen]
        return [Clip(self._ids[index], int(start)) for index, start in zip(chosen, starts, strict=True)]


class ClipReader:
    """Reads clips of `length` frames from a store; any thread may."""

    def __init__(self, store: EpisodeStore, length: int) -> None:
        self._store, self._length = store, length

    def look_at(self, episodes: Iterable[str]) -> None:
        """Look at what these episodes hold besides frames, so that what is damaged is found before training.

        Raises:
            ArtifactError, DataError: see `read`.
        """
        for episode in episodes:
            self._store.tracks(episode)

    def read(self, clips: list[Clip]) -> Tensor:
        """Their frames (B, T, H, W, 3) uint8, as a copy.

        Raises:
            ArtifactError, DataError: an episode is damaged, or not what the manifest lists.
        """
        pieces = [self._store.frames(id_).read(start, start + self._length) for id_, start in clips]
        return torch.from_numpy(np.stack(pieces))
