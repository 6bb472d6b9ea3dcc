"""Blocks of latents that cover several frames: what each holds, and that nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.episodes.alignment import Blocks, covered_frames, num_latents, num_whole_latents, to_blocks

STRIDE = 8


def episode(steps: int, width: int = 2) -> dict[str, np.ndarray]:
    """Action t is (t+1, t+1.5), reward t is 2^(t mod 20), the game ends at the last step."""
    return {
        "actions": (np.arange(1, steps + 1)[:, None] + np.linspace(0, 0.5, width)).astype(np.float32),
        "action_valid": np.ones(steps, bool),
        "rewards": (2.0 ** (np.arange(steps) % 20)).astype(np.float32),
        "terminals": np.arange(steps) == steps - 1,
    }


def test_blocks_worked_out_by_hand() -> None:
    """Pitfall 34: 5 steps, stride 3: latents of frame 0, frames 1-3, frames 4-6 (frame 6 never was)."""
    arrays = {
        "actions": np.array([[1], [2], [3], [4], [5]], np.float32),
        "action_valid": np.ones(5, bool),
        "rewards": np.array([1, 0, 2, 0, 7], np.float32),
        "terminals": np.array([False, False, False, False, True]),
    }
    blocks = to_blocks(**arrays, stride=3)
    assert blocks.action.tolist() == [[0, 0, 0], [1, 2, 3], [0, 0, 0]]
    assert blocks.action_valid.tolist() == [False, True, False]  # decision: known only where all are
    assert blocks.reward.tolist() == [0, 3, 7]
    assert blocks.reward_valid.tolist() == [False, True, True]
    assert blocks.terminal.tolist() == [False, False, True]
    assert blocks.first.tolist() == [True, False, False]
    assert (blocks.action.dtype, blocks.reward.dtype, blocks.action_valid.dtype) == (np.float32, np.float32, bool)


def test_all_32_actions_of_33_frames_survive() -> None:
    """Pitfall 34: `linspace` kept 5 of 32 actions; here every one is in the block of the frame that it led to."""
    arrays = episode(32)
    blocks = to_blocks(**arrays, stride=STRIDE)
    assert blocks.action.shape == (5, 16)
    assert blocks.action_valid.tolist() == [False, True, True, True, True]
    assert np.array_equal(blocks.action[1:].reshape(32, 2), arrays["actions"])
    picked = np.linspace(0, 31, 5).round().astype(int)  # the naive way: one action for each latent
    assert len(np.unique(blocks.action[1:, 0::2])) == 32 > len(np.unique(arrays["actions"][picked, 0])) == 5
    assert blocks.reward.sum() == arrays["rewards"].sum() > arrays["rewards"][picked].sum()
    for latent in range(1, 5):
        led = [frame - 1 for frame in covered_frames(latent, STRIDE)]  # frame t was led to by action t-1
        assert np.array_equal(blocks.action[latent].reshape(STRIDE, 2), arrays["actions"][led])
        assert blocks.reward[latent] == arrays["rewards"][led].sum()


@given(st.integers(1, 60), st.integers(1, 9))
def test_counts(steps: int, stride: int) -> None:
    frames = steps + 1
    count, whole = num_latents(frames, stride), num_whole_latents(frames, stride)
    covered = [frame for latent in range(count) for frame in covered_frames(latent, stride)]
    assert covered == list(range(len(covered)))
    assert len(covered) - stride < frames <= len(covered)
    assert max(covered_frames(whole - 1, stride)) < frames
    assert whole == count or max(covered_frames(whole, stride)) >= frames


@given(st.integers(1, 40), st.integers(1, 9), st.data())
def test_what_happened_at_t_is_in_one_block_only(steps: int, stride: int, data: st.DataObject) -> None:
    """Pitfalls 16, 29, 34: perturbing step t changes the block that covers frame t+1 and no other."""
    t, arrays = data.draw(st.integers(0, steps - 1)), episode(steps)
    before = to_blocks(**arrays, stride=stride)
    block = next(i for i in range(num_latents(steps + 1, stride)) if t + 1 in covered_frames(i, stride))
    for name, field, value in (
        ("actions", "action", -9.0),
        ("rewards", "reward", 0.5),
        ("terminals", "terminal", True),
    ):
        changed = arrays | {name: arrays[name].copy()}
        changed[name][t] = value
        if name == "terminals":
            changed[name][-1] = t == steps - 1
        after = to_blocks(**changed, stride=stride)
        for other in Blocks.__annotations__:
            same = (getattr(before, other) == getattr(after, other)).reshape(len(before.first), -1).all(axis=1)
            moved = set(np.flatnonzero(~same))
            allowed = {block} if name != "terminals" else {block, len(before.first) - 1}
            assert moved <= (allowed if other == field else set())
            if other == field == "reward":
                assert moved == {block}
            if other == field == "action":
                assert moved == ({block} if before.action_valid[block] else set())


@given(st.integers(1, 60), st.integers(1, 9), st.lists(st.booleans(), min_size=60, max_size=60))
def test_sums_are_kept_and_masked_actions_leave_no_trace(steps: int, stride: int, known: list[bool]) -> None:
    """Pitfall 18: a block with an unknown action shows none of its actions; rewards do not depend on that."""
    arrays = episode(steps) | {"action_valid": np.array(known[:steps])}
    blocks = to_blocks(**arrays, stride=stride)
    assert blocks.reward.sum() == arrays["rewards"].sum()
    assert blocks.terminal.sum() == 1
    assert not blocks.action[~blocks.action_valid].any()
    for latent in range(1, len(blocks.first)):
        led = [frame - 1 for frame in covered_frames(latent, stride)]
        whole = led[-1] < steps
        assert blocks.action_valid[latent] == (whole and arrays["action_valid"][led].all())
        if blocks.action_valid[latent]:
            assert np.array_equal(blocks.action[latent].reshape(stride, 2), arrays["actions"][led])


@pytest.mark.parametrize("steps", [1, 5, 12])
def test_stride_one_is_the_plain_case(steps: int) -> None:
    plain, strided = to_blocks(**episode(steps)), to_blocks(**episode(steps), stride=1)
    for name in Blocks.__annotations__:
        assert np.array_equal(getattr(plain, name), getattr(strided, name))
    assert np.array_equal(plain.action[1:], episode(steps)["actions"])
