"""Losses of the heads ([D4] Eq. 9): behaviour cloning, reward and continue, each over all multi-token distances.

Shapes: B batch, T time steps, L mtp_length, K action logits, N two-hot buckets, A action width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ahriuwu_cli.agent.distribution import ActionChoices, ActionDistribution, binary_loss
from ahriuwu_cli.agent.occupancy import occupancy
from ahriuwu_cli.episodes.alignment import POLICY_OFFSET, REWARD_OFFSET, mtp_index
from ahriuwu_cli.nn.twohot import TwoHot


def gather_targets(values: Tensor, known: Tensor, length: int, mtp_length: int, offset: int) -> tuple[Tensor, Tensor]:
    """Multi-token targets of a window (index arithmetic of episodes/alignment.py on tensors).

    Args:
        values: (B, F, ...) per block; known: (B, F) bool.
        length: T, blocks that predict; mtp_length: L; offset: POLICY_OFFSET or REWARD_OFFSET.

    Returns:
        (B, T, L, ...) targets and (B, T, L) bool, False where the target is missing or not known.
    """
    index, present = mtp_index(length, mtp_length, offset, values.shape[1])
    places = torch.from_numpy(np.ascontiguousarray(index)).to(values.device)
    exists = torch.from_numpy(present).to(values.device)
    return values[:, places], known[:, places] & exists


def cloning_loss(
    choices: ActionChoices, logits: Tensor, action: Tensor, action_valid: Tensor, weight: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """-ln p(a_{t+n} | h_t), averaged over what is known.

    Args:
        choices: action logits' meaning.
        logits: (B, T, L, K).
        action: (B, F, A) block actions; action_valid: (B, F).
        weight: (B, T) bool, blocks that count.

    Returns:
        Loss and metrics: accuracy of the most likely action at distance 0, on all steps and on steps where the
        action differs from the one before, and the score of repeating the last action.
    """
    length, distances = logits.shape[1:3]
    target, known = gather_targets(action, action_valid, length, distances, POLICY_OFFSET)
    counted = known & weight[:, :, None]  # (B, T, L)
    distribution = ActionDistribution(choices, logits)
    safe = torch.where(counted[..., None], target, torch.zeros_like(target))
    loss = _mean_where(-distribution.log_prob(safe), counted)  # [D4] Eq. 9
    now = counted[:, :, 0]
    taken, before = choices.quantise(target[:, :, 0]), choices.quantise(action[:, :length])  # (B, T, A)
    right = (ActionDistribution(choices, logits[:, :, 0]).mode() == taken).all(dim=-1)
    repeated = (before == taken).all(dim=-1)
    changed = now & ~repeated & action_valid[:, :length]
    metrics = {
        "policy_loss": loss.detach(),
        "policy_accuracy": _measure(right.float(), now),
        "policy_accuracy_on_changes": _measure(right.float(), changed),
        "repeat_last_accuracy": _measure(repeated.float(), now & action_valid[:, :length]),
    }
    return loss, metrics


def reward_loss(
    twohot: TwoHot, logits: Tensor, reward: Tensor, reward_valid: Tensor, weight: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """-ln p(r_{t+n} | h_t): logits (B, T, L, N), reward (B, F), reward_valid (B, F), weight (B, T) bool.

    Metrics: mean prediction where there was a reward and where there was none; occupancy of the two-hot.
    """
    length, distances = logits.shape[1:3]
    target, known = gather_targets(reward, reward_valid, length, distances, REWARD_OFFSET)
    counted = known & weight[:, :, None]
    loss = _mean_where(twohot.loss(logits, target), counted)  # [D4] Eq. 9
    guess = twohot.mean(logits[:, :, 0].detach())
    now, some = counted[:, :, 0], target[:, :, 0] != 0
    metrics = {
        "reward_loss": loss.detach(),
        "reward_where_some": _measure(guess, now & some),
        "reward_where_none": _measure(guess, now & ~some),
        **occupancy("reward", twohot, logits, target, counted),
    }
    return loss, metrics


def alive_loss(
    logits: Tensor, terminal: Tensor, reward_valid: Tensor, weight: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Bernoulli loss of the continue head: logits (B, T, L, 1), terminal (B, F), reward_valid (B, F), weight (B, T).

    Metrics: mean probability of going on where the game ended and where it did not.
    """
    length, distances = logits.shape[1:3]
    target, known = gather_targets(~terminal, reward_valid, length, distances, REWARD_OFFSET)
    counted = known & weight[:, :, None]
    loss = _mean_where(binary_loss(logits[..., 0], target), counted)
    guess, now = torch.sigmoid(logits[:, :, 0, 0].detach()), counted[:, :, 0]
    metrics = {
        "continue_loss": loss.detach(),
        "continue_where_ended": _measure(guess, now & ~target[:, :, 0]),
        "continue_where_not": _measure(guess, now & target[:, :, 0]),
    }
    return loss, metrics


def _mean_where(value: Tensor, chosen: Tensor) -> Tensor:
    """Mean over chosen entries; zero with zero gradient when there is none."""
    return torch.where(chosen, value, torch.zeros_like(value)).sum() / chosen.sum().clamp_min(1)


def _measure(value: Tensor, chosen: Tensor) -> Tensor:
    """Mean over chosen entries for a metric; NaN, which is not logged, when there is none."""
    return torch.where(chosen, value.detach(), torch.zeros_like(value)).sum() / chosen.sum()
