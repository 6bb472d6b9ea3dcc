"""Which rewards make a window relevant, and how large rewards and returns get."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ahriuwu_cli.latents.rewards import largest_return, usual_reward
from ahriuwu_cli.latents.windows import LatentWindows

SPARSE = [[0, 0, 1, 0, 0, 2, 0]]
LIVING = [[0, 1, 1, 1, 1, 1], [0, 1, 1]]
LIVING_WITH_GOALS = [[0, 0.1, 0.1, 0.1, 5.1], [0, 0.1, 0.1, 0.1]]
PENALTIES = [[0, -1, -1, -5, 0]]


@pytest.mark.parametrize(
    ("rewards", "relevant"),
    [
        (SPARSE, [(0, 2), (0, 5)]),  # every positive one
        (LIVING, []),  # no play is better than any other
        (LIVING_WITH_GOALS, [(0, 4)]),  # not the bonus for being alive
        (PENALTIES, []),
    ],
)
def test_relevant_is_what_pays_more_than_usual(by_hand, monkeypatch, rewards, relevant):
    windows = LatentWindows(by_hand.packed, "train")
    found = {index: np.array(values, np.float32) for index, values in enumerate(rewards)}
    monkeypatch.setattr(windows, "task_rewards", lambda task: found)
    assert windows.rewarding_blocks(0) == relevant


def test_task_rewards_are_those_of_the_store(by_hand):
    windows = LatentWindows(by_hand.packed, "train")
    for task in range(len(windows.tasks)):
        for index, rewards in windows.task_rewards(task).items():
            assert len(rewards) == windows.episodes[index].num_latents
            assert task in windows.tasks_of(index)


def test_nothing_recorded_is_nothing_usual():
    assert usual_reward([]) == 0.0


@given(arrays.arrays(np.float32, st.integers(1, 30), elements=st.floats(-100, 100, width=32)), st.floats(0, 1))
def test_the_largest_return_is_the_largest_of_all(rewards, gamma):
    own = [abs(sum(gamma**k * float(r) for k, r in enumerate(rewards[t:]))) for t in range(len(rewards))]
    assert largest_return([rewards], gamma) == pytest.approx(max(own), rel=1e-6, abs=1e-6)
    assert largest_return([rewards, 2 * rewards], gamma) == pytest.approx(2 * max(own), rel=1e-6, abs=1e-6)
