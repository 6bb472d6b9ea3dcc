"""Where K Euler steps are too few: the same imagined frame with twice as many, from the same noise and past.

Shapes: R rows compared, C context frames, H horizon, N latent tokens, E channels per token, A action width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ahriuwu_cli.dynamics.config import SamplerConfig
from ahriuwu_cli.dynamics.model import DynamicsModel
from ahriuwu_cli.dynamics.sampler import Dream
from ahriuwu_cli.latents.windows import LatentBatch


class _Again:
    """Noise that was drawn before, in the same order; `back` gives the last one once more."""

    def __init__(self, draws: Sequence[Tensor]) -> None:
        self._draws, self._next = draws, 0

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        draw = self._draws[self._next]
        assert draw.shape == shape, "a dream gone through again draws what it drew before"
        self._next += 1
        return draw

    def back(self) -> None:
        self._next -= 1


@torch.no_grad()
def step_disagreement(
    model: DynamicsModel,
    sampler: SamplerConfig,
    num_steps: int,
    context: LatentBatch,
    action: Tensor,
    draws: Sequence[Tensor],
) -> Tensor:
    """Go through rollouts again and dream every frame twice: with K and with 2 K Euler steps.

    Nothing is drawn: the noise is that of the rollouts. The frame of K steps becomes the past of both.

    Args:
        model: the dynamics.
        sampler: context length and signal level.
        num_steps: K; 2 K is at most k_max.
        context: at least R windows of C frames, those of the rollouts.
        action: (R, H, A) as taken.
        draws: the rollouts' noise of these rows (`KeptNoise.draws`).

    Returns:
        (R, H): root mean square of the difference in the normalised latents, relative to the mean change between
        successive frames of these rollouts.
    """
    rows, length = action.shape[0], context.valid.shape[1]
    noise = _Again(draws)
    dream = Dream(model, sampler, noise=noise, task=context.task[:rows], num_steps=num_steps)
    past = model.normalise(context.latents[:rows])  # (R, C, N, E)
    dream.observe(past, context.action[:rows, :length], context.action_valid[:rows, :length])
    known = torch.ones(rows, 1, dtype=torch.bool, device=action.device)
    before, changes, differences = past[:, -1], [], []
    for t in range(action.shape[1]):
        coarse = dream.imagine(action[:, t])  # (R, N, E)
        noise.back()
        dream.num_steps = 2 * num_steps
        fine = dream.imagine(action[:, t])
        dream.num_steps = num_steps
        dream.observe(coarse[:, None], action[:, t][:, None], known)
        changes.append(_rms(coarse - before))
        differences.append(_rms(fine - coarse))
        before = coarse
    change = torch.stack(changes, dim=1).mean().clamp_min(1e-6)
    return torch.stack(differences, dim=1) / change


def _rms(difference: Tensor) -> Tensor:
    """(R, N, E) -> (R,)."""
    return difference.square().mean(dim=(-1, -2)).sqrt()
