"""Windows of packed latents: the one data source of dynamics, agent and imagination.

Shapes: B windows, W latents per window, F = W + lookahead blocks, N latent tokens, C channels, A action width.
A block belongs to one latent, which covers as many frames as the latents' stride says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from ahriuwu_cli.core.artifact import Header
from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.episodes.manifest import Split
from ahriuwu_cli.latents.manifest import PackedEpisode, read_packed
from ahriuwu_cli.latents.rewards import Blocks, ByReward, Relevance, draw_start
from ahriuwu_cli.latents.shards import BLOCK_ARRAYS, Shards
from ahriuwu_cli.latents.tasks import REWARD, assign_tasks


@dataclass(frozen=True)
class LatentBatch:
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

    def to(self, device: torch.device) -> LatentBatch:
        """The same batch on a device."""
        return LatentBatch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def rows(self, chosen: slice) -> LatentBatch:
        """Some of its windows."""
        return LatentBatch(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


class LatentWindows:
    """Random and fixed windows over the packed episodes of one split.

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
        self.relevance = relevance or ByReward()
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
        self._ends = np.cumsum([episode.num_latents for episode in self.episodes])
        self._relevant: dict[int, Blocks] = {}  # by task

    @property
    def num_latents(self) -> int:
        """Latents in the split."""
        return int(self._ends[-1])

    def draw(
        self, rng: np.random.Generator, count: int, length: int, *, lookahead: int = 0, relevant: bool = False
    ) -> LatentBatch:
        """Random windows. Latents are equally likely to be inside one, give or take half near an episode's ends.

        Tasks are equally likely among those that apply to a window's episode; of relevant windows, among those that
        have any.

        Args:
            rng: the source of randomness, and all of it.
            count: B.
            length: W; episodes shorter than that are padded.
            lookahead: further blocks without latents, for multi-token targets.
            relevant: only windows that are relevant for their task; all when there is none.
        """
        known = [task for task in range(len(self.tasks)) if relevant and self.relevant_blocks(task)]
        places, tasks = [], []
        for _ in range(count):
            if known:
                task = _pick(rng, known)
                pool = self.relevant_blocks(task)
                index, block = pool[int(rng.integers(len(pool)))]
                start = self.relevance.start(rng, block, length, self.episodes[index].num_latents)
            else:
                position = int(rng.integers(self.num_latents))
                index = int(np.searchsorted(self._ends, position, side="right"))
                block = position - int(self._ends[index]) + self.episodes[index].num_latents
                start = draw_start(rng, block, length, self.episodes[index].num_latents)
                task = _pick(rng, self._applying[index])
            places.append((index, start))
            tasks.append(task)
        return self.read(places, length, lookahead, tasks)

    def draw_ended(self, rng: np.random.Generator, count: int, length: int, *, lookahead: int = 0) -> LatentBatch:
        """Random windows that hold the terminal end of an episode, as `draw`; from anywhere when none has one."""
        if not self.ended:
            return self.draw(rng, count, length, lookahead=lookahead)
        chosen = [_pick(rng, self.ended) for _ in range(count)]
        lengths = [self.episodes[index].num_latents for index in chosen]
        places = [(i, draw_start(rng, n - 1, length, n)) for i, n in zip(chosen, lengths, strict=True)]
        return self.read(places, length, lookahead, [_pick(rng, self._applying[index]) for index in chosen])

    def draw_contexts(
        self,
        rng: np.random.Generator,
        count: int,
        length: int,
        *,
        num_relevant: int = 0,
        reach: int = 1,
        setting: str = "context_length",
    ) -> LatentBatch:
        """Random full windows (B, length) of latents after which the episode goes on: starts of dreams.

        Tasks are equally likely among those that apply to a window's episode; of the first ones, among those that have
        a relevant block late enough.

        Args:
            rng: the source of randomness, and all of it.
            count: B.
            length: of a window.
            num_relevant: the first of these windows come at most `reach` blocks before one that makes windows relevant
                for their task (a reward, or where a high return begins); anywhere when there is none.
            reach: see there; at least 1.
            setting: where the length is from.

        Raises:
            DataError: every episode of the split is too short.
        """
        pools = self._relevant_after(length) if num_relevant else {}
        early = [self._place_before(rng, pools, length, reach) for _ in range(num_relevant if pools else 0)]
        places = self.draw_places(rng, count - len(early), length + 1, setting=f"{setting} + 1")
        tasks = [task for _, task in early] + [_pick(rng, self._applying[index]) for index, _ in places]
        return self.read([place for place, _ in early] + places, length, 0, tasks)

    def _relevant_after(self, length: int) -> dict[int, Blocks]:
        """By task, the relevant blocks that a full window of this length can come before."""
        found = {}
        for task in range(len(self.tasks)):
            pool = [(i, b) for i, b in self.relevant_blocks(task) if length <= b < self.episodes[i].num_whole]
            if pool:
                found[task] = pool
        return found

    def _place_before(
        self, rng: np.random.Generator, pools: Mapping[int, Blocks], length: int, reach: int
    ) -> tuple[tuple[int, int], int]:
        """A window (episode index, start) that ends 1 to `reach` blocks before one of a pool, evenly; and the task."""
        task = _pick(rng, list(pools))
        index, block = pools[task][int(rng.integers(len(pools[task])))]
        last = block - length
        return (index, last - int(rng.integers(min(reach, last + 1)))), task

    def draw_places(
        self, rng: np.random.Generator, count: int, length: int, *, setting: str = "their length"
    ) -> list[tuple[int, int]]:
        """Random (episode index, start) of windows that lie wholly inside an episode, each equally likely.

        A last latent that reaches past its episode's end is in no such window: it shows frames that never were.
        `setting` says where the length comes from.

        Raises:
            DataError: every episode of the split is shorter.
        """
        starts = np.array([max(0, episode.num_whole - length + 1) for episode in self.episodes])
        ends = np.cumsum(starts)
        if not ends[-1]:
            longest, stride = max(episode.num_whole for episode in self.episodes), self.latent_spec.stride
            unit = "frames" if stride == 1 else f"whole latents (of {stride} frames each)"
            raise DataError(
                f"the longest {self.split} episode has {longest} {unit}; windows of {length} ({setting}) are asked for",
                hint=f"lower {setting.removesuffix(' + 1').replace(' + ', ' or ')}, or record longer episodes",
            )
        indices = np.searchsorted(ends, positions := rng.integers(ends[-1], size=count), side="right")
        return [(int(i), int(position - ends[i] + starts[i])) for i, position in zip(indices, positions, strict=True)]

    @cached_property
    def ended(self) -> list[int]:
        """Indices of the episodes that end in a terminal."""
        return [index for index in range(len(self.episodes)) if self.is_ended(index)]

    def is_ended(self, index: int) -> bool:
        """True when an episode ends in a terminal; the others were cut off."""
        episode = self.episodes[index]
        return bool(self._slice(episode, "terminal", 0, episode.num_latents).any())

    def tasks_of(self, index: int) -> tuple[int, ...]:
        """Tasks, by index, that apply to an episode."""
        return tuple(self._applying[index])

    def task_rewards(self, task: int) -> dict[int, np.ndarray]:
        """By episode index, the rewards (blocks,) of a task in the episodes that it applies to."""
        array, episodes = self._tasks[task].array, enumerate(self.episodes)
        return {i: self._slice(e, array, 0, e.num_latents) for i, e in episodes if task in self._applying[i]}

    def relevant_blocks(self, task: int) -> Blocks:
        """The blocks that make windows relevant for a task (see rewards.py)."""
        if task not in self._relevant:
            self._relevant[task] = self.relevance.blocks(self.task_rewards(task), self.is_ended)
        return self._relevant[task]

    def read(
        self, places: list[tuple[int, int]], length: int, lookahead: int = 0, tasks: Sequence[int] | None = None
    ) -> LatentBatch:
        """The windows that start at (episode index, latent), padded after an episode's end.

        Their tasks must apply to their episodes; by default each has the first that does.
        """
        chosen = [self._applying[index][0] for index, _ in places] if tasks is None else tasks
        rows = [self._window(*place, task, length, lookahead) for place, task in zip(places, chosen, strict=True)]
        stacked = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        return LatentBatch(**stacked)

    def _window(self, index: int, start: int, task: int, length: int, lookahead: int) -> dict[str, np.ndarray]:
        episode = self.episodes[index]
        assert 0 <= start < episode.num_latents
        assert task in self._applying[index]
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


def _pick(rng: np.random.Generator, choices: list[int]) -> int:
    """One of several, evenly; a single one without drawing."""
    return choices[0] if len(choices) == 1 else choices[int(rng.integers(len(choices)))]


def _pad(array: np.ndarray, length: int) -> np.ndarray:
    """Zeros after the end up to `length` rows."""
    missing = length - len(array)
    return array if missing <= 0 else np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
