"""The one sampler: a dream that is shown frames and then goes on by itself, frame by frame ([D4] Sec. 3.2).

Shapes: B batch, T time steps, N latent tokens, C channels, A action width, D model width.

Noise semantics. A frame is generated from noise drawn once; K Euler steps in x-space carry it to the clean
latents and nothing is re-noised between steps. Once finished, a frame (seen or dreamed) becomes context: it is
corrupted once to the signal level tau_context, enters the cache under that same tau and d_min, and stays as it is.
A frame that nobody reads an agent token from enters together with the first Euler step of the next one, which saves
a pass. All latents here are in the model's normalised space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ahriuwu_cli.core.training.compilation import is_compiled
from ahriuwu_cli.dynamics.config import SamplerConfig
from ahriuwu_cli.dynamics.model import DynamicsModel, Prediction
from ahriuwu_cli.dynamics.shortcut_forcing import corrupt, snap

FULL_PASS = 192
"""Latent tokens of one frame, over all rows, from which a pass over several frames at once loses on a CPU.

Measured on one core, 8 layers of width 128, 12 frames of 25 tokens, seconds one by one / at once: 1 row 0.06 / 0.02,
4 rows 0.11 / 0.11, 8 rows 0.18 / 0.22, 16 rows 0.33 / 0.49, 256 rows 5.2 / 9.5. The temporaries leave the cache.
"""

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


@dataclass(frozen=True)
class Block:
    """Steps as the model takes them: z_tilde (B, T, N, C), tau and d (B, T), action (B, T, A), its validity (B, T)."""

    z_tilde: Tensor
    tau: Tensor
    d: Tensor
    action: Tensor
    action_valid: Tensor

    def followed_by(self, other: Block) -> Block:
        """Both, one after the other in time."""
        return Block(*(torch.cat([getattr(self, f.name), getattr(other, f.name)], dim=1) for f in fields(Block)))

    def frames(self) -> list[Block]:
        """Each step by itself, T = 1."""
        parts = (torch.split(getattr(self, f.name), 1, dim=1) for f in fields(Block))
        return [Block(*step) for step in zip(*parts, strict=True)]


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
        self._cache = model.new_cache(settings.context_length)
        self._waiting: Block | None = None  # seen, and not yet in the cache

    @torch.no_grad()
    def observe(self, z: Tensor, action: Tensor, action_valid: Tensor) -> Tensor | None:
        """Show frames: z (B, T, N, C), the actions that led to them (B, T, A) and their validity (B, T).

        Several frames at once only at the start. Returns the agent's read-outs (B, T, D), None without a task.
        """
        self._settle()
        tau = torch.full(z.shape[:2], self.tau_context, device=z.device)
        d_min = torch.full_like(tau, 1 / self.model.config.k_max)
        shown = Block(corrupt(z, self._noise(z.shape, z.device), tau), tau, d_min, action, action_valid)
        if self.task is None and z.shape[1] == 1:
            self._waiting = shown
            return None
        agents = []
        for part in shown.frames() if self._goes_by_frame(z) else [shown]:
            agents.append(self._look(part).agent)
            self._cache.advance(part.tau.shape[1])
        return None if self.task is None else torch.cat([agent for agent in agents if agent is not None], dim=1)

    @torch.no_grad()
    def imagine(self, action: Tensor, action_valid: Tensor | None = None) -> Tensor:
        """Dream the next frame after an action (B, A), without making it part of the past: z (B, N, C).

        `action_valid` (B,) says whose action is known; by default all are.
        """
        batch, latent = action.shape[0], self.model.latent
        valid = _known(action, action_valid)

        def denoise(z: Tensor, tau: float, d: float) -> Tensor:
            level = torch.full((batch, 1), tau, device=z.device)
            block = Block(z, level, torch.full_like(level, d), action[:, None], valid)
            if self._waiting is None:
                return self._look(block, with_agent=False).z1_hat
            out = self._look(self._waiting.followed_by(block), with_agent=False)
            self._cache.advance(1)
            self._waiting = None
            return out.z1_hat[:, 1:]

        noise = self._noise((batch, 1, latent.num_tokens, latent.dim_token), action.device)
        return euler_steps(denoise, noise, self.num_steps)[:, 0]

    @torch.no_grad()
    def forget(self, rows: Tensor) -> None:
        """Rows (B,) where True begin a new dream with the next frame that is shown."""
        self._settle()
        self._cache.forget(rows)

    def step(self, action: Tensor, action_valid: Tensor | None = None) -> Moment:
        """Dream the next frame after an action (B, A) and make it part of the past; see `imagine`."""
        z = self.imagine(action, action_valid)
        agent = self.observe(z[:, None], action[:, None], _known(action, action_valid))
        return Moment(z, None if agent is None else agent[:, 0])

    def _look(self, block: Block, *, with_agent: bool = True) -> Prediction:
        task = self.task if with_agent else None
        out: Prediction = self.model(
            block.z_tilde, block.tau, block.d, block.action, block.action_valid, task=task, cache=self._cache
        )
        return out

    def _goes_by_frame(self, z: Tensor) -> bool:
        """Tell whether frames z (B, T, N, C) that are shown at once better enter one by one."""
        if z.shape[1] == 1:
            return False
        fills = z.device.type == "cpu" and z.shape[0] * z.shape[2] >= FULL_PASS
        return fills or is_compiled(self.model)  # a pass over all of them would be compiled for itself

    def _settle(self) -> None:
        """Put a frame that waits into the cache."""
        if self._waiting is not None:
            self._look(self._waiting)
            self._cache.advance(1)
            self._waiting = None

    def _noise(self, shape: tuple[int, ...] | torch.Size, device: torch.device) -> Tensor:
        return self._draw(tuple(shape)).to(device)


def _known(action: Tensor, action_valid: Tensor | None) -> Tensor:
    """Whose action (B, A) is known, as a step (B, 1) bool."""
    if action_valid is None:
        return torch.ones(action.shape[0], 1, dtype=torch.bool, device=action.device)
    return action_valid[:, None]
