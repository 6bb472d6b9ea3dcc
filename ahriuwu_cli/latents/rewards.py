"""What a split's rewards say before anything is learned: which are worth reaching, and how large they get.

Shapes: T blocks of one episode.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


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
