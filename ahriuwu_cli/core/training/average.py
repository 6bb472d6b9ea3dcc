"""Exponential moving average of the weights that learn; the artifact holds it in their place."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of trained tensors over optimiser steps; skipped steps do not enter.

    The decay of update n (from 0) is min(decay, (1 + n) / (10 + n)): the start weighs nothing after a few updates.

    Args:
        parameters: what is averaged, by name; the average starts as a copy.
        decay: in (0, 1); a weight of 1/e is left after about 1 / (1 - decay) updates.

    Attributes:
        tensors: the averages by name, on the parameters' devices.
        updates: how many optimiser steps they have seen.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        assert 0 < decay < 1, "an average needs a decay between 0 and 1"
        self._parameters, self._decay = dict(parameters), decay
        self.tensors = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move every average towards its parameter."""
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_([*self.tensors.values()], [*self._parameters.values()], 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Take back saved averages of the same names."""
        assert tensors.keys() == self.tensors.keys(), "one average per trained tensor"
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
        self.updates = updates

    def state_dict(self, module: nn.Module) -> dict[str, Tensor]:
        """The state dict of `module` with the averages in place of its trained tensors."""
        names = {id(parameter): name for name, parameter in self._parameters.items()}
        return {
            key: self.tensors[names[id(value)]] if id(value) in names else value.detach()
            for key, value in module.state_dict(keep_vars=True).items()
        }
