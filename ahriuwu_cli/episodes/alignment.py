"""The one place where frames, actions and rewards are aligned: blocks, multi-token targets, live play.

Shapes: T steps, F = T + 1 frames, A = ActionSpec.dim, S = stride (frames per latent, LatentSpec.stride),
K = 1 + ceil(T / S) blocks, L = mtp_length, W = window length in blocks.

What the store holds (Gymnasium):   frame 0, action 0 -> reward 0, terminal 0, frame 1, action 1 -> ...
What block t holds:                 frame t and what led to it: action t-1, reward t-1, terminal t-1.
Block 0 was led to by nothing:      its action, reward and terminal are zero and not valid.

    store     frames[0]  actions[0]  frames[1]  actions[1]  frames[2]
                         rewards[0]             rewards[1]
    blocks    [ block 0 ][        block 1      ][       block 2      ]

From block t the policy at distance n predicts actions[t+n], which block t+n+1 holds (block t does not
hold actions[t]); the reward at distance n is the one that arrived with frame t+n, which block t+n holds.

A tokenizer with stride S gives a latent for every S frames: latent 0 is frame 0 alone, latent i covers frames
S(i-1)+1 .. Si. Block i then holds latent i and what led to exactly those S frames, in order:

    action     the S actions side by side, (S*A): the spec is ActionSpec.repeated(S)
    reward     the sum of their rewards, so that an episode's return is that of its blocks; events likewise
    terminal   whether the game ended in any of them

Decision: the last latent may reach past the episode's end (the tokenizer then saw the last frame repeated).
There is no action for such a frame, and one flag says whether a block's action is known: it is known only where
all S actions are. So the up to S-1 actions before an end that is not a multiple of S are not learned from
(a block would otherwise show made-up actions as if they had been taken); reward and terminal of that block are
real and stay valid. The same holds for a block in which one of the S actions is unlabelled.

With S = 1 all this is the plain case above, and in what follows "frame t" of a block reads "latent t".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

POLICY_OFFSET = 1  # block that holds the action predicted from block t at distance 0, less t
REWARD_OFFSET = 0  # block that holds the reward predicted from block t at distance 0, less t


@dataclass(frozen=True)
class Blocks:
    """What led to each latent of one episode; everything has length K (F where the stride is 1).

    Attributes:
        action: (K, S*A) float32, actions[t-1]; zero where not valid, so that no masked action leaves a trace.
        action_valid: (K,) bool, False at t = 0 and where an action of the block is not known.
        reward: (K,) float32, rewards[t-1] (summed over the block); zero at t = 0.
        reward_valid: (K,) bool, False at t = 0 only.
        terminal: (K,) bool, terminals[t-1]: the game ended on reaching this frame (a frame of the block).
        first: (K,) bool, True at t = 0 only.
    """

    action: np.ndarray
    action_valid: np.ndarray
    reward: np.ndarray
    reward_valid: np.ndarray
    terminal: np.ndarray
    first: np.ndarray


def num_latents(num_frames: int, stride: int) -> int:
    """K, the latents of an episode of F frames: one for frame 0, one for every S frames begun after it."""
    return 1 + math.ceil((num_frames - 1) / stride)


def num_whole_latents(num_frames: int, stride: int) -> int:
    """Latents that cover frames of the episode only; the last one may reach past its end."""
    return 1 + (num_frames - 1) // stride


def covered_frames(latent: int, stride: int) -> range:
    """Frames that one latent covers, those past the episode's end included."""
    return range(stride * (latent - 1) + 1, stride * latent + 1) if latent else range(1)


def arrived(values: np.ndarray, stride: int = 1) -> np.ndarray:
    """What came with the frames of each block: rewards or an event (T,) -> (K,) float32 sums, zero for block 0."""
    count = num_latents(len(values) + 1, stride)
    total = np.zeros(stride * (count - 1), values.dtype)
    total[: len(values)] = values
    sums = total.reshape(count - 1, stride).sum(axis=1, dtype=np.float64)  # (K-1,)
    return np.concatenate([[0], sums]).astype(np.float32)


def to_blocks(
    *, actions: np.ndarray, action_valid: np.ndarray, rewards: np.ndarray, terminals: np.ndarray, stride: int = 1
) -> Blocks:
    """Align one episode: actions (T, A), action_valid (T,), rewards (T,), terminals (T,) -> K blocks."""
    steps = len(actions)
    assert len(action_valid) == len(rewards) == len(terminals) == steps
    count = num_latents(steps + 1, stride)

    def grouped(values: np.ndarray) -> np.ndarray:
        """What led to the frames of block 1, 2, ...: (T, ...) -> (K-1, S, ...), zero past the episode's end."""
        out = np.zeros((stride * (count - 1), *values.shape[1:]), values.dtype)
        out[:steps] = values
        return out.reshape(count - 1, stride, *values.shape[1:])

    known = np.asarray(grouped(action_valid.astype(bool)).all(axis=1))  # (K-1,)
    action = np.zeros((count, stride * actions.shape[1]), np.float32)  # (K, S*A)
    action[1:] = np.where(known[:, None], grouped(actions).reshape(count - 1, stride * actions.shape[1]), 0)
    first = np.zeros(count, bool)  # (K,)
    first[0] = True
    return Blocks(
        action=action,
        action_valid=np.concatenate([[False], known]),
        reward=arrived(rewards, stride),
        reward_valid=~first,
        terminal=np.concatenate([[False], grouped(terminals.astype(bool)).any(axis=1)]),
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
