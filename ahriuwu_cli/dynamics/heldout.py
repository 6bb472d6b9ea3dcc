"""How well a world model denoises held-out windows, and whether it listens to the actions in them.

Shapes: B windows, T frames per window, N latent tokens, C channels, A action width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ahriuwu_cli.core.training.heldout import HELDOUT_SEED
from ahriuwu_cli.core.training.stage import Goal
from ahriuwu_cli.dynamics.model import DynamicsModel, Prediction
from ahriuwu_cli.dynamics.shortcut_forcing import corrupt, snap
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows

Draw = Callable[[Tensor, int, torch.Generator], Tensor]
"""(valid (B, T), k_max, generator) -> tau (B, T)."""

GOAL = Goal("heldout_flow")
"""What says how far a world has come; see `HeldoutWorld.judge`."""


class HeldoutWorld:
    """The x-space error at d_min of held-out windows, with the same signal levels and noise every time.

    Args:
        windows: of the held-out split.
        count: B.
        length: T.
        rows: windows in one pass.
        tau_context: signal level at which the sampler shows past frames.
    """

    def __init__(self, windows: LatentWindows, count: int, length: int, rows: int, tau_context: float) -> None:
        places = windows.sampler.draw(np.random.default_rng(HELDOUT_SEED), count, length)
        batch = windows.read(places, length)
        # another window's actions: as likely as its own, but not what happened
        other = replace(batch, action=batch.action.roll(1, 0), action_valid=batch.action_valid.roll(1, 0))
        self._batches = {"": batch, "shuffled_": other}
        self._count, self._rows, self._tau_context = count, rows, tau_context

    def judge(self, model: DynamicsModel) -> dict[str, float]:
        """Mean squared errors of z1_hat per valid frame.

        `heldout_flow`: tau uniform for every frame, which is mostly denoising of what is half seen.
        `heldout_next`: what a dream asks for, a window's last frame at tau = 0 after others at the context's level;
        absent where every window reaches past its episode's end.
        `heldout_shuffled_flow`, `heldout_shuffled_next`: with the actions of other windows; no larger where the model
        does not listen to actions.
        """
        found = {}
        for name, batch in self._batches.items():
            found[f"heldout_{name}flow"] = self._flow(model, batch)
            last = torch.zeros_like(batch.valid)
            last[:, -1] = batch.valid[:, -1]
            if last.any():
                found[f"heldout_{name}next"] = self._error(model, batch, self._dreamt, last)
        return found

    def flow(self, model: DynamicsModel) -> float:
        """`heldout_flow` alone."""
        return self._flow(model, self._batches[""])

    def _flow(self, model: DynamicsModel, batch: LatentBatch) -> float:
        return self._error(model, batch, self._uniform, batch.valid)

    def _error(self, model: DynamicsModel, batch: LatentBatch, draw: Draw, counted: Tensor) -> float:
        """The mean over the frames that are `counted` (B, T)."""
        noise, levels = fixed_generator(), fixed_generator()
        total = torch.zeros(())
        for start in range(0, self._count, self._rows):
            chosen = slice(start, start + self._rows)
            part = batch.rows(chosen).to(model.latent_mean.device)
            tau = draw(part.valid, model.config.k_max, levels)
            total += (_errors(model, part, tau, noise).cpu() * counted[chosen]).sum()
        return total.item() / int(counted.sum())

    @staticmethod
    def _uniform(valid: Tensor, k_max: int, levels: torch.Generator) -> Tensor:
        """Tau (B, T) uniform on the grid, row by row."""
        rows = [torch.randint(0, k_max, valid.shape[1:], generator=levels) for _ in valid]
        return (torch.stack(rows) / k_max).to(valid.device)

    def _dreamt(self, valid: Tensor, k_max: int, levels: torch.Generator) -> Tensor:
        """Tau (B, T) of the context, and 0 in the last frame."""
        del levels
        tau = torch.full(valid.shape, snap(self._tau_context, k_max), device=valid.device)
        tau[:, -1] = 0.0
        return tau


def fixed_generator() -> torch.Generator:
    """A generator (CPU) that draws the same every time."""
    return torch.Generator().manual_seed(HELDOUT_SEED)


def draw_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers (B, ...), row by row: the same for a window however many go through in one pass."""
    return torch.stack([torch.randn(like.shape[1:], generator=generator) for _ in like]).to(like.device)


def _errors(model: DynamicsModel, batch: LatentBatch, tau: Tensor, generator: torch.Generator) -> Tensor:
    """Squared x-space error of every frame (B, T) at signal levels tau (B, T)."""
    z1, noise = model.normalise(batch.latents), draw_noise(batch.latents, generator)  # (B, T, N, C)
    d_min = torch.full_like(tau, 1 / model.config.k_max)
    length = tau.shape[1]
    action, known = batch.action[:, :length], batch.action_valid[:, :length]
    out: Prediction = model(corrupt(z1, noise, tau), tau, d_min, action, known)
    return (out.z1_hat.float() - z1).square().mean(dim=(-1, -2))
