"""Timing the loop's own optimiser step on a batch that is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ahriuwu_cli.bench.config import BenchConfig
from ahriuwu_cli.bench.flops import num_parameters
from ahriuwu_cli.bench.machine import Machine
from ahriuwu_cli.bench.measured import Findings, Item
from ahriuwu_cli.bench.profile import profile_work
from ahriuwu_cli.bench.timing import PeakMemory, Spread, measure
from ahriuwu_cli.core.artifact import Kind
from ahriuwu_cli.core.memory import estimate_step_memory, require_memory
from ahriuwu_cli.core.training.batches import Batch
from ahriuwu_cli.core.training.session import Session
from ahriuwu_cli.core.training.stage import ArtifactFields, StageState, seed_everything
from ahriuwu_cli.core.training.step import take_step

Loss = Callable[[], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class TrainingWork:
    """One kind of training step.

    Attributes:
        name: what it is.
        kind: the kind of artifact that such a training writes.
        shape: (B, T) of one batch.
        build: makes the module, on the CPU.
        loss: for a module and its device, the loss and metrics of one batch; the batch is made once.
        flops: operations that one batch takes the module.
        usual_flops: the same counted as papers do; None where that is no matter.
    """

    name: str
    kind: Kind
    shape: tuple[int, int]
    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module, torch.device], Loss]
    flops: Callable[[nn.Module], int]
    usual_flops: Callable[[nn.Module], int] | None = None


class GivenStage:
    """A training stage without recordings behind it: every step has the same batch."""

    losses: tuple[str, ...] = ()

    def __init__(self, work: TrainingWork, device: torch.device) -> None:
        self.kind, self.module = work.kind, work.build().to(device)
        self._loss = work.loss(self.module, device)

    def trained(self) -> dict[str, nn.Parameter]:
        """Every tensor."""
        return dict(self.module.named_parameters())

    def batch(self, step: int, part: int) -> Batch:
        """Nothing: there are no recordings."""
        del step, part
        return Batch()

    def loss(self, step: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Loss and metrics of the given batch."""
        del step, batch
        loss, metrics = self._loss()
        return loss, dict(metrics)

    def describe(self) -> ArtifactFields:
        """Nothing to tell: no artifact is written."""
        return ArtifactFields(config={})

    def state(self) -> StageState:
        """Nothing to keep."""
        return StageState()

    def load_state(self, state: StageState) -> None:
        """Nothing to take back."""
        assert state == StageState(), "a given batch has no state"


def measure_training(
    work: TrainingWork, config: BenchConfig, machine: Machine, findings: Findings, *, profile: bool
) -> None:
    """Measure one kind of training step, with a look at the machine's peak after every repeat.

    Raises:
        DeviceError: the step does not fit into memory.
    """
    runtime, timing = machine.runtime, config.timing
    settings = config.train.settings(work.shape[0])
    here = torch.device("cpu")
    need = estimate_step_memory(work.build, lambda module: work.loss(module, here)()[0], settings, runtime)
    require_memory(runtime, need, work.name)
    memory = PeakMemory(runtime.device)
    seed_everything(config.run.seed)
    session = Session(GivenStage(work, runtime.device), settings, runtime, config.run.seed)
    module = session.stage.module.train()
    if runtime.compile:
        session.compile(findings.notes.append)

    def step() -> None:
        outcome = take_step(session, settings.learning_rate)
        assert outcome.fault is None, outcome.fault
        session.step += 1

    with session.loader:
        seconds = measure(step, timing.repeats, timing.warmup, runtime.device, between=machine.sample)
    batches = settings.accumulate
    item = Item(
        work.name,
        Spread.of(seconds),
        frames=batches * work.shape[0] * work.shape[1],
        flops=batches * work.flops(module),
        usual_flops=None if work.usual_flops is None else batches * work.usual_flops(module),
        peak_bytes=memory.bytes(),
        parameters=num_parameters(module),
    )
    findings.items.append(item)
    if profile:
        with session.loader:
            findings.profiles.append(profile_work(work.name, step, runtime.device))
