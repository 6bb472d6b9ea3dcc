"""Losses of the heads, their targets and their metrics, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ahriuwu_cli.agent.distribution import ActionChoices
from ahriuwu_cli.agent.objective import alive_loss, cloning_loss, gather_targets, reward_loss
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.episodes.alignment import (
    POLICY_OFFSET,
    REWARD_OFFSET,
    policy_targets,
    reward_targets,
    to_blocks,
)
from ahriuwu_cli.nn.twohot import TwoHot

BUTTON = ActionChoices(ActionSpec(components=(ActionComponent(name="a", type="categorical", num_classes=3),)), 5)


def preferring(*actions: int) -> Tensor:
    """Logits (1, T, 1, 3) whose most likely action at each block is the given one: 2 for it, 0 for the others."""
    return torch.nn.functional.one_hot(torch.tensor(actions), 3).float()[None, :, None] * 2


def blocks_of(*actions: int) -> tuple[Tensor, Tensor]:
    """Block actions (1, F, 1) and validity (1, F) of an episode in which these actions were taken."""
    steps = len(actions)
    blocks = to_blocks(
        actions=np.array(actions, np.float32)[:, None],
        action_valid=np.ones(steps, bool),
        rewards=np.zeros(steps),
        terminals=np.zeros(steps, bool),
    )
    return torch.from_numpy(blocks.action)[None], torch.from_numpy(blocks.action_valid)[None]


# ---------------------------------------------------------------- targets


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 5), st.integers(0, 9))
def test_targets_are_those_of_the_alignment(length, distances, lookahead, seed):
    rng = np.random.default_rng(seed)
    blocks = length + lookahead
    action, reward = rng.normal(size=(2, blocks, 3)).astype(np.float32), rng.normal(size=(2, blocks))
    valid = rng.random((2, blocks)) < 0.7
    for offset, values, expected in (
        (POLICY_OFFSET, action, policy_targets(action, valid, length, distances)),
        (REWARD_OFFSET, reward, reward_targets(reward, valid, length, distances)),
    ):
        target, known = gather_targets(torch.from_numpy(values), torch.from_numpy(valid), length, distances, offset)
        assert torch.equal(known, torch.from_numpy(expected[1]))
        assert np.array_equal(target.numpy()[expected[1]], expected[0][expected[1]])


# ---------------------------------------------------------------- behaviour cloning


def test_cloning_by_hand():
    """Pitfall 16: accuracy on changes and the repeat-last baseline are shown beside the accuracy."""
    action, valid = blocks_of(1, 1, 2, 0)  # taken on seeing frames 0..3
    logits = preferring(1, 1, 1, 0)  # wrong at frame 2
    loss, metrics = cloning_loss(BUTTON, logits, action, valid, torch.ones(1, 4, dtype=torch.bool))
    right, wrong = math.log(math.exp(2) + 2) - 2, math.log(math.exp(2) + 2)
    assert loss.item() == pytest.approx((3 * right + wrong) / 4)
    assert metrics["policy_loss"].item() == pytest.approx(loss.item())
    assert metrics["policy_accuracy"].item() == pytest.approx(3 / 4)
    assert metrics["policy_accuracy_on_changes"].item() == pytest.approx(1 / 2)  # frames 2 (wrong) and 3 (right)
    assert metrics["repeat_last_accuracy"].item() == pytest.approx(1 / 3)  # frames 1, 2, 3; frame 0 has no last action


def test_copying_the_last_action_shows():
    """Pitfall 16: a policy that repeats scores high on all steps and nothing on changes."""
    action, valid = blocks_of(2, 2, 2, 2, 0, 0, 0, 0)
    _, metrics = cloning_loss(
        BUTTON, preferring(2, 2, 2, 2, 2, 0, 0, 0), action, valid, torch.ones(1, 8, dtype=torch.bool)
    )
    assert metrics["policy_accuracy"].item() == pytest.approx(7 / 8)
    assert metrics["repeat_last_accuracy"].item() == pytest.approx(6 / 7)
    assert metrics["policy_accuracy_on_changes"].item() == 0


def test_only_known_targets_of_weighted_blocks_count():
    action, valid = blocks_of(1, 1, 2, 0)
    logits = preferring(1, 1, 1, 0)
    valid[0, 3] = False  # action 2 is not known
    weight = torch.tensor([[True, True, True, False]])
    loss, metrics = cloning_loss(BUTTON, logits, action, valid, weight)
    assert loss.item() == pytest.approx(math.log(math.exp(2) + 2) - 2)  # blocks 0 and 1, both right
    assert metrics["policy_accuracy"].item() == 1
    assert math.isnan(metrics["policy_accuracy_on_changes"])
    garbage = action.clone()
    garbage[0, 3] = float("nan")
    assert torch.equal(cloning_loss(BUTTON, logits, garbage, valid, weight)[0], loss)


def test_multi_token_distances_by_hand():
    action, valid = blocks_of(1, 1, 2)
    logits = torch.cat([preferring(1, 1), preferring(0, 2), preferring(2, 0)], dim=2)  # (1, T=2, L=3, 3)
    # block 0: n = 0 is 1 (right), n = 1 is 1 (said 0), n = 2 is 2 (right); block 1: 1 (right), 2 (right), none
    loss, _ = cloning_loss(BUTTON, logits, action, valid, torch.ones(1, 2, dtype=torch.bool))
    right, wrong = math.log(math.exp(2) + 2) - 2, math.log(math.exp(2) + 2)
    assert loss.item() == pytest.approx((4 * right + wrong) / 5)


def test_without_anything_to_clone_the_loss_is_zero_with_zero_gradient():
    action, valid = blocks_of(1, 1, 2)
    logits = preferring(1, 1).requires_grad_()
    loss, metrics = cloning_loss(BUTTON, logits, action, torch.zeros_like(valid), torch.ones(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss == 0 and not logits.grad.any()
    assert math.isnan(metrics["policy_accuracy"])


def test_continuous_actions_are_right_when_their_nearest_choice_is():
    choices = ActionChoices(
        ActionSpec(components=(ActionComponent(name="a", type="continuous", low=0.0, high=1.0),)), 3
    )  # 0, 0.5, 1
    action = torch.tensor([[[0.0], [0.45], [0.55], [0.9]]])
    valid = torch.ones(1, 4, dtype=torch.bool)
    logits = torch.nn.functional.one_hot(torch.tensor([1, 1, 1]), 3).float()[None, :, None]
    _, metrics = cloning_loss(choices, logits, action, valid, torch.ones(1, 3, dtype=torch.bool))
    assert metrics["policy_accuracy"].item() == pytest.approx(2 / 3)
    assert metrics["repeat_last_accuracy"].item() == pytest.approx(1 / 3)  # 0.45 and 0.55 are one choice


# ---------------------------------------------------------------- reward and continue


def test_reward_by_hand():
    """Pitfall 23: how many buckets are in use is reported."""
    twohot = TwoHot(5, math.log(3))  # buckets -2, 1 - sqrt(3), 0, sqrt(3) - 1, 2
    reward, known = torch.tensor([[9.0, 0.0, 1.0, 2.0]]), torch.tensor([[False, True, True, True]])
    logits = torch.zeros(1, 4, 1, 5)
    logits[0, 2, 0, 4] = 50.0  # block 2 says 2
    everywhere = torch.ones(1, 4, dtype=torch.bool)
    loss, metrics = reward_loss(twohot, logits, reward, known, everywhere)
    low = math.sqrt(3) - 1
    missed = 50 * (1 - (1 - low) / (2 - low))  # cross-entropy of block 2: all but the weight of bucket 2
    assert loss.item() == pytest.approx((2 * math.log(5) + missed) / 3, rel=1e-5)
    assert metrics["reward_where_some"].item() == pytest.approx(1.0, abs=1e-5)  # (2 + 0) / 2 at blocks 2 and 3
    assert metrics["reward_where_none"].item() == pytest.approx(0.0, abs=1e-5)
    assert metrics["reward_buckets_used"].item() == 3  # 0; 1 between the last two; 2
    _, metrics = reward_loss(twohot, logits, reward, known, torch.tensor([[True, True, False, False]]))
    assert metrics["reward_buckets_used"].item() == 1
    assert math.isnan(metrics["reward_where_some"])
    _, metrics = reward_loss(twohot, logits, reward, known, torch.zeros_like(everywhere))
    assert metrics["reward_buckets_used"].item() == 0


def test_reward_at_distance_n_is_that_of_frame_t_plus_n():
    """Pitfall 29: the reward read at block t is the one that arrived with frame t."""
    twohot = TwoHot(41, 5.0)
    reward, known = torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.tensor([[False, True, True, True]])
    exact = torch.stack([reward[0, :3], reward[0, 1:]], dim=-1)  # (T=3, L=2): frames t and t+1
    losses = []
    for shift in (0.0, 1.0):
        logits = (twohot.encode(exact + shift) + 1e-9).log()[None]
        losses.append(reward_loss(twohot, logits, reward, known, torch.ones(1, 3, dtype=torch.bool))[0].item())
    assert losses[0] < 1 < losses[1]  # two neighbouring buckets leave less than ln 2


def test_continue_by_hand():
    terminal = torch.tensor([[False, False, True, False]])  # the last block is padding
    known = torch.tensor([[False, True, True, False]])
    logits = torch.tensor([5.0, 2.0, 1.0, 5.0])[None, :, None, None]
    loss, metrics = alive_loss(logits, terminal, known, torch.ones(1, 4, dtype=torch.bool))
    assert loss.item() == pytest.approx((math.log1p(math.exp(-2)) + 1 + math.log1p(math.exp(-1))) / 2)
    assert metrics["continue_where_ended"].item() == pytest.approx(1 / (1 + math.exp(-1)))
    assert metrics["continue_where_not"].item() == pytest.approx(1 / (1 + math.exp(-2)))


def test_every_loss_has_a_gradient_at_every_distance():
    """Pitfalls 2 and 28."""
    length, distances = 4, 3
    known, weight = torch.ones(2, 7, dtype=torch.bool), torch.ones(2, length, dtype=torch.bool)
    torch.manual_seed(0)
    for width, run in (
        (3, lambda x: cloning_loss(BUTTON, x, torch.randint(0, 3, (2, 7, 1)).float(), known, weight)[0]),
        (41, lambda x: reward_loss(TwoHot(41, 5.0), x, torch.randn(2, 7), known, weight)[0]),
        (1, lambda x: alive_loss(x, torch.rand(2, 7) < 0.5, known, weight)[0]),
    ):
        logits = torch.randn(2, length, distances, width, requires_grad=True)
        run(logits).backward()
        assert (logits.grad.abs().sum(dim=-1) > 0).all()
