"""How well a world model denoises held-out windows, and whether it listens to the actions in them.

Shapes: B windows, T frames per window, N latent tokens, C channels, A action width.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ahriuwu_cli.core.training.heldout import HELDOUT_SEED
from ahriuwu_cli.core.training.stage import Goal
from ahriuwu_cli.dynamics.model import DynamicsModel, Prediction
from ahriuwu_cli.dynamics.shortcut_forcing import corrupt
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows

GOAL = Goal("heldout_flow")
"""What says how far a world has come; see `HeldoutWorld.judge`."""


class HeldoutWorld:
    """The x-space error at d_min of held-out windows, with the same signal levels and noise every time.

    Args:
        windows: of the held-out split.
        count: B.
        length: T.
        rows: windows in one pass.
    """

    def __init__(self, windows: LatentWindows, count: int, length: int, rows: int) -> None:
        batch = windows.draw(np.random.default_rng(HELDOUT_SEED), count, length)
        # another window's actions: as likely as its own, but not what happened
        other = replace(batch, action=batch.action.roll(1, 0), action_valid=batch.action_valid.roll(1, 0))
        self._batches = {"heldout_flow": batch, "heldout_shuffled_flow": other}
        self._count, self._rows = count, rows

    def judge(self, model: DynamicsModel) -> dict[str, float]:
        """`heldout_flow`: mean squared error of z1_hat per valid frame, tau uniform for every frame.

        `heldout_shuffled_flow` is the same with the actions of other windows: no larger where the model does not listen
        to actions.
        """
        return {name: self._error(model, batch) for name, batch in self._batches.items()}

    def _error(self, model: DynamicsModel, batch: LatentBatch) -> float:
        generator, levels = fixed_generator(), fixed_generator()
        total, frames = torch.zeros(()), int(batch.valid.sum())
        for start in range(0, self._count, self._rows):
            part = batch.rows(slice(start, start + self._rows)).to(model.latent_mean.device)
            total += (_errors(model, part, generator, levels) * part.valid).sum().cpu()
        return total.item() / frames


def fixed_generator() -> torch.Generator:
    """A generator (CPU) that draws the same every time."""
    return torch.Generator().manual_seed(HELDOUT_SEED)


def draw_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers (B, ...), row by row: the same for a window however many go through in one pass."""
    return torch.stack([torch.randn(like.shape[1:], generator=generator) for _ in like]).to(like.device)


def _errors(model: DynamicsModel, batch: LatentBatch, generator: torch.Generator, levels: torch.Generator) -> Tensor:
    """Squared x-space error of every frame (B, T)."""
    z1, k_max = model.normalise(batch.latents), model.config.k_max  # (B, T, N, C)
    tau = torch.stack([torch.randint(0, k_max, batch.valid.shape[1:], generator=levels) for _ in z1]) / k_max
    tau, noise = tau.to(z1.device), draw_noise(z1, generator)
    d_min = torch.full_like(tau, 1 / k_max)
    length = tau.shape[1]
    action, known = batch.action[:, :length], batch.action_valid[:, :length]
    out: Prediction = model(corrupt(z1, noise, tau), tau, d_min, action, known)
    return (out.z1_hat.float() - z1).square().mean(dim=(-1, -2))
