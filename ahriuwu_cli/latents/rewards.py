"""What a split's rewards say before anything is learned: which play is worth imitating, and how large returns get.

Shapes: T blocks of one episode, W blocks of one window.

A rule of relevance is told the rewards of a task and marks blocks; `start` draws a window for one that is marked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Blocks = list[tuple[int, int]]
"""(episode index, block) pairs."""


class Relevance(Protocol):
    """Which windows of a split are relevant ([D4] Sec. 3.3), told by blocks."""

    def blocks(self, rewards: Mapping[int, np.ndarray], ended: Callable[[int], bool]) -> Blocks:
        """The blocks that make windows relevant.

        Args:
            rewards: by episode index, the rewards (T,) of one task.
            ended: says of an episode whether the game came to its end; the others were cut off.
        """
        ...

    def start(self, rng: np.random.Generator, block: int, length: int, num_latents: int) -> int:
        """Start of a random window of `length` latents that one such block of an episode makes relevant."""
        ...

    def starts(self, blocks: Iterable[int], length: int, num_latents: int) -> np.ndarray:
        """For every start that a window of this length can have in an episode, whether `blocks` make it relevant."""
        ...


@dataclass(frozen=True)
class ByReward:
    """Relevant is what holds a block with more than the usual reward, or ends at most `reach` blocks before one."""

    reach: int = 0

    def blocks(self, rewards: Mapping[int, np.ndarray], ended: Callable[[int], bool]) -> Blocks:
        """Every block that arrived with more than the usual reward."""
        del ended
        usual = usual_reward(rewards.values())
        return [(index, int(block)) for index in rewards for block in np.flatnonzero(rewards[index] > usual)]

    def start(self, rng: np.random.Generator, block: int, length: int, num_latents: int) -> int:
        """See `draw_start`."""
        return draw_start(rng, block, length, num_latents, self.reach)

    def starts(self, blocks: Iterable[int], length: int, num_latents: int) -> np.ndarray:
        """All from which the window holds such a block or comes before it."""
        found = np.zeros(num_starts(length, num_latents), bool)
        for block in blocks:
            found[max(0, block - length - self.reach + 1) : block + 1] = True
        return found


@dataclass(frozen=True)
class ByReturn:
    """Relevant is what is followed by a higher return than most play: of its kind, also where all rewards punish.

    The return of a window is the plain sum of the rewards that arrive after its first block, up to its last one and
    `reach` blocks more. Relevant windows have one above the `quantile` of all windows of the split; where none is
    above it, as when the best that can be had is no penalty at all and most windows have that, those that equal the
    largest. Where all are alike none is relevant.

    Decision: no discount, as nothing that far ahead is in doubt, and a sum over a fixed time, not to the end of the
    episode: play is not the better for being near its end. A window that reaches beyond where an episode was cut off
    has no known return and is not relevant; beyond a game's own end nothing comes, which is known. What arrived with
    the first block was earned before it.

    Attributes:
        length: W.
        reach: further blocks whose rewards count.
        quantile: of all returns.
    """

    length: int
    reach: int = 0
    quantile: float = 0.75

    def blocks(self, rewards: Mapping[int, np.ndarray], ended: Callable[[int], bool]) -> Blocks:
        """The first blocks of relevant windows."""
        returns = {index: self.returns(values, ended=ended(index)) for index, values in rewards.items()}
        everything = np.concatenate([np.zeros(0), *returns.values()])
        if not len(everything) or everything.min() == everything.max():
            return []
        limit, best = np.quantile(everything, self.quantile), everything.max()
        chosen = {index: values > limit if best > limit else values == best for index, values in returns.items()}
        return [(index, int(block)) for index in chosen for block in np.flatnonzero(chosen[index])]

    def returns(self, rewards: np.ndarray, *, ended: bool) -> np.ndarray:
        """Returns (starts,) of the windows of an episode, given its rewards (T,), as far as they are known."""
        count = len(rewards)
        first = np.arange(num_starts(self.length, count))
        stop = first + self.length + self.reach
        if not ended:
            first, stop = first[stop <= count], stop[stop <= count]
        # rewards are fp32: in fp64 their sums are exact, so that equal play has equal returns
        sums = np.concatenate([[0.0], np.cumsum(rewards, dtype=np.float64)])
        returns: np.ndarray = sums[np.minimum(stop, count)] - sums[np.minimum(first + 1, count)]
        return returns

    def start(self, rng: np.random.Generator, block: int, length: int, num_latents: int) -> int:
        """The block itself, from which the return was counted."""
        del rng
        return min(block, num_starts(length, num_latents) - 1)

    def starts(self, blocks: Iterable[int], length: int, num_latents: int) -> np.ndarray:
        """The blocks themselves."""
        found = np.zeros(num_starts(length, num_latents), bool)
        found[np.minimum(np.array([*blocks], int), len(found) - 1)] = True
        return found


def num_starts(length: int, num_latents: int) -> int:
    """Windows of a length that an episode has; a shorter episode is one window with padding."""
    return max(1, num_latents - length + 1)


def draw_start(rng: np.random.Generator, block: int, length: int, num_latents: int, reach: int = 0) -> int:
    """Start of a random window that holds `block` of an episode, or ends at most `reach` blocks before it.

    Decision: starts are drawn evenly; a window that would stick out of the episode is moved inside. Windows that
    end before the block begin at 0 at the earliest, so that a large reach does not pile them up there.
    """
    before = min(reach, max(0, block - length + 1))  # starts from which the window ends before the block
    start = block - int(rng.integers(length + before))
    return max(0, min(start, num_latents - length))


def usual_reward(episodes: Iterable[np.ndarray]) -> float:
    """The reward (T,) per episode above which a block counts as reached: zero, or the median where that is more.

    Decision: [D4] speaks of sequences that reach a task's reward. Where most steps are rewarded, as by a bonus for
    being alive, every sequence would; only what pays more than usual tells good play from any other. Where nothing
    does, none is relevant and all windows count alike.
    """
    found = [np.asarray(rewards, np.float64) for rewards in episodes]
    everything = np.concatenate(found) if found else np.zeros(0)
    return max(0.0, float(np.median(everything))) if len(everything) else 0.0


def largest_return(episodes: Iterable[np.ndarray], gamma: float) -> float:
    """Largest magnitude of a discounted sum of the rewards (T,) from any block on to the episode's end."""
    largest = 0.0
    for rewards in episodes:
        total = 0.0
        for reward in np.asarray(rewards, np.float64)[::-1]:
            total = float(reward) + gamma * total
            largest = max(largest, abs(total))
    return largest
