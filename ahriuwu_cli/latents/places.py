"""Which windows of packed latents are drawn; windows.py reads them.

Shapes: W latents per window. A block belongs to one latent, which covers as many frames as the latents' stride says.

A sampler knows lengths, tasks, rewards and ends of the episodes of a split, and has no other randomness than the
generator that it is given: with one of core/training/batches.py a step's places depend on nothing before that step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.core.specs import LatentSpec
from ahriuwu_cli.episodes.manifest import Split
from ahriuwu_cli.latents.manifest import PackedEpisode
from ahriuwu_cli.latents.rewards import Blocks, Relevance, draw_start


class Place(NamedTuple):
    """Where a window begins.

    Attributes:
        episode: index into the split's episodes.
        start: its first latent.
        task: index of a task that applies to the episode; None: the first that does.
    """

    episode: int
    start: int
    task: int | None = None


class Recorded(Protocol):
    """What a sampler asks of the episodes of a split (see `LatentWindows`)."""

    split: Split
    latent_spec: LatentSpec
    episodes: list[PackedEpisode]
    tasks: list[str]

    def tasks_of(self, index: int) -> Sequence[int]:
        """Tasks, by index, that apply to an episode."""
        ...

    def task_rewards(self, task: int) -> dict[int, np.ndarray]:
        """By episode index, the rewards (blocks,) of a task in the episodes that it applies to."""
        ...

    def is_ended(self, index: int) -> bool:
        """True when an episode ends in a terminal; the others were cut off."""
        ...

    def known_actions(self, index: int) -> np.ndarray:
        """Blocks (num_latents,) bool of an episode whose action is known."""
        ...


class PlaceSampler:
    """Random places of windows over the episodes of one split. Every one has a task that applies to its episode.

    Args:
        recorded: the episodes.
        relevance: which windows are relevant.
    """

    def __init__(self, recorded: Recorded, relevance: Relevance) -> None:
        self._recorded, self.relevance = recorded, relevance
        self._ends = np.cumsum([episode.num_latents for episode in recorded.episodes])
        self._relevant: dict[int, Blocks] = {}  # by task

    @property
    def num_latents(self) -> int:
        """Latents in the split."""
        return int(self._ends[-1])

    def draw(self, rng: np.random.Generator, count: int, length: int, *, relevant: bool = False) -> list[Place]:
        """Latents are equally likely to be inside a window, give or take half near an episode's ends.

        Tasks are equally likely among those that apply to a window's episode; of relevant windows, among those that
        have any.

        Args:
            rng: the source of randomness, and all of it.
            count: windows.
            length: W; a window begins at 0 in an episode that is shorter than that.
            relevant: only windows that are relevant for their task; all when there is none.
        """
        tasks = range(len(self._recorded.tasks))
        known = [task for task in tasks if relevant and self.relevant_blocks(task)]
        return [
            self._relevant_place(rng, _pick(rng, known), length) if known else self._place(rng, length)
            for _ in range(count)
        ]

    def _relevant_place(self, rng: np.random.Generator, task: int, length: int) -> Place:
        pool = self.relevant_blocks(task)
        index, block = pool[int(rng.integers(len(pool)))]
        return Place(index, self.relevance.start(rng, block, length, self._recorded.episodes[index].num_latents), task)

    def _place(self, rng: np.random.Generator, length: int) -> Place:
        position = int(rng.integers(self.num_latents))
        index = int(np.searchsorted(self._ends, position, side="right"))
        num_latents = self._recorded.episodes[index].num_latents
        start = draw_start(rng, position - int(self._ends[index]) + num_latents, length, num_latents)
        return Place(index, start, self._pick_task(rng, index))

    def draw_ended(self, rng: np.random.Generator, count: int, length: int) -> list[Place]:
        """Windows that hold the terminal end of an episode, as `draw`; from anywhere when none has one."""
        if not self.ended:
            return self.draw(rng, count, length)
        chosen = [_pick(rng, self.ended) for _ in range(count)]
        lengths = [self._recorded.episodes[index].num_latents for index in chosen]
        starts = [draw_start(rng, number - 1, length, number) for number in lengths]
        return [Place(index, start, self._pick_task(rng, index)) for index, start in zip(chosen, starts, strict=True)]

    def draw_contexts(
        self,
        rng: np.random.Generator,
        count: int,
        length: int,
        *,
        num_relevant: int = 0,
        reach: int = 1,
        setting: str = "context_length",
    ) -> list[Place]:
        """Windows that lie wholly inside an episode, which goes on after them: starts of dreams.

        Tasks are equally likely among those that apply to a window's episode; of the first ones, among those that have
        a relevant block late enough.

        Args:
            rng: the source of randomness, and all of it.
            count: windows.
            length: W.
            num_relevant: the first of these windows come at most `reach` blocks before one that makes windows relevant
                for their task (a reward, or where a high return begins); anywhere when there is none.
            reach: see there; at least 1.
            setting: where the length is from.

        Raises:
            DataError: every episode of the split is too short.
        """
        pools = self._relevant_after(length) if num_relevant else {}
        early = [self._place_before(rng, pools, length, reach) for _ in range(num_relevant if pools else 0)]
        whole = self.draw_whole(rng, count - len(early), length + 1, setting=f"{setting} + 1")
        return early + [place._replace(task=self._pick_task(rng, place.episode)) for place in whole]

    def _relevant_after(self, length: int) -> dict[int, Blocks]:
        """By task, the relevant blocks that a full window of this length can come before."""
        found = {}
        for task in range(len(self._recorded.tasks)):
            blocks = self.relevant_blocks(task)
            pool = [(i, b) for i, b in blocks if length <= b < self._recorded.episodes[i].num_whole]
            if pool:
                found[task] = pool
        return found

    def _place_before(self, rng: np.random.Generator, pools: Mapping[int, Blocks], length: int, reach: int) -> Place:
        """A window that ends 1 to `reach` blocks before one of a pool, evenly."""
        task = _pick(rng, list(pools))
        index, block = pools[task][int(rng.integers(len(pools[task])))]
        last = block - length
        return Place(index, last - int(rng.integers(min(reach, last + 1))), task)

    def draw_whole(
        self,
        rng: np.random.Generator,
        count: int,
        length: int,
        *,
        setting: str = "their length",
        unknown_first: int | None = None,
    ) -> list[Place]:
        """Windows that lie wholly inside an episode, each equally likely; their task is the first that applies.

        A last latent that reaches past its episode's end is in no such window: it shows frames that never were.

        Args:
            rng: the source of randomness, and all of it.
            count: windows.
            length: W.
            setting: where the length is from.
            unknown_first: only windows in which all actions but those of so many first blocks are known, where the
                split has any; None: whatever is known.

        Raises:
            DataError: every episode of the split is shorter.
        """
        recorded = self._recorded
        starts = np.array([max(0, episode.num_whole - length + 1) for episode in recorded.episodes])
        if unknown_first is not None:
            known = [self._known_starts(i, number, length, unknown_first) for i, number in enumerate(starts.tolist())]
            if any(map(len, known)):
                return _among(rng, count, known)
        ends = np.cumsum(starts)
        if not ends[-1]:
            longest, stride = max(episode.num_whole for episode in recorded.episodes), recorded.latent_spec.stride
            unit = "frames" if stride == 1 else f"whole latents (of {stride} frames each)"
            raise DataError(
                f"the longest {recorded.split} episode has {longest} {unit}; windows of {length} ({setting}) are asked "
                "for",
                hint=f"lower {setting.removesuffix(' + 1').replace(' + ', ' or ')}, or record longer episodes",
            )
        return _among(rng, count, [np.arange(number) for number in starts])

    def _known_starts(self, index: int, number: int, length: int, unknown_first: int) -> np.ndarray:
        """Of the first `number` windows of an episode, where those begin in which actions are known."""
        if not number:
            return np.arange(0)
        unknown = np.concatenate([[0], np.cumsum(~self._recorded.known_actions(index))])
        start = np.arange(number)
        return np.flatnonzero(unknown[start + length] == unknown[start + unknown_first])

    @cached_property
    def ended(self) -> list[int]:
        """Indices of the episodes that end in a terminal."""
        return [index for index in range(len(self._recorded.episodes)) if self._recorded.is_ended(index)]

    def relevant_blocks(self, task: int) -> Blocks:
        """The blocks that make windows relevant for a task (see rewards.py)."""
        if task not in self._relevant:
            rewards = self._recorded.task_rewards(task)
            self._relevant[task] = self.relevance.blocks(rewards, self._recorded.is_ended)
        return self._relevant[task]

    def _pick_task(self, rng: np.random.Generator, index: int) -> int:
        return _pick(rng, self._recorded.tasks_of(index))


def _among(rng: np.random.Generator, count: int, starts: Sequence[np.ndarray]) -> list[Place]:
    """Windows drawn evenly from those that begin at these latents of each episode."""
    ends = np.cumsum([len(each) for each in starts])
    positions = rng.integers(ends[-1], size=count)
    indices = np.searchsorted(ends, positions, side="right")
    places = [int(starts[i][position - ends[i]]) for i, position in zip(indices, positions, strict=True)]
    return [Place(int(i), place) for i, place in zip(indices, places, strict=True)]


def _pick(rng: np.random.Generator, choices: Sequence[int]) -> int:
    """One of several, evenly; a single one without drawing."""
    return choices[0] if len(choices) == 1 else choices[int(rng.integers(len(choices)))]
