"""What one imagination step needs, estimated before training.

Shapes: B rollouts, C context frames, H horizon, N latent tokens, E channels per token, T frames per recorded window.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ahriuwu_cli.agent.checkpoint import LoadedAgent, agent_from_header
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.memory import estimate_step_memory, require_memory
from ahriuwu_cli.imagination.config import ImagineSection
from ahriuwu_cli.imagination.finetune import agent_section
from ahriuwu_cli.imagination.losses import imagination_loss
from ahriuwu_cli.imagination.model import ImaginationModel
from ahriuwu_cli.imagination.rollout import Rollout, read_again
from ahriuwu_cli.nn.cache import MOST_NEW


def check_imagination_memory(section: ImagineSection, agent: LoadedAgent, runtime: Runtime) -> None:
    """Refuse a step that does not fit, before training: weights, what learns, and the dream's cache.

    Raises:
        DeviceError: the device has less free memory.
    """
    need = estimate_imagination_memory(section, agent, runtime)
    require_memory(runtime, need, "one imagination step")


def estimate_imagination_memory(section: ImagineSection, agent: LoadedAgent, runtime: Runtime) -> int:
    """Bytes of one step; with the transformer also its two passes with gradient, over rollouts and recorded windows."""
    shape = (section.train.batch_size, section.horizon)  # (B, H)
    world, layout = agent.model.world.config, agent.model.world.layout
    learns_all = section.transformer == "finetuned"

    def build() -> nn.Module:
        model = ImaginationModel(agent_from_header(agent.header)).requires_grad_(False)
        for parameter in model.trained(transformer=learns_all).values():
            parameter.requires_grad_(True)
        return model

    def loss(module: nn.Module) -> Tensor:
        assert isinstance(module, ImaginationModel)
        seen = torch.zeros(shape[0], shape[1] + 1, world.dim)
        action = torch.zeros(*shape, agent.specs.action.dim)
        with runtime.autocast():
            rollout = Rollout(seen, action, torch.zeros(shape), torch.ones(shape))
            if not learns_all:
                return imagination_loss(module, rollout, section)[0]
            rollout = _read_again(module, rollout, section, agent)
            return imagination_loss(module, rollout, section)[0] + _recorded_loss(module, agent)

    width = layout.num_tokens * world.num_kv_heads * (world.dim // world.num_heads)  # S * G * head width
    slots = (agent.sampler.context_length + MOST_NEW) * (world.num_layers // world.time_every)
    cache = 2 * shape[0] * slots * width * (4 if runtime.precision == "fp32" else 2)  # keys and values
    return estimate_step_memory(build, loss, section.train, runtime) + cache


def _read_again(module: ImaginationModel, rollout: Rollout, section: ImagineSection, agent: LoadedAgent) -> Rollout:
    """The rollout with read-outs of a pass over context and imagined frames."""
    count, blocks = section.train.batch_size, section.context_length + section.horizon  # B, C+H
    latent = agent.specs.latent
    kept = replace(
        rollout,
        z_tilde=torch.zeros(count, blocks, latent.num_tokens, latent.dim_token),
        led=torch.zeros(count, blocks, agent.specs.action.dim),
        led_valid=torch.ones(count, blocks, dtype=torch.bool),
        task=torch.zeros(count, dtype=torch.long),
    )
    return replace(kept, agent=read_again(module.agent, kept, 0.0, agent.sampler.context_length))


def _recorded_loss(module: ImaginationModel, agent: LoadedAgent) -> Tensor:
    """A loss that reads all that the losses on recorded windows read."""
    recorded, latent = agent_section(agent), agent.specs.latent
    shape = (recorded.train.batch_size, recorded.batch_length)  # (windows, T)
    z, levels = torch.zeros(*shape, latent.num_tokens, latent.dim_token), torch.ones(shape)
    task = torch.zeros(shape[0], dtype=torch.long)
    action = torch.zeros(*shape, agent.specs.action.dim)
    out = module.agent.world(z, levels * 0, levels, action, levels.bool(), task=task)
    heads = (module.prior, module.agent.reward, module.agent.alive)
    values = [out.z1_hat, *(head(out.agent) for head in heads)]
    return torch.stack([value.square().mean() for value in values]).sum()
