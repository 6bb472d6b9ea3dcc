"""Gradient checkpointing: blocks whose insides are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def _checkpoint(block: Callable[..., Tensor], *args: object) -> Tensor:
    result: Tensor = checkpoint(block, *args, use_reentrant=False)
    return result


class Recomputing(nn.Module):
    """A module that sends its blocks through `call`.

    `recompute` is off until `set_recompute` turns it on. It saves memory (what a block keeps for the backward pass
    shrinks to its inputs) for time (one more forward pass of every block); gradients stay the same. It depends on
    whether gradients are recorded and on nothing else, train or eval mode included.
    """

    recompute: bool = False
    _keep_inputs: Callable[..., Tensor] = staticmethod(_checkpoint)

    def call(self, block: Callable[..., Tensor], *args: object) -> Tensor:
        """Compute `block(*args)`, keeping only `args` for the backward pass when `recompute` is on.

        `block` must compute the same when it is called again: random draws from torch's global generators are
        repeated, but nothing may be written (a cache, a running average).
        """
        if self.recompute and torch.is_grad_enabled():
            return self._keep_inputs(block, *args)
        return block(*args)


def set_recompute(module: nn.Module, on: bool) -> None:
    """Turn recomputation on or off in every `Recomputing` part of a module, itself included."""
    for part in recomputing_parts(module):
        part.recompute = on


def learning_parts(module: nn.Module) -> list[Recomputing]:
    """The `Recomputing` parts of a module, itself included, that hold a parameter with `requires_grad`."""
    parts = recomputing_parts(module)
    return [part for part in parts if any(parameter.requires_grad for parameter in part.parameters())]


@contextmanager
def instead_of_checkpoints(module: nn.Module, keep_inputs: Callable[..., Tensor]) -> Iterator[None]:
    """Context in which blocks that would be recomputed go through `keep_inputs(block, *args)`: to measure them."""
    parts = recomputing_parts(module)
    for part in parts:
        part._keep_inputs = keep_inputs
    try:
        yield
    finally:
        for part in parts:
            del part._keep_inputs


def recomputing_parts(module: nn.Module) -> list[Recomputing]:
    """The `Recomputing` parts of a module, itself included."""
    return [part for part in module.modules() if isinstance(part, Recomputing)]
