"""Dynamics of minuscule size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ahriuwu_cli.dynamics.checkpoint import WorldSpecs
from ahriuwu_cli.dynamics.config import DynamicsModelConfig
from ahriuwu_cli.dynamics.model import DynamicsModel


@pytest.fixture(autouse=True)
def _quiet(no_tensorboard: None) -> None:
    """No TensorBoard in this folder."""


@pytest.fixture(scope="session")
def build(toy_specs: WorldSpecs, awake: Callable[..., Any]) -> Callable[..., DynamicsModel]:
    """Make dynamics of the toy world with large random weights; keywords change the model's config."""

    def make(num_tasks: int = 0, **changes: Any) -> DynamicsModel:
        sizes = {"dim": 16, "num_layers": 4, "num_heads": 2, "num_kv_heads": 1, "time_every": 2, "num_registers": 1}
        config = DynamicsModelConfig(**{**sizes, "k_max": 8, **changes})
        torch.manual_seed(0)
        return awake(DynamicsModel(config, toy_specs.latent, toy_specs.action, num_tasks))

    return make
