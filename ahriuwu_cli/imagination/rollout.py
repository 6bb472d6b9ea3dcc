"""Imagined rollouts: a dream started from recorded frames, driven by the policy.

Shapes: B rollouts, C context frames, H horizon, N latent tokens, E channels per token, D model width, A action width.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from ahriuwu_cli.agent.distribution import ActionDistribution
from ahriuwu_cli.agent.model import AgentModel
from ahriuwu_cli.dynamics.sampler import Dream
from ahriuwu_cli.dynamics.shortcut_forcing import corrupt
from ahriuwu_cli.latents.windows import LatentBatch


@dataclass(frozen=True)
class Rollout:
    """What one batch of dreams gave.

    Attributes:
        agent: (B, H+1, D) agent read-outs h_0..h_H; h_0 belongs to the last recorded frame.
        action: (B, H, A), a_t taken at h_t.
        reward: (B, H), r_{t+1} at index t, read at h_{t+1}.
        alive: (B, H), c_{t+1} at index t, read at h_{t+1}.
        size: (B, H, 2), `frame_size` of the imagined frame t+1 at index t.
        disagreement: (B, H), see imagination/disagreement.py; NaN where it was not measured, None where nowhere.
        z_tilde: (B, C+H, N, E), the blocks as the world saw them, corrupted; kept to be read again, as are the
            actions that led to them, `led` (B, C+H, A), their validity `led_valid` (B, C+H) and `task` (B,).
    """

    agent: Tensor
    action: Tensor
    reward: Tensor
    alive: Tensor
    size: Tensor | None = None
    disagreement: Tensor | None = None
    z_tilde: Tensor | None = None
    led: Tensor | None = None
    led_valid: Tensor | None = None
    task: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """All tensors there are by name, for saving."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in found.items() if tensor is not None}


@dataclass
class KeptNoise:
    """Standard normal noise of torch's global CPU generator for a dream, some of which is kept.

    Attributes:
        rows: of so many first rows every draw is kept.
        last: the whole of the last draw; right after a frame was shown, what that frame was corrupted with.
        draws: every draw so far, of the first `rows` rows.
    """

    rows: int = 0
    last: Tensor = field(default_factory=lambda: torch.empty(0))
    draws: list[Tensor] = field(default_factory=list)

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """Draw noise of a shape."""
        self.last = torch.randn(shape)
        if self.rows:
            self.draws.append(self.last[: self.rows].clone())
        return self.last


def frame_size(z: Tensor) -> Tensor:
    """(..., N, E) -> (..., 2): root mean square and largest absolute value of each frame's normalised latents."""
    return torch.stack([z.square().mean(dim=(-1, -2)).sqrt(), z.abs().amax(dim=(-1, -2))], dim=-1)


@torch.no_grad()
def imagine(
    model: AgentModel,
    dream: Dream,
    context: LatentBatch,
    horizon: int,
    temperature: float,
    *,
    uses_ends: bool,
    noise: KeptNoise | None = None,
) -> Rollout:
    """Show the context, then let the policy and the dream take turns.

    Args:
        model: the agent; its policy chooses.
        dream: a fresh dream with the task of every row.
        context: (B, C) windows, all valid.
        horizon: H.
        temperature: of the policy.
        uses_ends: read the continue head; where episodes never end, c = 1.
        noise: the dream's noise, when the blocks are to be kept for `read_again`.
    """
    length = context.valid.shape[1]
    z = model.world.normalise(context.latents)
    led, led_valid = context.action[:, :length], context.action_valid[:, :length]
    shown = dream.observe(z, led, led_valid)
    assert shown is not None
    blocks = [_corrupted(dream, z, noise)]
    agents, actions, sizes = [shown[:, -1]], [], []
    for _ in range(horizon):
        logits = model.policy_now(agents[-1])  # (B, K)
        uniform = torch.rand(logits.shape).to(logits.device)
        action = ActionDistribution(model.choices, logits, temperature).sample(uniform)
        moment = dream.step(action)
        assert moment.agent is not None
        blocks.append(_corrupted(dream, moment.z[:, None], noise))
        agents.append(moment.agent)
        actions.append(action)
        sizes.append(frame_size(moment.z))
    agent = torch.stack(agents, dim=1)  # (B, H+1, D)
    reward = model.reward_now(agent[:, 1:])
    alive = model.alive_now(agent[:, 1:]) if uses_ends else torch.ones_like(reward)
    taken = torch.stack(actions, dim=1)
    rollout = Rollout(agent, taken, reward, alive, torch.stack(sizes, dim=1))
    if noise is None:
        return rollout
    return Rollout(
        **rollout.tensors(),
        z_tilde=torch.cat([block for block in blocks if block is not None], dim=1),
        led=torch.cat([led, taken], dim=1),
        led_valid=torch.cat([led_valid, torch.ones_like(led_valid[:, :1]).expand(-1, horizon)], dim=1),
        task=context.task,
    )


def _corrupted(dream: Dream, z: Tensor, noise: KeptNoise | None) -> Tensor | None:
    """The frames z (B, T, N, E) just shown, corrupted as the dream did it; None when they are not kept."""
    if noise is None:
        return None
    return corrupt(z, noise.last.to(z.device), torch.full(z.shape[:2], dream.tau_context, device=z.device))


def read_again(model: AgentModel, rollout: Rollout, tau_context: float, window: int) -> Tensor:
    """Agent read-outs (B, H+1, D) of a rollout's own blocks by the world as it is now, with gradient.

    One pass over context and imagined frames at tau_context and d_min: what the cache saw, noise included.

    Args:
        model: the agent.
        rollout: one that kept its blocks.
        tau_context: signal level of the blocks.
        window: past frames visible.
    """
    assert rollout.z_tilde is not None
    assert rollout.led is not None
    assert rollout.led_valid is not None
    tau = torch.full(rollout.z_tilde.shape[:2], tau_context, device=rollout.z_tilde.device)
    d_min = torch.full_like(tau, 1 / model.world.config.k_max)
    out = model.world(rollout.z_tilde, tau, d_min, rollout.led, rollout.led_valid, task=rollout.task, window=window)
    agent: Tensor = out.agent
    return agent[:, -(rollout.action.shape[1] + 1) :]
