"""Measuring on held-out data in the middle of a training, as if it had not been done."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from pydantic import Field

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.training.compilation import as_written
from ahriuwu_cli.core.training.generators import generator_states, restore_generators
from ahriuwu_cli.core.training.stage import HeldoutStage, Stage, seed_everything

if TYPE_CHECKING:
    from ahriuwu_cli.core.training.session import Session

HELDOUT_SEED = 0x4E1D
"""Draws the examples, and the noise they are shown with: the same in every run and at every step."""


class Evaluation(Section):
    """What was measured after step `step`, as far as there was anything to measure."""

    step: int = 0
    values: dict[str, float] = Field(default_factory=dict)


def is_judged(stage: Stage) -> bool:
    """True where there is something to measure: the stage knows how, and some episodes are held out."""
    return isinstance(stage, HeldoutStage) and stage.goal is not None


def measure(session: Session) -> Evaluation:
    """Evaluate the weights that would be the result now (the average, where there is one).

    Nothing that training reads is changed: generators, buffers and the mode of every module are put back.
    """
    stage = session.stage
    assert isinstance(stage, HeldoutStage), "is_judged was asked before"
    with _untouched(session), torch.no_grad(), session.runtime.autocast():
        found = stage.heldout()
    return Evaluation(step=session.step, values={name: x for name, x in found.items() if math.isfinite(x)})


@contextmanager
def _untouched(session: Session) -> Iterator[None]:
    module = session.stage.module
    generators = generator_states(session.runtime)
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    seed_everything(HELDOUT_SEED)
    module.eval()
    _exchange_with_average(session)
    try:
        # these batches have shapes of their own, for which blocks would be compiled again
        with nullcontext() if session.compiled is None else as_written():
            yield
    finally:
        _exchange_with_average(session)
        for part, training in modes:
            part.training = training
        for buffer, before in buffers:
            buffer.copy_(before)
        restore_generators(session.runtime, *generators)


def _exchange_with_average(session: Session) -> None:
    """Let the trained tensors and their averages change places, without copying; a second time undoes it."""
    if session.average is None:
        return
    averages = session.average.tensors
    for name, parameter in session.parameters.items():
        parameter.data, averages[name] = averages[name], parameter.data
