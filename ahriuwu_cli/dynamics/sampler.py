"""The one sampler: a dream that is shown frames and then goes on by itself, frame by frame ([D4] Sec. 3.2).

Shapes: B batch, T time steps, N latent tokens, C channels, A action width, D model width.

Noise semantics. A frame is generated from noise drawn once; K Euler steps in x-space carry it to the clean
latents and nothing is re-noised between steps. Once finished, a frame (seen or dreamed) becomes context: it is
corrupted once to the signal level tau_context, enters the cache under that same tau and d_min, and stays as it is.
All latents here are in the model's normalised space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ahriuwu_cli.dynamics.config import SamplerConfig
from ahriuwu_cli.dynamics.model import DynamicsModel, Prediction
from ahriuwu_cli.dynamics.shortcut_forcing import corrupt, snap

Noise = Callable[[tuple[int, ...]], Tensor]
"""Shape to standard normal noise."""


def noise_from(generator: torch.Generator) -> Noise:
    """Noise from a CPU generator, the same on every device."""
    return lambda shape: torch.randn(shape, generator=generator)


def euler_steps(denoise: Callable[[Tensor, float, float], Tensor], z: Tensor, num_steps: int) -> Tensor:
    """Carry noise z to clean latents in K steps of size d = 1/K: z <- z + (z1_hat - z) / (1 - tau) d.

    Args:
        denoise: (z, tau, d) -> z1_hat.
        z: noise of any shape.
        num_steps: K.
    """
    d = 1.0 / num_steps
    for step in range(num_steps):
        tau = step * d
        z1_hat = denoise(z, tau, d)
        # The last step lands on z1_hat exactly: 1 - tau = d.
        z = z1_hat if step == num_steps - 1 else z + (z1_hat - z) / (1 - tau) * d
    return z


@dataclass(frozen=True)
class Moment:
    """One frame of a dream: latents z (B, N, C) and the agent's read-out (B, D), None without a task."""

    z: Tensor
    agent: Tensor | None


class Dream:
    """A batch of dreams with a bounded cache.

    Args:
        model: the dynamics, in eval mode.
        settings: K, context length and context signal level.
        task: (B,) task index; the agent token is then read out.
        noise: gives normal noise of a shape; see `noise_from`.
        num_steps: Euler steps per frame when other than `settings.steps`.
    """

    def __init__(
        self,
        model: DynamicsModel,
        settings: SamplerConfig,
        *,
        noise: Noise,
        task: Tensor | None = None,
        num_steps: int | None = None,
    ) -> None:
        self.model, self.task = model, task
        self._draw = noise
        self.num_steps = num_steps or settings.steps
        self.tau_context = snap(settings.tau_context, model.config.k_max)
        self.cache = model.new_cache(settings.context_length)

    @torch.no_grad()
    def observe(self, z: Tensor, action: Tensor, action_valid: Tensor) -> Tensor | None:
        """Show frames: z (B, T, N, C), the actions that led to them (B, T, A) and their validity (B, T).

        Several frames at once only at the start. Returns the agent's read-outs (B, T, D), None without a task.
        """
        tau = torch.full(z.shape[:2], self.tau_context, device=z.device)
        d_min = torch.full_like(tau, 1 / self.model.config.k_max)
        z_tilde = corrupt(z, self._noise(z.shape, z.device), tau)
        out: Prediction = self.model(z_tilde, tau, d_min, action, action_valid, task=self.task, cache=self.cache)
        self.cache.advance(z.shape[1])
        return out.agent

    @torch.no_grad()
    def imagine(self, action: Tensor) -> Tensor:
        """Dream the next frame after an action (B, A), without making it part of the past: z (B, N, C)."""
        batch = action.shape[0]
        latent = self.model.latent
        valid = torch.ones(batch, 1, dtype=torch.bool, device=action.device)

        def denoise(z: Tensor, tau: float, d: float) -> Tensor:
            level = torch.full((batch, 1), tau, device=z.device)
            d_now = torch.full_like(level, d)
            out: Prediction = self.model(z, level, d_now, action[:, None], valid, cache=self.cache)
            return out.z1_hat

        noise = self._noise((batch, 1, latent.num_tokens, latent.dim_token), action.device)
        return euler_steps(denoise, noise, self.num_steps)[:, 0]

    def step(self, action: Tensor) -> Moment:
        """Dream the next frame after an action (B, A) and make it part of the past."""
        z = self.imagine(action)
        valid = torch.ones(action.shape[0], 1, dtype=torch.bool, device=action.device)
        agent = self.observe(z[:, None], action[:, None], valid)
        return Moment(z, None if agent is None else agent[:, 0])

    def _noise(self, shape: tuple[int, ...] | torch.Size, device: torch.device) -> Tensor:
        return self._draw(tuple(shape)).to(device)
