"""One optimiser step: micro-batches, backward, clipping, optimiser, average; skipped when it is not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ahriuwu_cli.core.device import is_out_of_memory
from ahriuwu_cli.core.errors import AhriuwuError, DeviceError
from ahriuwu_cli.core.training.session import Session, StepStart


@dataclass(frozen=True)
class StepOutcome:
    """One step: its metrics and gradient norm, or the fault for which it was skipped.

    `metrics` are those of each micro-batch and then the step's own (loss, gradient_norm, clipped), all to be averaged.
    """

    metrics: tuple[Mapping[str, Tensor | float], ...] = ()
    norm: float = math.nan
    fault: str | None = None


def take_step(session: Session, rate: float) -> StepOutcome:
    """One optimiser step at this learning rate; a non-finite loss or gradient leaves weights and moments untouched.

    A step that fails while blocks are compiled is taken anew without, as if they never had been.

    Raises:
        DeviceError: the device ran out of memory.
    """
    try:
        if session.compiled is None:
            return _try_step(session, rate)
        start = StepStart(session)
        try:
            return _try_step(session, rate)
        except AhriuwuError:
            raise
        except Exception as error:  # a fault of the stage itself comes again below
            if is_out_of_memory(error):
                raise
            session.compiled.give_up(error)
            session.compiled = None
        start.restore()
        return _try_step(session, rate)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"{session.runtime.device} ran out of memory in step {session.step + 1}",
            hint="set train.recompute = true and --resume, or start anew with a lower train.batch_size "
            "(train.accumulate makes up for it) or a smaller model",
        ) from error


def _try_step(session: Session, rate: float) -> StepOutcome:
    optimizer, scaler, limit = session.optimizer, session.scaler, session.settings.clip_norm
    optimizer.zero_grad()
    loss, metrics = _backward(session)
    if scaler is not None:
        optimizer.unscale(scaler)
    gradients = [parameter.grad for parameter in session.parameters.values() if parameter.grad is not None]
    total_norm = get_total_norm(gradients)
    # The first look at any number of this step: a device computes up to here without waiting for Python.
    norm, value = total_norm.item(), loss.item()

    finite = math.isfinite(value) and math.isfinite(norm)
    overflow = scaler is not None and scaler.get_scale() > 1  # fp16 range: the scaler halves and goes on
    if finite:
        if norm > limit:
            clip_grads_with_norm_(session.parameters.values(), limit, total_norm)
        optimizer.step(rate, scaler)
        if session.average is not None:
            session.average.update()
    if scaler is not None:
        scaler.update()
    if not math.isfinite(value):
        return StepOutcome(fault=f"the loss is {value}")
    if finite:
        return StepOutcome((*metrics, {"loss": value, "gradient_norm": norm, "clipped": float(norm > limit)}), norm)
    if overflow:
        return StepOutcome((*metrics, {"loss": value}))
    return StepOutcome(fault=f"the gradient norm is {norm}")


def _backward(session: Session) -> tuple[Tensor, list[dict[str, Tensor | float]]]:
    """Gradients of the mean loss over the step's micro-batches.

    Returns:
        That mean, and the metrics of each micro-batch.
    """
    count, scaler = session.settings.accumulate, session.scaler
    losses, metrics = [], []
    for part in range(count):
        batch = session.loader.take(session.step, part)
        with session.runtime.autocast():
            loss, found = session.stage.loss(session.step, batch)
        assert loss.ndim == 0, f"a stage's loss is a scalar, found shape {tuple(loss.shape)}"
        share = loss.float() / count
        torch.autograd.backward(share if scaler is None else scaler.scale(share))
        losses.append(share.detach())
        # detached: a metric must not keep the graph of its micro-batch alive
        metrics.append({k: v.detach() if isinstance(v, Tensor) else v for k, v in found.items()})
    return torch.stack(losses).sum(), metrics
