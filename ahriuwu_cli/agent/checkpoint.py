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
from ahriuwu_cli.agent.relevance import AgentData, relevance
from ahriuwu_cli.core.artifact import Header, read_weights
from ahriuwu_cli.core.errors import ArtifactError
from ahriuwu_cli.core.loading import build_module, reading
from ahriuwu_cli.dynamics.checkpoint import WorldSpecs
from ahriuwu_cli.dynamics.config import DynamicsModelConfig, SamplerConfig
from ahriuwu_cli.latents.rewards import Relevance
from ahriuwu_cli.latents.tasks import REWARD


@dataclass(frozen=True)
class LoadedAgent:
    """An agent ready to act, and what its file says."""

    model: AgentModel
    sampler: SamplerConfig
    specs: WorldSpecs
    header: Header

    @property
    def tasks(self) -> dict[str, str]:
        """The agent's tasks and what rewards them (`reward` or `event:NAME`), in the order of its task indices."""
        return {name: self._data.tasks.get(name, REWARD) for name in self.specs.tasks}

    @property
    def relevance(self) -> Relevance:
        """The rule by which windows were relevant to it."""
        return relevance(self._data)

    @property
    def _data(self) -> AgentData:
        return AgentData.model_validate(self.header.config["agent"])


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
    model = build_module(path, lambda: agent_from_header(header), agent_tensors(header, tensors))
    with reading(path):
        sampler = SamplerConfig.model_validate(header.config["dynamics"]["sampler"])
        AgentData.model_validate(header.config["agent"])
    return LoadedAgent(model.requires_grad_(False).eval().to(device), sampler, WorldSpecs.of(header.specs), header)


def agent_tensors(header: Header, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The agent's own tensors: all of an agent file, those below `agent.` of an imagination file."""
    if header.kind == "agent":
        return dict(tensors)
    return {name.removeprefix("agent."): value for name, value in tensors.items() if name.startswith("agent.")}


def agent_config(section: dict[str, Any], dynamics: dict[str, Any]) -> dict[str, Any]:
    """The `config` of an agent's header: its own section and that of the dynamics it stands on."""
    return {"agent": section, "dynamics": dynamics}


def is_from_scratch(header: Header) -> bool:
    """True for an agent cloned without a world model (see agent/scratch.py)."""
    return bool(header.info.get("from_scratch"))


def require_world(path: Path, header: Header) -> None:
    """Raise ArtifactError for an agent that has no world model to dream in."""
    if is_from_scratch(header):
        raise ArtifactError(
            f"{path} was cloned from scratch: it has no world model to dream in",
            hint="give an agent made with `ahriuwu agent finetune` on trained dynamics",
        )
