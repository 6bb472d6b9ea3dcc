"""Which rewards make a window relevant, and how large rewards and returns get."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ahriuwu_cli.latents.rewards import ByReturn, ByReward, draw_start, largest_return, num_starts, usual_reward
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
    assert windows.sampler.relevant_blocks(0) == relevant


def test_task_rewards_are_those_of_the_store(by_hand):
    windows = LatentWindows(by_hand.packed, "train")
    for task in range(len(windows.tasks)):
        for index, rewards in windows.task_rewards(task).items():
            assert len(rewards) == windows.episodes[index].num_latents
            assert task in windows.tasks_of(index)


# ---------------------------------------------------------------- by return


def relevant(rule, *episodes, ended=()):
    """The blocks that a rule marks in episodes given by their rewards."""
    told = {index: np.array(rewards, np.float32) for index, rewards in enumerate(episodes)}
    return rule.blocks(told, lambda index: index in ended)


def test_the_return_of_a_window_by_hand():
    """What arrives after its first block, up to its last one and `reach` more; unknown beyond where play was cut."""
    rewards = np.array([9, -1, -2, -4, -8, -16], np.float32)
    assert ByReturn(3).returns(rewards, ended=False).tolist() == [-3, -6, -12, -24]
    assert ByReturn(3, reach=2).returns(rewards, ended=False).tolist() == [-15, -30]
    assert ByReturn(3, reach=2).returns(rewards, ended=True).tolist() == [-15, -30, -28, -24]
    assert ByReturn(9).returns(rewards, ended=False).tolist() == []
    assert ByReturn(9).returns(rewards, ended=True).tolist() == [-31]


def test_where_all_rewards_punish_the_least_punished_play_is_relevant():
    collisions = [0, 0, -1, 0, 0, 0, -1, -1, 0]
    assert relevant(ByReward(), collisions) == []
    assert ByReturn(3).returns(np.array(collisions), ended=False).tolist() == [-1, -1, 0, 0, -1, -2, -1]
    # most windows have none at all: nothing is above that, so what equals it is relevant
    assert relevant(ByReturn(3, quantile=0.9), collisions) == [(0, 2), (0, 3)]
    assert relevant(ByReturn(3, quantile=0.5), collisions) == [(0, 2), (0, 3)]


def test_a_goal_that_ends_a_steady_penalty_is_found():
    """-1 a step until the goal: only windows whose reach comes to it have a higher return. Being cut off is none."""
    to_the_goal, cut_off = [0] + [-1] * 11, [0] + [-1] * 11
    found = relevant(ByReturn(3, reach=4, quantile=0.5), to_the_goal, cut_off, ended={0})
    assert found == [(0, 6), (0, 7), (0, 8), (0, 9)]
    assert relevant(ByReturn(3, reach=4), cut_off) == []


def test_where_all_play_is_alike_none_is_relevant():
    assert relevant(ByReturn(3), [0] * 9, [0] * 9) == []
    assert relevant(ByReturn(3), [0.1] * 500, [0.1] * 900) == []  # whatever the rounding of their sums
    assert relevant(ByReturn(3)) == []


@given(
    st.lists(arrays.arrays(np.float32, st.integers(1, 30), elements=st.integers(-5, 5)), min_size=1, max_size=5),
    st.integers(1, 8),
    st.integers(0, 8),
    st.floats(0.5, 0.999),
)
def test_relevant_returns_are_above_the_quantile_and_no_others_are(episodes, length, reach, quantile):
    rule = ByReturn(length, reach, quantile)
    returns = {
        (index, start): value
        for index, rewards in enumerate(episodes)
        for start, value in enumerate(rule.returns(rewards, ended=index % 2 == 0))
    }
    found = set(relevant(rule, *episodes, ended=range(0, 9, 2)))
    others = [returns[place] for place in returns if place not in found]
    if found:
        assert min(returns[place] for place in found) > max(others)
        best = max(returns.values())
        assert len(found) <= (1 - quantile) * len(returns) + 1 or {returns[place] for place in found} == {best}
    else:
        assert len(set(returns.values())) < 2


# ---------------------------------------------------------------- windows of relevant blocks


@given(data=st.data(), num=st.integers(1, 30), length=st.integers(1, 12), reach=st.integers(0, 12))
def test_starts_are_those_that_can_be_drawn(data, num, length, reach):
    blocks = data.draw(st.lists(st.integers(0, num - 1), max_size=4, unique=True))
    by_reward, by_return = ByReward(reach), ByReturn(length, reach)
    rng = np.random.default_rng(0)
    for rule in (by_reward, by_return):
        drawn = {rule.start(rng, block, length, num) for block in blocks for _ in range(400)}
        starts = rule.starts(blocks, length, num)
        assert len(starts) == num_starts(length, num)
        assert set(np.flatnonzero(starts)) == drawn
    first = np.random.default_rng(3), np.random.default_rng(3)
    for block in blocks:
        assert by_reward.start(first[0], block, length, num) == draw_start(first[1], block, length, num, reach)


def test_windows_of_high_return_begin_where_it_is_counted_from(by_hand):
    rule = ByReturn(3, 1, 0.6)
    windows = LatentWindows(by_hand.packed, "train", {"swim": "reward"}, rule)
    returns = [rule.returns(r, ended=windows.is_ended(i)) for i, r in windows.task_rewards(0).items()]
    best = np.concatenate(returns).max()
    assert np.quantile(np.concatenate(returns), 0.6) == best  # nothing is above it
    batch = windows.read(windows.sampler.draw(np.random.default_rng(0), 200, 3, relevant=True), 3, 1)
    assert (batch.reward[:, 1:].sum(dim=1) == best).all()
    plain = windows.read(windows.sampler.draw(np.random.default_rng(0), 200, 3), 3, 1)
    assert not (plain.reward[:, 1:].sum(dim=1) == best).all()


def test_nothing_recorded_is_nothing_usual():
    assert usual_reward([]) == 0.0


@given(arrays.arrays(np.float32, st.integers(1, 30), elements=st.floats(-100, 100, width=32)), st.floats(0, 1))
def test_the_largest_return_is_the_largest_of_all(rewards, gamma):
    own = [abs(sum(gamma**k * float(r) for k, r in enumerate(rewards[t:]))) for t in range(len(rewards))]
    assert largest_return([rewards], gamma) == pytest.approx(max(own), rel=1e-6, abs=1e-6)
    assert largest_return([rewards, 2 * rewards], gamma) == pytest.approx(2 * max(own), rel=1e-6, abs=1e-6)
