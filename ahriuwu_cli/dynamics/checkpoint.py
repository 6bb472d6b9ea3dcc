"""Reading dynamics from a file: the model and its sampler are built from what the file says and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ahriuwu_cli.core.artifact import Header, read_weights
from ahriuwu_cli.core.loading import build_module, reading
from ahriuwu_cli.core.specs import ActionSpec, FrameSpec, LatentSpec
from ahriuwu_cli.dynamics.config import DynamicsModelConfig, SamplerConfig
from ahriuwu_cli.dynamics.model import DynamicsModel


@dataclass(frozen=True)
class WorldSpecs:
    """What a world model knows of its data; part of every artifact from the dynamics on."""

    action: ActionSpec
    frame: FrameSpec
    latent: LatentSpec
    tasks: tuple[str, ...]

    def dump(self) -> dict[str, Any]:
        """JSON for a header's `specs`."""
        return {
            "action": self.action.model_dump(),
            "frame": self.frame.model_dump(),
            "latent": self.latent.model_dump(),
            "tasks": list(self.tasks),
        }

    @classmethod
    def of(cls, specs: dict[str, Any]) -> WorldSpecs:
        """Inverse of `dump`."""
        return cls(
            action=ActionSpec.model_validate(specs["action"]),
            frame=FrameSpec.model_validate(specs["frame"]),
            latent=LatentSpec.model_validate(specs["latent"]),
            tasks=tuple(specs["tasks"]),
        )


@dataclass(frozen=True)
class World:
    """Trained dynamics with all that goes with them."""

    model: DynamicsModel
    sampler: SamplerConfig
    specs: WorldSpecs
    header: Header


def load_world(path: Path, device: torch.device) -> World:
    """The dynamics in eval mode on `device`, without gradients.

    Raises:
        InputError: the file is missing.
        ArtifactError: it is damaged, of another kind, or does not fit its own config.
    """
    header, tensors = read_weights(path, "dynamics")
    with reading(path):
        specs = WorldSpecs.of(header.specs)
        config = DynamicsModelConfig.model_validate(header.config["model"])
        sampler = SamplerConfig.model_validate(header.config["sampler"])
    model = build_module(path, lambda: DynamicsModel(config, specs.latent, specs.action), tensors)
    return World(model.requires_grad_(False).eval().to(device), sampler, specs, header)
