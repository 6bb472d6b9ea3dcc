"""`bench dynamics`: training steps on given latents, without and with bootstrap targets.

Shapes: B examples, T frames per example, N latent tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from ahriuwu_cli.bench.config import BenchConfig
from ahriuwu_cli.bench.flops import dynamics_training, usual_training
from ahriuwu_cli.bench.machine import Machine
from ahriuwu_cli.bench.measured import Findings
from ahriuwu_cli.bench.training import Loss, TrainingWork, measure_training
from ahriuwu_cli.core.device import apply_threads, resolve_runtime
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, LatentSpec
from ahriuwu_cli.dynamics.model import DynamicsModel
from ahriuwu_cli.dynamics.train import dynamics_loss
from ahriuwu_cli.latents.windows import LatentBatch


def bench_dynamics(config: BenchConfig, *, profile: bool = False) -> Report:
    """Measure training steps: without bootstrap, and with the objective's share of bootstrap rows.

    Raises:
        DeviceError: the device is absent, cannot compute in the precision, or is too small.
    """
    apply_threads(config.run)
    machine, findings = Machine(resolve_runtime(config.run), config.timing), Findings()
    machine.visit()
    for fraction in sorted({0.0, config.dynamics.objective.bootstrap_fraction}):
        measure_training(_step(config, fraction), config, machine, findings, profile=profile)
        machine.visit()
    return findings.report("dynamics", config, ("latent", "train", "dynamics"), machine)


def _step(config: BenchConfig, fraction: float) -> TrainingWork:
    """The training step with this share of bootstrap rows."""
    work = config.dynamics
    objective = work.objective.model_copy(update={"bootstrap_fraction": fraction})

    def loss(module: nn.Module, device: torch.device) -> Loss:
        assert isinstance(module, DynamicsModel)
        batch = given_batch(config, work.batch_size, work.length).to(device)
        return lambda: dynamics_loss(module, batch, objective, config.sampler.tau_context)

    def count(counted: Callable[[DynamicsModel, int, int, float], int], module: nn.Module) -> int:
        assert isinstance(module, DynamicsModel)
        return counted(module, work.batch_size, work.length, fraction)

    return TrainingWork(
        name=f"training step, bootstrap on {fraction:.0%} of rows" if fraction else "training step, no bootstrap",
        kind="dynamics",
        shape=(work.batch_size, work.length),
        build=lambda: build_dynamics(config),
        loss=loss,
        flops=partial(count, dynamics_training),
        usual_flops=partial(count, usual_training),
    )


def build_dynamics(config: BenchConfig) -> DynamicsModel:
    """The dynamics of the work with fresh weights, on the CPU."""
    latent, action = work_specs(config)
    return DynamicsModel(config.dynamics.model, latent, action)


def work_specs(config: BenchConfig) -> tuple[LatentSpec, ActionSpec]:
    """Latents in [-1, 1] and one categorical action."""
    shape = config.latent
    component = ActionComponent(name="action", type="categorical", num_classes=shape.num_actions)
    latent = LatentSpec(num_tokens=shape.num_tokens, dim_token=shape.dim_token, layout="made up", bound=1.0)
    return latent, ActionSpec(components=(component,))


def given_batch(config: BenchConfig, batch: int, length: int) -> LatentBatch:
    """Made-up windows: latents (B, T, N, C) in [-1, 1] and random actions (B, T, 1), all valid."""
    shape, generator = config.latent, torch.Generator().manual_seed(config.run.seed)
    latents = torch.rand(batch, length, shape.num_tokens, shape.dim_token, generator=generator) * 2 - 1
    action = torch.randint(shape.num_actions, (batch, length, 1), generator=generator).float()
    known, reward = torch.ones(batch, length, dtype=torch.bool), torch.zeros(batch, length)
    return LatentBatch(latents, action, known, reward, known, ~known, known, torch.zeros(batch, dtype=torch.long))
