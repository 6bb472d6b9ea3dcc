"""A small training stage that uses every kind of state a resume must restore; also run by subprocess tests."""

from __future__ import annotations

import math
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.training.batches import Batch
from ahriuwu_cli.core.training.config import TrainSettings
from ahriuwu_cli.core.training.recompute import Recomputing
from ahriuwu_cli.core.training.stage import ArtifactFields, Goal, StageState, seed_everything


class ToyNet(Recomputing):
    """An autoencoder of 4 numbers with dropout in its one block, a moving buffer, a frozen layer and an unused one."""

    def __init__(self, unused: bool) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 8)
        self.frozen = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.1)
        self.outer = nn.Linear(8, 4)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        if unused:
            self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.outer(self.call(self.hidden, x))

    def hidden(self, x: Tensor) -> Tensor:
        return self.dropout(torch.tanh(self.frozen(self.inner(x))))


class ToyStage:
    """Draws from its own generator, from torch's, NumPy's and Python's; keeps a running RMS."""

    kind = "dynamics"
    losses = ("error",)

    def __init__(
        self,
        *,
        nan_loss: frozenset[int] = frozenset(),
        nan_gradient: frozenset[int] = frozenset(),
        stop_at: int | None = None,
        stop_signal: int = signal.SIGTERM,
        crash_at: int | None = None,
        config: dict | None = None,
        parents: dict | None = None,
        unused: bool = False,
        sleep: float = 0.0,
        device: str = "cpu",
    ) -> None:
        seed_everything(1)
        self.module = ToyNet(unused).to(device)
        self.generator = torch.Generator().manual_seed(7)
        self.numpy_generator = np.random.default_rng(7)
        self.rms = 1.0
        self.nan_loss, self.nan_gradient = nan_loss, nan_gradient
        self.stop_at, self.stop_signal, self.crash_at = stop_at, stop_signal, crash_at
        self.config, self.parents = config or {"model": {"dim": 8}}, parents or {"latents": "0123456789abcdef"}
        self.sleep = sleep
        self.seen: list[dict[str, Tensor]] = []  # weights at the start of every step

    def trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.module.named_parameters() if not name.startswith("frozen")}

    def batch(self, step: int, part: int) -> Batch:
        return Batch()

    def loss(self, step: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        if self.sleep:
            time.sleep(self.sleep)
        if step == self.crash_at:
            raise RuntimeError("crash")
        if step == self.stop_at:
            self.stop_at = None  # once, also when the step has several micro-batches
            os.kill(os.getpid(), self.stop_signal)
        self.seen.append({name: tensor.clone() for name, tensor in self.module.state_dict().items()})
        device = next(self.module.parameters()).device
        x = torch.randn(16, 4, generator=self.generator) * float(self.numpy_generator.uniform(0.9, 1.1))
        x = (x + 0.01 * np.random.standard_normal() + 0.01 * random.random()).to(device)
        guess = self.module(x)
        error = (guess - x).square().mean()
        if step in self.nan_loss:
            error = error * math.nan
        if step in self.nan_gradient:
            error = error + (self.module.inner.weight * 0).sqrt().sum()  # value 0, gradient NaN
        value = error.detach().float().item()
        if math.isfinite(value):
            self.rms = 0.9 * self.rms + 0.1 * value
        return error / self.rms, {"error": error, "spread": guess.std(), "spread_reference": 1.0}

    def describe(self) -> ArtifactFields:
        return ArtifactFields(self.config, {"width": 4}, self.parents, {"toy": True})

    def state(self) -> StageState:
        return StageState(
            {"generator": self.generator.get_state()},
            {"rms": self.rms, "numpy": self.numpy_generator.bit_generator.state},
        )

    def load_state(self, state: StageState) -> None:
        self.generator.set_state(state.tensors["generator"])
        self.numpy_generator.bit_generator.state = state.values["numpy"]
        self.rms = state.values["rms"]


TOY_GOAL = Goal("heldout_error")


class JudgedToy(ToyStage):
    """A toy whose held-out error is measured with every generator there is.

    Args:
        script: held-out errors in place of the measured ones, in the order of the calls.
        goal: None for a toy that nothing is held out for.
    """

    def __init__(self, script: tuple[float, ...] = (), goal: Goal | None = TOY_GOAL, **options) -> None:
        super().__init__(**options)
        self.goal, self.script = goal, script
        self.measured: list[tuple[float, bool]] = []  # values, and whether the network was in train mode

    def heldout(self) -> dict[str, float]:
        device = next(self.module.parameters()).device
        x = (torch.randn(32, 4) + np.random.standard_normal() + random.random()).to(device)
        error = (self.module(x) - x).square().mean().item()
        if self.script:
            error = self.script[min(len(self.measured), len(self.script) - 1)]
        self.measured.append((error, self.module.training or self.module.dropout.training))
        return {"heldout_error": error, "heldout_nothing": math.nan}


def toy_settings(**changes) -> TrainSettings:
    values = {"steps": 12, "batch_size": 16, "learning_rate": 0.01, "warmup_steps": 3, "log_every": 2}
    return TrainSettings(**{**values, "checkpoint_every": 5, **changes})


CPU = Runtime(torch.device("cpu"), "fp32")


@pytest.fixture
def toy(request, monkeypatch):
    """The stage; without TensorBoard, whose import takes seconds, except in the tests named after it."""
    if "tensorboard" not in request.node.name:
        monkeypatch.setattr("ahriuwu_cli.core.training.sinks._open_tensorboard", lambda folder, step: None)
    return ToyStage


@pytest.fixture
def judged_toy(toy):
    return JudgedToy


@pytest.fixture
def settings():
    return toy_settings


@pytest.fixture
def cpu():
    return CPU
