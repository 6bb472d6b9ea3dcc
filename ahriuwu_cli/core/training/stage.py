"""What a training stage is to the loop: the protocol, and the plain values it hands over."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from ahriuwu_cli.core.artifact import Kind
from ahriuwu_cli.core.training.batches import Batch


@dataclass(frozen=True)
class ArtifactFields:
    """The header of a stage's artifact (see `core.artifact.Header`); everything in it must be JSON."""

    config: dict[str, Any]
    specs: dict[str, Any] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageState:
    """What a stage carries from step to step besides weights and optimiser.

    `tensors` keep dtype and bits; `values` must be JSON (numbers finite, tuples come back as lists,
    integers of any size allowed, so a NumPy generator's state dict fits). Which batch comes next is no part of it.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


class Stage(Protocol):
    """One kind of training: a module, the tensors of it that learn, and a loss.

    `kind` names the artifact; `module.state_dict()` is exactly what the artifact stores. The module
    is on the runtime's device before `train` is called.
    """

    @property
    def kind(self) -> Kind:
        """The kind of artifact this stage writes."""
        ...

    @property
    def module(self) -> nn.Module:
        """The module whose state dict is stored."""
        ...

    @property
    def losses(self) -> tuple[str, ...]:
        """Metrics of a step whose fall shows that it learns: not those over their own running average."""
        ...

    def trained(self) -> dict[str, nn.Parameter]:
        """Declare what learns, by name; the loop freezes all other parameters of the module."""
        ...

    def batch(self, step: int, part: int) -> Batch:
        """What step `step` (from 0) learns from, on the CPU; of its micro-batches the one with the number `part`.

        A function of these two and the plan (see `PlannedStage`), whatever was read before; it draws from nothing but
        `batches.batch_generator`.
        """
        ...

    def loss(self, step: int, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The scalar loss and scalar metrics of a batch of step `step`, which `batch` gave, on the runtime's device.

        With `accumulate` above 1 this is called as often in every step, with the same number, for one micro-batch each.
        Called under `runtime.autocast()`. When the loss comes out non-finite the step is skipped, but
        this call has happened: running normalisers kept here must ignore non-finite values. Metrics
        named `spread` and `spread_reference` (spread of the prediction across examples and that of
        the truth) are watched for collapse.
        """
        ...

    def describe(self) -> ArtifactFields:
        """Header fields of the artifact."""
        ...

    def state(self) -> StageState:
        """Everything beyond weights and optimiser that an exact resume needs (running averages, own generators)."""
        ...

    def load_state(self, state: StageState) -> None:
        """Take back what `state` returned; tensors come on the CPU."""
        ...


@dataclass(frozen=True)
class Goal:
    """The held-out metric that says how far a training has come: lower is better, or `higher`.

    Attributes:
        name: the metric by which weights are compared.
        higher: whether more of it, and of `others`, is better.
        others: metrics in the same unit whose improvement is progress, too.
        after: steps up to which it says nothing, because what it measures does not learn yet.
    """

    name: str
    higher: bool = False
    others: tuple[str, ...] = ()
    after: int = 0

    def names(self) -> tuple[str, ...]:
        """All metrics whose improvement is progress."""
        return (self.name, *self.others)

    def better(self, value: float, than: float) -> bool:
        """True when `value` is."""
        return value > than if self.higher else value < than


@runtime_checkable
class HeldoutStage(Protocol):
    """A stage that can be judged on recordings it does not learn from.

    `goal` is None where nothing is held out, or what is held out is too short.
    """

    @property
    def goal(self) -> Goal | None:
        """One of the metrics that `heldout` gives."""
        ...

    def heldout(self) -> dict[str, float]:
        """Metrics by names that begin with `heldout_`, on the same examples in every call; NaN: nothing to measure.

        Called without gradient, under autocast, with the module in eval mode and the global generators at a state of
        their own. Nothing of the stage's state may change.
        """
        ...


@dataclass(frozen=True)
class Opening:
    """What a stage says of its data before the first step: lines to be shown, and warnings."""

    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@runtime_checkable
class OpeningStage(Protocol):
    """A stage that has looked at its data and has something to say of it."""

    def opening(self) -> Opening:
        """Asked once, when a training begins."""
        ...


@runtime_checkable
class PlannedStage(Protocol):
    """A stage that does something at the end of its training, and so must know where that is."""

    def plan(self, total: int) -> None:
        """Take the number of steps there will be: before the first one, and when the end is moved."""
        ...


def seed_everything(seed: int) -> None:
    """Seed the global generators of torch (all devices), NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    """Names of the tensors that differ between two state dicts of the same names."""
    assert before.keys() == after.keys(), "two state dicts of one module have the same names"
    return {name for name in before if not torch.equal(before[name].cpu(), after[name].cpu())}
