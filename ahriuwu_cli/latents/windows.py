"""Windows of packed latents: the one data source of dynamics, agent and imagination.

Shapes: B windows, W latents per window, F = W + lookahead blocks, N latent tokens, C channels, A action width.
A block belongs to one latent, which covers as many frames as the latents' stride says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from ahriuwu_cli.core.artifact import Header
from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.core.training.batches import Batch
from ahriuwu_cli.episodes.manifest import Split
from ahriuwu_cli.latents.manifest import PackedEpisode, read_packed
from ahriuwu_cli.latents.places import Place, PlaceSampler
from ahriuwu_cli.latents.rewards import ByReward, Relevance
from ahriuwu_cli.latents.shards import BLOCK_ARRAYS, Shards
from ahriuwu_cli.latents.tasks import REWARD, assign_tasks


@dataclass(frozen=True)
class LatentBatch(Batch):
    """Windows of blocks (see episodes/alignment.py for what block t holds).

    Attributes:
        latents: (B, W, N, C) fp32 as the tokenizer gave them.
        action: (B, F, A) fp32; action_valid: (B, F) bool.
        reward: (B, F) fp32, that of the window's task; reward_valid: (B, F) bool.
        terminal: (B, F) bool.
        valid: (B, W) bool, False for padding after an episode's end.
        task: (B,) int64, index into LatentWindows.tasks.
    """

    latents: Tensor
    action: Tensor
    action_valid: Tensor
    reward: Tensor
    reward_valid: Tensor
    terminal: Tensor
    valid: Tensor
    task: Tensor

    def rows(self, chosen: slice) -> LatentBatch:
        """Some of its windows."""
        return LatentBatch(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


class LatentWindows:
    """Reads windows of the packed episodes of one split; `sampler` draws which (see places.py).

    Shards stay open and are read by slice (see shards.py); what is returned is a copy. Every window has a task that
    applies to its episode, and that task's reward.

    Decision: episodes to which no task applies are left out.

    Args:
        folder: a packed artifact.
        split: which episodes.
        tasks: tasks and their sources (see `assign_tasks`); the store's own ones by default.
        relevance: which windows are relevant.

    Raises:
        InputError, ArtifactError: the folder is missing, damaged or of another kind; also when a shard is first read.
        ConfigError: the episodes do not have what a task is rewarded for.
        DataError: the split has no episode of these tasks.
    """

    def __init__(
        self,
        folder: Path,
        split: Split,
        tasks: Mapping[str, str] = MappingProxyType({}),
        relevance: Relevance | None = None,
    ) -> None:
        packed = read_packed(folder)
        self.header: Header = packed.header
        self.action_spec, self.frame_spec, self.latent_spec = packed.action, packed.frame, packed.latent
        self._tasks = assign_tasks(tasks, packed.info.tasks, packed.info.events)
        self.tasks = [task.name for task in self._tasks]
        stride, found = self.latent_spec.stride, []
        self._applying: list[list[int]] = []  # tasks, by index, that apply to each episode
        for placed in packed.info.episodes:
            applying = [index for index, task in enumerate(self._tasks) if task.applies(placed.task)]
            if placed.split == split and applying:
                found.append(PackedEpisode.of(placed, stride))
                self._applying.append(applying)
        self.episodes, self.split = found, split
        if not self.episodes:
            raise DataError(
                f"{folder} has no {split} episode" + (f" of the tasks {', '.join(self.tasks)}" if tasks else ""),
                hint="record more episodes or change the split with `ahriuwu data split`",
            )
        self._shards = Shards(folder, packed)
        self.sampler = PlaceSampler(self, relevance or ByReward())

    def is_ended(self, index: int) -> bool:
        """True when an episode ends in a terminal; the others were cut off."""
        episode = self.episodes[index]
        return bool(self._slice(episode, "terminal", 0, episode.num_latents).any())

    def known_actions(self, index: int) -> np.ndarray:
        """Blocks (num_latents,) bool of an episode whose action is known; that of its first block never is."""
        episode = self.episodes[index]
        return self._slice(episode, "action_valid", 0, episode.num_latents).astype(bool)

    def tasks_of(self, index: int) -> tuple[int, ...]:
        """Tasks, by index, that apply to an episode."""
        return tuple(self._applying[index])

    def task_rewards(self, task: int) -> dict[int, np.ndarray]:
        """By episode index, the rewards (blocks,) of a task in the episodes that it applies to."""
        array, episodes = self._tasks[task].array, enumerate(self.episodes)
        return {i: self._slice(e, array, 0, e.num_latents) for i, e in episodes if task in self._applying[i]}

    def read(self, places: Sequence[Place | tuple[int, int]], length: int, lookahead: int = 0) -> LatentBatch:
        """The windows that start at these places, padded after an episode's end. Any thread may read.

        Args:
            places: as they were drawn, or (episode index, start).
            length: W.
            lookahead: further blocks without latents, for multi-token targets.

        Raises:
            ArtifactError, DataError: a shard was changed since it was packed, or holds what it may not.
        """
        rows = [self._window(Place(*place), length, lookahead) for place in places]
        stacked = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        return LatentBatch(**stacked)

    def _window(self, place: Place, length: int, lookahead: int) -> dict[str, np.ndarray]:
        episode, start, applying = self.episodes[place.episode], place.start, self._applying[place.episode]
        task = applying[0] if place.task is None else place.task
        assert 0 <= start < episode.num_latents
        assert task in applying
        latents = self._slice(episode, "latents", start, start + length).astype(np.float32)
        stop, arrays = start + length + lookahead, {name: name for name in BLOCK_ARRAYS}
        arrays[REWARD] = self._tasks[task].array
        blocks = {name: self._slice(episode, array, start, stop) for name, array in arrays.items()}
        present = len(latents)
        out = {name: _pad(array, length + lookahead) for name, array in blocks.items()}
        for name in ("action_valid", "reward_valid", "terminal"):
            out[name] = out[name].astype(bool)
        out["latents"] = _pad(latents, length)
        out["valid"] = np.arange(length) < present
        out["task"] = np.asarray(task, np.int64)
        return out

    def _slice(self, episode: PackedEpisode, name: str, start: int, stop: int) -> np.ndarray:
        stop = min(stop, episode.num_latents)
        return self._shards.rows(episode.shard, name, episode.start + start, episode.start + stop)


def _pad(array: np.ndarray, length: int) -> np.ndarray:
    """Zeros after the end up to `length` rows."""
    missing = length - len(array)
    return array if missing <= 0 else np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
