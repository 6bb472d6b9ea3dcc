"""Reading an agent from its file, and building one on trained dynamics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ahriuwu_cli.agent.config import HeadsConfig
from ahriuwu_cli.agent.model import AgentModel
from ahriuwu_cli.core.artifact import Header, load_strictly, read_weights
from ahriuwu_cli.dynamics.checkpoint import WorldSpecs
from ahriuwu_cli.dynamics.config import DynamicsModelConfig, SamplerConfig


@dataclass(frozen=True)
class LoadedAgent:
    """An agent ready to act, and what its file says."""

    model: AgentModel
    sampler: SamplerConfig
    specs: WorldSpecs
    header: Header


def agent_from_header(header: Header) -> AgentModel:
    """A freshly initialised agent of the sizes that an agent's or imagination's header names."""
    return AgentModel(
        DynamicsModelConfig.model_validate(header.config["dynamics"]["model"]),
        HeadsConfig.model_validate(header.config["agent"]["heads"]),
        WorldSpecs.of(header.specs),
    )


def load_agent(path: Path, device: torch.device) -> LoadedAgent:
    """An agent (or the agent inside an imagination file) in eval mode on `device`, without gradients.

    Raises:
        InputError: the file is missing.
        ArtifactError: it is damaged, of another kind, or does not fit its own config.
    """
    header, tensors = read_weights(path, ("agent", "imagination"))
    model = agent_from_header(header)
    load_strictly(model, agent_tensors(header, tensors), path)
    sampler = SamplerConfig.model_validate(header.config["dynamics"]["sampler"])
    return LoadedAgent(model.requires_grad_(False).eval().to(device), sampler, WorldSpecs.of(header.specs), header)


def agent_tensors(header: Header, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The agent's own tensors: all of an agent file, those below `agent.` of an imagination file."""
    if header.kind == "agent":
        return dict(tensors)
    return {name.removeprefix("agent."): value for name, value in tensors.items() if name.startswith("agent.")}


def agent_config(section: dict[str, Any], dynamics: dict[str, Any]) -> dict[str, Any]:
    """The `config` of an agent's header: its own section and that of the dynamics it stands on."""
    return {"agent": section, "dynamics": dynamics}
