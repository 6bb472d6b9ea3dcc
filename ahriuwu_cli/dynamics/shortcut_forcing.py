"""Shortcut forcing: noise levels, corruption, and the loss ([D4] Eq. 1, 4, 7, 8).

Shapes: B batch, T time steps, N latent tokens, C channels.
tau is the signal level (0 noise, 1 clean), d the step size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor, Tensor, slice], Tensor]
"""(z_tilde, tau, d, rows) -> z1_hat for those rows of the batch."""


@dataclass(frozen=True)
class Levels:
    """Signal levels and step sizes of a batch: tau and d (B, T); rows from `num_bootstrap` on have d = d_min."""

    tau: Tensor
    d: Tensor
    num_bootstrap: int

    def rows(self, chosen: slice) -> Levels:
        """The levels of some rows."""
        return Levels(self.tau[chosen], self.d[chosen], self.num_bootstrap)


def draw_levels(batch: int, length: int, k_max: int, bootstrap_fraction: float, device: torch.device) -> Levels:
    """Draw (tau, d) independently for every time step ([D4] Eq. 4).

    d is uniform over the powers of two 1, 1/2, ..., 1/k_max in the first `bootstrap_fraction` of the rows
    and d_min in the others; tau is uniform on {0, d, ..., 1 - d}. A batch without any d_min gets one, in the first
    step of its last row: the flow loss is part of every step.
    """
    num_bootstrap = math.ceil(batch * bootstrap_fraction)
    finest = int(math.log2(k_max))
    exponent = torch.randint(0, finest + 1, (batch, length), device=device)
    row = torch.arange(batch, device=device)[:, None]
    exponent = torch.where(row < num_bootstrap, exponent, torch.full_like(exponent, finest))
    without = (exponent != finest).all()
    exponent[-1, 0] = torch.where(without, finest, exponent[-1, 0])
    d = 0.5 ** exponent.float()  # (B, T), exact powers of two
    tau = (torch.rand(batch, length, device=device) / d).floor() * d
    return Levels(tau, d, num_bootstrap)


@dataclass(frozen=True)
class Emphasis:
    """Frames whose signal level is not drawn from the grid but is one that the sampler meets.

    Decision: [D4] draws every level from the grid. A small share of those frames is then what a dream consists of, the
    next frame beside a past that is known, and a small budget ends before what an action moves is learned.

    Attributes:
        context: share of frames at `tau_context` with d_min, as past frames are shown.
        noise: share of frames at tau = 0, as the next frame begins; their d stays as it was drawn.
        tau_context: signal level, on the grid.
    """

    context: float
    noise: float
    tau_context: float

    def lay_over(self, levels: Levels, k_max: int) -> Levels:
        """The levels with these shares put in, each frame by itself; the last row's first step, flow's own, stays."""
        if not self.context + self.noise:
            return levels
        place = torch.rand(levels.tau.shape, device=levels.tau.device)
        place[-1, 0] = 1.0
        shown, blank = place < self.context, (place >= self.context) & (place < self.context + self.noise)
        tau = levels.tau.masked_fill(shown, self.tau_context).masked_fill(blank, 0.0)
        return Levels(tau, levels.d.masked_fill(shown, 1 / k_max), levels.num_bootstrap)


def corrupt(z1: Tensor, z0: Tensor, tau: Tensor) -> Tensor:
    """z_tilde = (1 - tau) z0 + tau z1 ([D4] Eq. 1); tau (B, T), the others (B, T, N, C)."""
    tau = tau[..., None, None]
    return (1 - tau) * z0 + tau * z1  # [D4] Eq. 1


def ramp(tau: Tensor) -> Tensor:
    """Loss weight that rises with the signal level ([D4] Eq. 8)."""
    return 0.9 * tau + 0.1  # [D4] Eq. 8


def snap(tau: float, k_max: int) -> float:
    """The grid value in [0, 1 - 1/k_max] nearest to tau: what the embedding can name."""
    return min(max(round(tau * k_max), 0), k_max - 1) / k_max


@dataclass(frozen=True)
class Forcing:
    """A corrupted batch and what the network should make of it.

    Attributes:
        z_tilde: (B, T, N, C) input; levels: its tau and d.
        z1: (B, T, N, C) clean latents.
        target: (B, T, N, C) x-space target: z1 where d = d_min, the bootstrap target elsewhere.
        weight: (B, T) factor on the squared x-space errors.
    """

    z_tilde: Tensor
    levels: Levels
    z1: Tensor
    target: Tensor
    weight: Tensor


def error_weight(tau: Tensor, loss_space: str, ramped: bool) -> Tensor:
    """Factor on squared x-space errors: the ramp if wanted, and 1/(1-tau)^2 where the loss is one of velocities."""
    weight = ramp(tau) if ramped else torch.ones_like(tau)
    return weight / (1 - tau).square() if loss_space == "v" else weight


def prepare(
    denoise: Denoise,
    z1: Tensor,
    z0: Tensor,
    levels: Levels,
    k_max: int,
    *,
    loss_space: str = "x",
    ramped: bool = True,
) -> Forcing:
    """Corrupt clean latents z1 (B, T, N, C) with noise z0 and find the targets ([D4] Eq. 7), without gradient."""
    z_tilde, weight = corrupt(z1, z0, levels.tau), error_weight(levels.tau, loss_space, ramped)
    if not levels.num_bootstrap:
        return Forcing(z_tilde, levels, z1, z1, weight)
    bootstrap = bootstrap_targets(denoise, z_tilde, levels, k_max)
    rows = slice(0, levels.num_bootstrap)
    coarse = is_coarse(levels.d[rows], k_max)[..., None, None]
    target = torch.cat([torch.where(coarse, bootstrap, z1[rows]), z1[levels.num_bootstrap :]], dim=0)
    return Forcing(z_tilde, levels, z1, target, weight)


def is_coarse(d: Tensor, k_max: int) -> Tensor:
    """True where d is above d_min, so that the target is a bootstrap target."""
    return d > 1.5 / k_max


@torch.no_grad()
def bootstrap_targets(denoise: Denoise, z_tilde: Tensor, levels: Levels, k_max: int) -> Tensor:
    """x-space targets of the bootstrap rows ([D4] Eq. 7): (rows, T, N, C) in fp32.

    Two half steps of size d/2 from z_tilde give b' and b''; the target of the velocity is their mean, and in
    x-space z_tilde + (1 - tau) (b' + b'') / 2. Entries with d = d_min have no half step: they stay where they are,
    as what the others see beside them, and their value is unused.
    """
    rows = slice(0, levels.num_bootstrap)
    z, tau, d = z_tilde[rows], levels.tau[rows], levels.d[rows]
    half = (d / 2).clamp_min(1 / k_max)
    step = torch.where(is_coarse(d, k_max), half, torch.zeros_like(half))
    wide = (..., None, None)
    first = (denoise(z, tau, half, rows).float() - z) / (1 - tau)[wide]  # b'
    middle = z + first * step[wide]  # z'
    tau_middle = tau + step
    second = (denoise(middle, tau_middle, half, rows).float() - middle) / (1 - tau_middle)[wide]  # b''
    return z + (1 - tau)[wide] * (first + second) / 2  # [D4] Eq. 7, in x-space


def forcing_loss(z1_hat: Tensor, forcing: Forcing, valid: Tensor, k_max: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of [D4] Eq. 7 with the ramp of Eq. 8, averaged over valid frames.

    (1-tau)^2 ||(z1_hat - z_tilde)/(1-tau) - (b'+b'')/2||^2 is the x-space error against the bootstrap target,
    so both cases are one squared error.

    Args:
        z1_hat: (B, T, N, C) the network's output for `forcing`.
        forcing: input and targets.
        valid: (B, T) bool; padding is left out.
        k_max: finest step count.

    Returns:
        The scalar loss and metrics: `flow` (where d = d_min) and `bootstrap` mean squared errors, the spread of
        the prediction and of the truth.
    """
    levels = forcing.levels
    error = (z1_hat.float() - forcing.target).square().mean(dim=(-1, -2))  # (B, T)  [D4] Eq. 7
    loss = (forcing.weight * valid * error).sum() / valid.sum().clamp_min(1)
    coarse = is_coarse(levels.d, k_max)
    metrics = {
        "flow": _measure(error, ~coarse & valid),
        "spread": z1_hat.detach().float().std(),
        "spread_reference": forcing.z1.std(),
    }
    if levels.num_bootstrap:
        metrics["bootstrap"] = _measure(error, coarse & valid)
    return loss, metrics


def _measure(value: Tensor, chosen: Tensor) -> Tensor:
    """Mean over chosen entries for a metric; NaN, which is not logged, when there is none."""
    return torch.where(chosen, value, torch.zeros_like(value)).sum().detach() / chosen.sum()
