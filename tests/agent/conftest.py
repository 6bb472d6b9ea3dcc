"""Agents of minuscule size, and trained files of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ahriuwu_cli.agent.config import HeadsConfig
from ahriuwu_cli.agent.model import AgentModel
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.dynamics.checkpoint import WorldSpecs
from ahriuwu_cli.dynamics.config import DynamicsModelConfig
from ahriuwu_cli.dynamics.train import train_dynamics
from ahriuwu_cli.pipeline.config import Run

DISTANCES = 3  # L


@pytest.fixture(autouse=True)
def _quiet(no_tensorboard: None) -> None:
    """No TensorBoard in this folder."""


@pytest.fixture(scope="session")
def build_agent(toy_specs: WorldSpecs, awake: Callable[..., Any]) -> Callable[..., AgentModel]:
    """Make an agent of the toy world with large random weights."""

    def make() -> AgentModel:
        config = DynamicsModelConfig(
            dim=16, num_layers=4, num_heads=2, num_kv_heads=1, time_every=2, num_registers=1, k_max=8
        )
        heads = HeadsConfig(dim_hidden=8, mtp_length=DISTANCES, num_buckets=11, action_bins=5)
        torch.manual_seed(0)
        return awake(AgentModel(config, heads, toy_specs))

    return make


@pytest.fixture(scope="session")
def dynamics_path(packed_run: Run, cpu_runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dynamics after four steps on the packed run."""
    folder = tmp_path_factory.mktemp("dynamics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ahriuwu_cli.core.training.sinks._open_tensorboard", lambda folder, step: None)
        train_dynamics(packed_run.config.dynamics, packed_run.packed, folder, cpu_runtime, seed=0, resume=False)
    return folder / "dynamics.safetensors"
