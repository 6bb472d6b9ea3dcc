"""Alignment of frames, actions and rewards: a hand-written episode and leak tests of the indexing."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.episodes.alignment import (
    POLICY_OFFSET,
    REWARD_OFFSET,
    live_action,
    mtp_index,
    mtp_targets,
    policy_target_index,
    policy_targets,
    reward_target_index,
    reward_targets,
    to_blocks,
)


def hand_written() -> dict[str, np.ndarray]:
    """Four steps, five frames; the action of step 2 is not known."""
    return {
        "actions": np.array([[1, 10], [2, 20], [3, 30], [4, 40]], np.float32),
        "action_valid": np.array([True, True, False, True]),
        "rewards": np.array([0, 5, 0, 7], np.float32),
        "terminals": np.array([False, False, False, True]),
    }


def test_blocks_of_a_hand_written_episode() -> None:
    blocks = to_blocks(**hand_written())
    assert blocks.action.tolist() == [[0, 0], [1, 10], [2, 20], [0, 0], [4, 40]]
    assert blocks.action_valid.tolist() == [False, True, True, False, True]
    assert blocks.reward.tolist() == [0, 0, 5, 0, 7]
    assert blocks.reward_valid.tolist() == [False, True, True, True, True]
    assert blocks.terminal.tolist() == [False, False, False, False, True]
    assert blocks.first.tolist() == [True, False, False, False, False]
    assert (blocks.action.dtype, blocks.reward.dtype) == (np.float32, np.float32)
    flags = (blocks.action_valid, blocks.reward_valid, blocks.terminal, blocks.first)
    assert {flag.dtype for flag in flags} == {np.dtype(bool)}


def test_targets_of_a_hand_written_episode() -> None:
    """Pitfall 29: from block t, distance n is actions[t+n] and the reward that arrived with frame t+n."""
    blocks = to_blocks(**hand_written())
    actions, known = policy_targets(blocks.action, blocks.action_valid, length=5, mtp_length=2)
    assert actions[..., 0].tolist() == [[1, 2], [2, 0], [0, 4], [4, 0], [0, 0]]
    assert known.tolist() == [[True, True], [True, False], [False, True], [True, False], [False, False]]
    rewards, arrived = reward_targets(blocks.reward, blocks.reward_valid, length=5, mtp_length=2)
    assert rewards.tolist() == [[0, 0], [0, 5], [5, 0], [0, 7], [7, 0]]
    assert arrived.tolist() == [[False, True], [True, True], [True, True], [True, True], [True, False]]


def test_reward_targets_take_terminals_too() -> None:
    blocks = to_blocks(**hand_written())
    ends, _ = reward_targets(blocks.terminal, blocks.reward_valid, length=5, mtp_length=1)
    assert ends[:, 0].tolist() == [False, False, False, False, True]
    assert ends.dtype == bool


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.data())
def test_an_action_is_in_the_next_block_only(steps: int, mtp_length: int, data: st.DataObject) -> None:
    """Pitfall 16: perturbing a_t changes block t+1 and no other, so block t cannot show what it predicts."""
    t = data.draw(st.integers(0, steps - 1))
    rng = np.random.default_rng(steps)
    arrays = {
        "actions": rng.normal(size=(steps, 2)).astype(np.float32),
        "action_valid": np.ones(steps, bool),
        "rewards": rng.normal(size=steps).astype(np.float32),
        "terminals": np.zeros(steps, bool),
    }
    before = to_blocks(**arrays)
    for name, field, value in (("actions", "action", 9.0), ("rewards", "reward", 9.0), ("terminals", "terminal", True)):
        changed = arrays | {name: arrays[name].copy()}
        changed[name][t] = value
        after = to_blocks(**changed)
        for other in ("action", "action_valid", "reward", "reward_valid", "terminal", "first"):
            same = getattr(before, other) == getattr(after, other)
            moved = [] if other != field else [t + 1]
            assert np.flatnonzero(~same.reshape(steps + 1, -1).all(1)).tolist() == moved
    # What block t predicts at distance 0 is exactly the perturbed action, and nothing at or before t holds it.
    length = steps + 1
    actions, known = policy_targets(before.action, before.action_valid, length, mtp_length)
    assert np.array_equal(actions[t, 0], arrays["actions"][t])
    assert known[t, 0]
    assert policy_target_index(t, 0) == t + 1


@settings(deadline=None)
@given(st.integers(1, 10), st.integers(1, 6))
def test_targets_follow_the_index_functions(steps: int, mtp_length: int) -> None:
    rng = np.random.default_rng(steps * 7 + mtp_length)
    actions = rng.normal(size=(steps, 3)).astype(np.float32)
    rewards = rng.normal(size=steps).astype(np.float32)
    valid = rng.random(steps) < 0.7
    blocks = to_blocks(actions=actions, action_valid=valid, rewards=rewards, terminals=np.zeros(steps, bool))
    length = steps + 1
    want, known = policy_targets(blocks.action, blocks.action_valid, length, mtp_length)
    got, arrived = reward_targets(blocks.reward, blocks.reward_valid, length, mtp_length)
    for t in range(length):
        for n in range(mtp_length):
            if t + n < steps:
                assert known[t, n] == valid[t + n]
                assert np.array_equal(want[t, n], np.where(valid[t + n], actions[t + n], 0))
            else:
                assert not known[t, n]
            if 1 <= t + n <= steps:
                assert arrived[t, n]
                assert got[t, n] == rewards[t + n - 1]
            else:
                assert not arrived[t, n]


def test_masked_actions_leave_no_trace() -> None:
    """Pitfall 18: the content of a masked action reaches no block and no target."""
    arrays = hand_written()
    other = arrays | {"actions": arrays["actions"].copy()}
    other["actions"][2] = [99, -99]
    one, two = to_blocks(**arrays), to_blocks(**other)
    assert np.array_equal(one.action, two.action)


def test_targets_of_windows_inside_batches() -> None:
    """Leading axes are kept; a window with L further blocks has every target."""
    values = np.arange(2 * 7 * 1).reshape(2, 7, 1)
    targets, present = mtp_targets(values, length=4, mtp_length=3, offset=POLICY_OFFSET)
    assert targets.shape == (2, 4, 3, 1)
    assert present.all()
    assert targets[1, 2, :, 0].tolist() == [10, 11, 12]
    targets, present = mtp_targets(values, length=6, mtp_length=3, offset=REWARD_OFFSET)
    assert present.tolist() == [[True] * 3] * 5 + [[True, True, False]]
    assert targets[0, 5, :, 0].tolist() == [5, 6, 0]
    assert reward_target_index(5, 1) == 6


def test_missing_targets_are_zero_and_indices_stay_inside() -> None:
    index, present = mtp_index(length=3, mtp_length=4, offset=1, available=3)
    assert index.max() == 2
    assert present.tolist() == [[True, True, False, False], [True, False, False, False], [False] * 4]
    targets, _ = mtp_targets(np.full((3, 1), 5.0), 3, 4, 1)
    assert (targets[~present] == 0).all()
    assert (targets[present] == 5).all()


def test_live_play_agrees_with_blocks() -> None:
    """The block built while playing is the block that training saw."""
    arrays = hand_written() | {"action_valid": np.ones(4, bool)}
    blocks = to_blocks(**arrays)
    previous = np.full((1, 2), 77, np.float32)  # left over from the episode before
    for t in range(5):
        action, valid = live_action(previous, np.array([t == 0]))
        assert np.array_equal(action[0], blocks.action[t])
        assert valid[0] == blocks.action_valid[t]
        previous = arrays["actions"][t : t + 1] if t < 4 else previous
