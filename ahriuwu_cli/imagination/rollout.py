"""Imagined rollouts: a dream started from recorded frames, driven by the policy.

Shapes: B rollouts, C context frames, H horizon, D model width, A action width.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ahriuwu_cli.agent.distribution import ActionDistribution
from ahriuwu_cli.agent.model import AgentModel
from ahriuwu_cli.dynamics.sampler import Dream
from ahriuwu_cli.latents.windows import LatentBatch


@dataclass(frozen=True)
class Rollout:
    """What one batch of dreams gave.

    Attributes:
        agent: (B, H+1, D) agent read-outs h_0..h_H; h_0 belongs to the last recorded frame.
        action: (B, H, A), a_t taken at h_t.
        reward: (B, H), r_{t+1} at index t, read at h_{t+1}.
        alive: (B, H), c_{t+1} at index t, read at h_{t+1}.
    """

    agent: Tensor
    action: Tensor
    reward: Tensor
    alive: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, for saving."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@torch.no_grad()
def imagine(
    model: AgentModel, dream: Dream, context: LatentBatch, horizon: int, temperature: float, *, uses_ends: bool
) -> Rollout:
    """Show the context, then let the policy and the dream take turns.

    Args:
        model: the agent; its policy chooses.
        dream: a fresh dream with the task of every row.
        context: (B, C) windows, all valid.
        horizon: H.
        temperature: of the policy.
        uses_ends: read the continue head; where episodes never end, c = 1.
    """
    length = context.valid.shape[1]
    z = model.world.normalise(context.latents)
    shown = dream.observe(z, context.action[:, :length], context.action_valid[:, :length])
    assert shown is not None
    agents, actions = [shown[:, -1]], []
    for _ in range(horizon):
        logits = model.policy_now(agents[-1])  # (B, K)
        uniform = torch.rand(logits.shape).to(logits.device)
        action = ActionDistribution(model.choices, logits, temperature).sample(uniform)
        moment = dream.step(action)
        assert moment.agent is not None
        agents.append(moment.agent)
        actions.append(action)
    agent = torch.stack(agents, dim=1)  # (B, H+1, D)
    reward = model.reward_now(agent[:, 1:])
    alive = model.alive_now(agent[:, 1:]) if uses_ends else torch.ones_like(reward)
    return Rollout(agent, torch.stack(actions, dim=1), reward, alive)
