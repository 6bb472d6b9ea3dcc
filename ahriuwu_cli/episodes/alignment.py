"""The one place where frames, actions and rewards are aligned: blocks, multi-token targets, live play.

Shapes: T steps, F = T + 1 frames, A = ActionSpec.dim, L = mtp_length, W = window length in blocks.

What the store holds (Gymnasium):   frame 0, action 0 -> reward 0, terminal 0, frame 1, action 1 -> ...
What block t holds:                 frame t and what led to it: action t-1, reward t-1, terminal t-1.
Block 0 was led to by nothing:      its action, reward and terminal are zero and not valid.

    store     frames[0]  actions[0]  frames[1]  actions[1]  frames[2]
                         rewards[0]             rewards[1]
    blocks    [ block 0 ][        block 1      ][       block 2      ]

From block t the policy at distance n predicts actions[t+n], which block t+n+1 holds (block t does not
hold actions[t]); the reward at distance n is the one that arrived with frame t+n, which block t+n holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

POLICY_OFFSET = 1  # block that holds the action predicted from block t at distance 0, less t
REWARD_OFFSET = 0  # block that holds the reward predicted from block t at distance 0, less t


@dataclass(frozen=True)
class Blocks:
    """What led to each frame of one episode; everything has length F.

    Attributes:
        action: (F, A) float32, actions[t-1]; zero where not valid, so that no masked action leaves a trace.
        action_valid: (F,) bool, False at t = 0 and where the action is not known.
        reward: (F,) float32, rewards[t-1]; zero at t = 0.
        reward_valid: (F,) bool, False at t = 0 only.
        terminal: (F,) bool, terminals[t-1]: the game ended on reaching this frame.
        first: (F,) bool, True at t = 0 only.
    """

    action: np.ndarray
    action_valid: np.ndarray
    reward: np.ndarray
    reward_valid: np.ndarray
    terminal: np.ndarray
    first: np.ndarray


def to_blocks(*, actions: np.ndarray, action_valid: np.ndarray, rewards: np.ndarray, terminals: np.ndarray) -> Blocks:
    """Align one episode: actions (T, A), action_valid (T,), rewards (T,), terminals (T,) -> blocks of F = T + 1."""
    steps = len(actions)
    assert len(action_valid) == len(rewards) == len(terminals) == steps
    action = np.zeros((steps + 1, actions.shape[1]), np.float32)  # (F, A)
    action[1:] = np.where(action_valid[:, None], actions, 0)
    first = np.zeros(steps + 1, bool)  # (F,)
    first[0] = True
    return Blocks(
        action=action,
        action_valid=np.concatenate([[False], action_valid.astype(bool)]),
        reward=np.concatenate([[0], rewards]).astype(np.float32),
        reward_valid=~first,
        terminal=np.concatenate([[False], terminals.astype(bool)]),
        first=first,
    )


def live_action(previous: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the action part of the block of the frame just seen, while playing.

    Args:
        previous: (N, A) float32, what each environment was given last.
        first: (N,) bool, environments that have just begun an episode.

    Returns:
        action (N, A) float32, zero where first; action_valid (N,) bool, False where first.
    """
    return np.where(first[:, None], 0, previous).astype(np.float32), ~first


def policy_target_index(t: int, n: int) -> int:
    """Block whose action is actions[t+n], the one that block t's policy predicts at distance n."""
    return t + n + POLICY_OFFSET


def reward_target_index(t: int, n: int) -> int:
    """Block whose reward arrived with frame t+n, the one that block t's reward head predicts at distance n."""
    return t + n + REWARD_OFFSET


def mtp_index(length: int, mtp_length: int, offset: int, available: int) -> tuple[np.ndarray, np.ndarray]:
    """Which block holds the target of block t at distance n, for t < length and n < mtp_length.

    Args:
        length: W, blocks that predict.
        mtp_length: L, distances.
        offset: POLICY_OFFSET or REWARD_OFFSET.
        available: blocks there are to take targets from (at least W; W + L - 1 + offset leaves none missing).

    Returns:
        index (W, L) int64, kept below `available`; present (W, L) bool, False where the block is missing.
    """
    index = np.arange(length)[:, None] + np.arange(mtp_length)[None, :] + offset  # (W, L)
    return np.minimum(index, available - 1), index < available


def mtp_targets(values: np.ndarray, length: int, mtp_length: int, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """Gather multi-token targets from the blocks of a window and those after it.

    Args:
        values: (..., F_plus, C), values of block 0 .. F_plus-1 of the window.
        length: W, the window's predicting blocks.
        mtp_length: L.
        offset: POLICY_OFFSET or REWARD_OFFSET.

    Returns:
        targets (..., W, L, C), zero where missing; present (W, L) bool.
    """
    index, present = mtp_index(length, mtp_length, offset, values.shape[-2])
    gathered = values[..., index, :]  # (..., W, L, C)
    return np.where(present[..., None], gathered, np.zeros((), values.dtype)), present


def policy_targets(
    action: np.ndarray, action_valid: np.ndarray, length: int, mtp_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Actions that each block predicts: block actions (..., F_plus, A), action_valid (..., F_plus).

    Returns:
        targets (..., W, L, A) with [t, n] = actions[t+n]; valid (..., W, L) bool.
    """
    targets, present = mtp_targets(action, length, mtp_length, POLICY_OFFSET)
    known, _ = mtp_targets(action_valid[..., None], length, mtp_length, POLICY_OFFSET)
    return targets, known[..., 0] & present


def reward_targets(
    reward: np.ndarray, reward_valid: np.ndarray, length: int, mtp_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards (or terminals) that each block predicts: (..., F_plus) and reward_valid (..., F_plus).

    Returns:
        targets (..., W, L) with [t, n] = what arrived with frame t+n; valid (..., W, L) bool.
    """
    targets, present = mtp_targets(reward[..., None], length, mtp_length, REWARD_OFFSET)
    known, _ = mtp_targets(reward_valid[..., None], length, mtp_length, REWARD_OFFSET)
    return targets[..., 0], known[..., 0] & present
