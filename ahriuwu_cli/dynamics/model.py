"""The interactive dynamics: a block-causal transformer that predicts clean latents ([D4] Sec. 3.2).

Shapes: B batch, T time steps, N latent tokens per step (N_z), C channels per token (D_z), A action width,
D model width, S tokens per step (actions, signal, latents, registers, agent).

Block t holds the action that led to frame t, (tau_t, d_t), the noised latents of frame t, registers and,
in an agent, the agent token. The output for block t is z1_hat of frame t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ahriuwu_cli.core.specs import ActionSpec, LatentSpec
from ahriuwu_cli.dynamics.actions import ActionEmbedding
from ahriuwu_cli.dynamics.config import DynamicsModelConfig
from ahriuwu_cli.nn.attention import TimeScope
from ahriuwu_cli.nn.cache import KVCache
from ahriuwu_cli.nn.layout import TokenLayout
from ahriuwu_cli.nn.norm import widened
from ahriuwu_cli.nn.transformer import INIT_STD, SpaceTimeTransformer

WORLD = ("action", "signal", "latent", "register")

CONDITION_GAIN = 8.0
"""What embeddings of spread INIT_STD are multiplied by before they are added to embedded latents, to weigh as much.

Decision: in [D4] a latent token learns of action and signal level by attention alone. What an action changes is a small
part of the picture, and by the time it pays to look, a small model on a small budget is done: on MinAtar Asterix (Muon,
4 blocks, width 128) exchanged actions cost it less than 1 % after 700 steps; with the action added, 7 % after 500.
"""


@dataclass(frozen=True)
class Prediction:
    """Output of one forward pass.

    Attributes:
        z1_hat: (B, T, N, C) predicted clean latents, fp32 at the least.
        agent: (B, T, D) agent token read-outs, fp32 at the least; None without a task.
    """

    z1_hat: Tensor
    agent: Tensor | None


class DynamicsModel(nn.Module):
    """Tokens of a block, the transformer over them, and the read-out of the latents.

    Args:
        config: sizes.
        latent: layout and statistics of the latents; they become part of the weights' artifact.
        action: the action spec.
        num_tasks: tasks an agent token can be asked for; 0 builds no agent token.
    """

    latent_mean: Tensor
    latent_std: Tensor
    slot: nn.Parameter

    def __init__(self, config: DynamicsModelConfig, latent: LatentSpec, action: ActionSpec, num_tasks: int = 0) -> None:
        super().__init__()
        self.config, self.latent, self.action = config, latent, action
        dim = config.dim
        self.layout = TokenLayout(
            {
                "action": config.num_action_tokens,
                "signal": 1,
                "latent": latent.num_tokens,
                "register": config.num_registers,
                "agent": 1 if num_tasks else 0,
            }
        )
        self.embed_action = ActionEmbedding(action, config.num_action_tokens, dim)
        self.embed_tau = nn.Embedding(config.k_max, dim // 2 if config.shortcut else dim)
        self.embed_d = nn.Embedding(int(math.log2(config.k_max)) + 1, dim - dim // 2) if config.shortcut else None
        self.embed_latent = nn.Linear(latent.dim_token, dim)
        self.embed_task = nn.Embedding(num_tasks, dim) if num_tasks else None
        # What a slot is (modality and place in it); registers are nothing but their slot.
        self.slot = nn.Parameter(torch.randn(self.layout.num_tokens - (1 if num_tasks else 0), dim) * INIT_STD)
        self.transformer = SpaceTimeTransformer(
            dim,
            config.num_layers,
            config.num_heads,
            config.num_kv_heads,
            config.time_every,
            config.soft_cap,
            config.feed_width,
        )
        self.read_latent = nn.Linear(dim, latent.dim_token)
        for module in (self.embed_tau, self.embed_d, self.embed_task):
            if module is not None:
                nn.init.normal_(module.weight, std=INIT_STD)
        nn.init.normal_(self.read_latent.weight, std=INIT_STD)
        nn.init.zeros_(self.read_latent.bias)
        channels = latent.dim_token
        self.register_buffer("latent_mean", torch.tensor(latent.mean or (0.0,) * channels), persistent=False)
        self.register_buffer("latent_std", torch.tensor(latent.std or (1.0,) * channels), persistent=False)
        # Agent tokens see everything and nothing sees them ([D4] Sec. 3.3).
        mask = self.layout.visibility(dict.fromkeys(WORLD, WORLD)) if num_tasks else None
        self.register_buffer("space_mask", mask, persistent=False)

    def normalise(self, latents: Tensor) -> Tensor:
        """Stored latents (..., N, C) to the model's space: per channel zero mean and spread `latent_scale`."""
        return (latents.float() - self.latent_mean) / self.latent_std * self.config.latent_scale

    def denormalise(self, z: Tensor) -> Tensor:
        """Inverse of `normalise`, clamped to the tokenizer's bound where it has one."""
        latents = z / self.config.latent_scale * self.latent_std + self.latent_mean
        return latents if self.latent.bound is None else latents.clamp(-self.latent.bound, self.latent.bound)

    def new_cache(self, context_length: int) -> KVCache:
        """An empty cache for generation with `context_length` past frames."""
        return self.transformer.new_cache(context_length)

    def forward(
        self,
        z_tilde: Tensor,
        tau: Tensor,
        d: Tensor,
        action: Tensor,
        action_valid: Tensor,
        *,
        task: Tensor | None = None,
        separate: Tensor | None = None,
        window: int | None = None,
        cache: KVCache | None = None,
    ) -> Prediction:
        """Predict clean latents for every block.

        Args:
            z_tilde: (B, T, N, C) noised latents in the normalised space.
            tau: (B, T) signal levels, multiples of 1/k_max below 1.
            d: (B, T) step sizes, powers of two from 1 down to 1/k_max; without `shortcut` they are not looked at.
            action: (B, T, A) the action that led to each frame.
            action_valid: (B, T) bool; where False the content of `action` has no influence.
            task: (B,) task index; adds the agent token.
            separate: (B,) bool; these examples are single images.
            window: past blocks visible besides the own one; None for all.
            cache: past keys and values; T then counts only the newest blocks.
        """
        batch, length = tau.shape
        signal = self.embed_tau((tau * self.config.k_max).round().long())
        if self.embed_d is not None:
            signal = torch.cat([signal, self.embed_d((-torch.log2(d)).round().long())], dim=-1)  # (B, T, D)
        registers = signal.new_zeros(batch, length, self.config.num_registers, signal.shape[-1])
        actions, latents = self.embed_action(action, action_valid), self.embed_latent(z_tilde)
        if self.config.conditioning == "latents":
            latents = latents + CONDITION_GAIN * (actions.mean(dim=2) + signal)[:, :, None]
        tokens = [
            actions,  # (B, T, S_a, D)
            signal[:, :, None],  # (B, T, 1, D)
            latents,  # (B, T, N, D)
            registers,  # (B, T, S_r, D)
        ]
        x = torch.cat(tokens, dim=2) + self.slot[: self.layout.slices["agent"].start]
        mask = None
        if task is not None:
            assert self.embed_task is not None, "a model without tasks has no agent token"
            agent = self.embed_task(task)[:, None, None].expand(batch, length, 1, -1)
            x, mask = torch.cat([x, agent.to(x.dtype)], dim=2), self.space_mask
        read = self.layout.slices["latent"], self.layout.slices["agent"]
        y = self.transformer(x, mask, TimeScope(separate, window, cache), read)  # (B, T, N + agent, D)
        z1_hat = widened(self.read_latent(y[:, :, : self.latent.num_tokens]))
        if self.config.prediction == "v":
            z1_hat = z_tilde + (1 - tau)[..., None, None] * z1_hat
        return Prediction(z1_hat, widened(y[:, :, -1]) if task is not None else None)
