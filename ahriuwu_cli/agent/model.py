"""The agent: dynamics with an agent token, and heads that read it ([D4] Sec. 3.3).

Shapes: B batch, T time steps, D model width, L mtp_length, K action logits, N two-hot buckets.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ahriuwu_cli.agent.config import HeadsConfig
from ahriuwu_cli.agent.distribution import ActionChoices
from ahriuwu_cli.dynamics.checkpoint import WorldSpecs
from ahriuwu_cli.dynamics.config import DynamicsModelConfig
from ahriuwu_cli.dynamics.model import DynamicsModel
from ahriuwu_cli.nn.mlp import Mlp
from ahriuwu_cli.nn.transformer import INIT_STD
from ahriuwu_cli.nn.twohot import TwoHot


class DistanceHead(nn.Module):
    """One small network with an output layer per multi-token distance: (..., D) -> (..., L, width)."""

    def __init__(self, dim: int, config: HeadsConfig, width: int) -> None:
        super().__init__()
        self.num_distances = config.mtp_length
        self.net = Mlp(dim, config.dim_hidden, config.num_hidden, config.mtp_length * width)

    def forward(self, agent: Tensor) -> Tensor:
        """agent (..., D) -> (..., L, width), fp32."""
        flat: Tensor = self.net(agent)  # (..., L*width)
        return flat.float().reshape(*agent.shape[:-1], self.num_distances, -1)


class AgentModel(nn.Module):
    """Dynamics with one agent token, and policy, reward and continue heads.

    The policy at distance n predicts actions[t+n]; reward and continue at distance n belong to frame t+n
    (episodes/alignment.py).
    """

    def __init__(self, dynamics: DynamicsModelConfig, heads: HeadsConfig, specs: WorldSpecs) -> None:
        super().__init__()
        self.heads_config, self.specs = heads, specs
        self.world = DynamicsModel(dynamics, specs.latent, specs.action, num_tasks=len(specs.tasks))
        self.choices = ActionChoices(specs.action, heads.action_bins)
        self.twohot = TwoHot(heads.num_buckets, heads.bucket_limit)
        self.policy = DistanceHead(dynamics.dim, heads, self.choices.num_logits)
        self.reward = DistanceHead(dynamics.dim, heads, heads.num_buckets)
        self.alive = DistanceHead(dynamics.dim, heads, 1)

    def take_world(self, weights: Mapping[str, Tensor]) -> None:
        """Start from trained dynamics: every tensor of theirs must have its place; the task embedding is new.

        Decision: it gets the size that the slots of the other tokens have grown to. At the size of an untrained slot, a
        fifteenth of that, policy and reward stayed at a constant guess for the first 300 steps on MinAtar Asterix.
        """
        own = self.world.state_dict()
        missing = set(own) - set(weights) - {"embed_task.weight"}
        assert not missing, f"dynamics lack {sorted(missing)}"
        self.world.load_state_dict({**own, **weights}, strict=True)
        assert self.world.embed_task is not None
        with torch.no_grad():
            self.world.embed_task.weight *= self.world.slot.square().mean().sqrt() / INIT_STD

    def reward_now(self, agent: Tensor) -> Tensor:
        """Expected reward (...) that arrived with the frame of agent (..., D)."""
        return self.twohot.mean(self.reward(agent)[..., 0, :])

    def alive_now(self, agent: Tensor) -> Tensor:
        """Probability (...) that the game goes on after the frame of agent (..., D)."""
        return torch.sigmoid(self.alive(agent)[..., 0, 0])

    def policy_now(self, agent: Tensor) -> Tensor:
        """Logits (..., K) of the action taken on seeing the frame of agent (..., D)."""
        logits: Tensor = self.policy(agent)  # (..., L, K)
        return logits[..., 0, :]
