"""The windows that an agent learns from: relevant ones, which are imitated, and others ([D4] Sec. 3.3).

Shapes: B windows, T frames per window, N latent tokens, C channels, D model width.

Each window is drawn for a task and has that task's reward (latents/windows.py). Which are relevant says a rule that the
windows were opened with (relevance.py). The others are from anywhere. Decision: a part of them may hold an episode's
end, since the continue head of a game in which one frame in 250 is an end has nothing to learn from otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ahriuwu_cli.agent.config import AgentSection
from ahriuwu_cli.agent.model import AgentModel
from ahriuwu_cli.dynamics.model import Prediction
from ahriuwu_cli.dynamics.shortcut_forcing import corrupt
from ahriuwu_cli.latents.places import Place, PlaceSampler
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows


def relevant_places(section: AgentSection, sampler: PlaceSampler, rng: np.random.Generator, count: int) -> list[Place]:
    """Windows to be imitated: relevant for their task."""
    return sampler.draw(rng, count, section.batch_length, relevant=True)


def uniform_places(section: AgentSection, sampler: PlaceSampler, rng: np.random.Generator, count: int) -> list[Place]:
    """Windows from anywhere."""
    return sampler.draw(rng, count, section.batch_length)


def mixed_places(section: AgentSection, sampler: PlaceSampler, rng: np.random.Generator) -> list[Place]:
    """Those of a whole batch, in the parts that `mixture` says: relevant ones first, the others after them."""
    num_relevant, num_others = mixture(section.train.batch_size, section.relevant_fraction)
    num_ended = round(num_others * section.ended_fraction)
    places = relevant_places(section, sampler, rng, num_relevant)
    if num_ended:
        places += sampler.draw_ended(rng, num_ended, section.batch_length)
    return places + uniform_places(section, sampler, rng, num_others - num_ended)


def mixture(batch_size: int, relevant_fraction: float) -> tuple[int, int]:
    """Relevant and other windows of a batch; each kind keeps at least one where fraction and size allow."""
    most = batch_size if relevant_fraction == 1 else batch_size - 1
    num_relevant = max(1, min(round(batch_size * relevant_fraction), most))
    return num_relevant, batch_size - num_relevant


def read_recorded(section: AgentSection, windows: LatentWindows, places: Sequence[Place]) -> LatentBatch:
    """Windows with the blocks after them that multi-token targets need."""
    return windows.read(places, section.batch_length, section.heads.mtp_length)


def read_windows(model: AgentModel, batch: LatentBatch, tau_context: float, noise: Tensor | None = None) -> Tensor:
    """Agent read-outs (B, T, D) of windows shown at `tau_context` with d_min, as the agent meets frames when it plays.

    Args:
        model: the agent.
        batch: the windows.
        tau_context: signal level.
        noise: (B, T, N, C) what frames are corrupted with; drawn from torch's generator when not given.
    """
    world = model.world
    z1 = world.normalise(batch.latents)  # (B, T, N, C)
    tau = torch.full(batch.valid.shape, tau_context, device=z1.device)
    length = tau.shape[1]
    z_tilde = corrupt(z1, torch.randn_like(z1) if noise is None else noise, tau)
    d_min = torch.full_like(tau, 1 / world.config.k_max)
    action, known = batch.action[:, :length], batch.action_valid[:, :length]
    out: Prediction = world(z_tilde, tau, d_min, action, known, task=batch.task)
    assert out.agent is not None
    return out.agent
