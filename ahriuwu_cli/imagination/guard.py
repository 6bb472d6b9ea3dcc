"""Guards against exploitation: imagined steps that leave what the data shows, found and counted.

Shapes: B rollouts, H horizon, W windows, T frames per window, N latent tokens, E channels per token.

A policy that learns in a dream finds the places where the dream is wrong in its favour. Three signs tell them: a
reward read-out that no recorded reward comes near, latents of a size that no recorded frame has, and frames that come
out otherwise with twice the Euler steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ahriuwu_cli.dynamics.model import DynamicsModel
from ahriuwu_cli.imagination.config import GuardSection
from ahriuwu_cli.imagination.objective import from_first
from ahriuwu_cli.imagination.rollout import Rollout, frame_size
from ahriuwu_cli.latents.places import Place
from ahriuwu_cli.latents.windows import LatentWindows

GUARD_STREAM = 0x6A2D
"""Keeps the windows that are measured apart from everything else that a run's seed decides."""
CHUNK = 8
"""Windows measured at once."""


@dataclass(frozen=True)
class Range:
    """Least and largest of some recorded numbers."""

    low: float
    high: float

    def widened(self, margin: float) -> Range:
        """The range with `margin` times its width more at both ends.

        Decision: numbers that are all alike count as a range as wide as they are large, and zeros as one of width 1.
        """
        width = self.high - self.low or abs(self.high) or 1.0
        return Range(self.low - margin * width, self.high + margin * width)

    def excludes(self, x: Tensor) -> Tensor:
        """(...) -> (...) bool, True outside; what is no number is outside."""
        return ~((x >= self.low) & (x <= self.high))


@dataclass(frozen=True)
class Outside:
    """Where rollouts leave the data, at the frame that action t led to: (B, H) bool each.

    Attributes:
        reward: the reward read-out is beyond recorded rewards.
        latent: the latents are larger or smaller than recorded ones.
        steps: K and 2 K Euler steps disagree too much; False where that was not measured.
        disagreement: (B, H), by how much; NaN where it was not measured, None where nowhere.
    """

    reward: Tensor
    latent: Tensor
    steps: Tensor
    disagreement: Tensor | None = None

    def cut(self) -> Tensor:
        """(B, H) bool: decisions whose next frame is outside by any sign, and all after them."""
        return from_first(self.reward | self.latent | self.steps)

    def shares(self, weight: Tensor) -> dict[str, Tensor]:
        """Metrics: the share of imagined steps outside, by sign and by any, where steps count by `weight` (B, H).

        Where it was measured also the mean `disagreement`, and `outside_steps` as a share of the steps measured.
        """
        total = weight.sum()
        found = {
            "outside": ((self.reward | self.latent | self.steps) * weight).sum() / total,
            "outside_reward": (self.reward * weight).sum() / total,
            "outside_latent": (self.latent * weight).sum() / total,
        }
        if self.disagreement is None:
            return found
        measured = weight * ~self.disagreement.isnan()
        mean = (self.disagreement.nan_to_num() * measured).sum() / measured.sum()
        return {**found, "outside_steps": (self.steps * measured).sum() / measured.sum(), "disagreement": mean}


class Guard:
    """What recorded data looks like, and which imagined steps do not.

    Args:
        settings: the margins.
        reward: recorded rewards.
        sizes: recorded frame sizes (see `frame_size`): root mean square and largest absolute value.
    """

    def __init__(self, settings: GuardSection, reward: Range, sizes: tuple[Range, Range]) -> None:
        self._limit = settings.disagreement_limit
        self._reward = reward.widened(settings.reward_margin)
        self._sizes = [size.widened(settings.latent_margin) for size in sizes]

    @classmethod
    def of(
        cls, settings: GuardSection, windows: LatentWindows, world: DynamicsModel, length: int, *, seed: int
    ) -> Guard:
        """Measure the recorded data: all its rewards, and the latents of some windows of `length` frames."""
        sizes = size_ranges(settings.recorded_windows, windows, world, length, seed)
        return cls(settings, reward_range(windows), sizes)

    def judge(self, rollout: Rollout) -> Outside:
        """Look at every imagined step; a sign that the rollout says nothing about is absent."""
        nowhere = torch.zeros_like(rollout.reward, dtype=torch.bool)
        latent, steps = nowhere, nowhere
        if rollout.size is not None:
            latent = self._sizes[0].excludes(rollout.size[..., 0]) | self._sizes[1].excludes(rollout.size[..., 1])
        if rollout.disagreement is not None:
            steps = rollout.disagreement > self._limit
        return Outside(self._reward.excludes(rollout.reward), latent, steps, rollout.disagreement)


def reward_range(windows: LatentWindows) -> Range:
    """Least and largest reward of a split, those of its tasks; zero where nothing is known."""
    low, high = math.inf, -math.inf
    for index, episode in enumerate(windows.episodes):
        tasks = windows.tasks_of(index)
        blocks = windows.read([Place(index, 0, task) for task in tasks], 1, episode.num_latents - 1)
        known = blocks.reward[blocks.reward_valid]
        if len(known):
            low, high = min(low, known.min().item()), max(high, known.max().item())
    return Range(low, high) if low <= high else Range(0.0, 0.0)


@torch.no_grad()
def size_ranges(
    count: int, windows: LatentWindows, world: DynamicsModel, length: int, seed: int
) -> tuple[Range, Range]:
    """Ranges of `frame_size` over `count` random windows of `length` recorded frames, in the model's space."""
    rng = np.random.default_rng([seed, GUARD_STREAM])
    places = windows.sampler.draw_whole(rng, count, length)
    found = []
    for start in range(0, count, CHUNK):
        latents = windows.read(places[start : start + CHUNK], length).latents  # (W, T, N, E)
        found.append(frame_size(world.normalise(latents.to(world.latent_mean.device))).flatten(0, 1).cpu())
    sizes = torch.cat(found)  # (W*T, 2)
    low, high = sizes.amin(dim=0).tolist(), sizes.amax(dim=0).tolist()
    return Range(low[0], high[0]), Range(low[1], high[1])
