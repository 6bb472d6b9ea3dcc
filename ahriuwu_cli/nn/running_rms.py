"""Loss terms divided by a running root-mean-square of themselves, so that they weigh alike.

[D4] Sec. 3.1 and 3.3. The divisor is detached: the gradient flows through the loss alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


class RunningRms:
    """Exponential averages of squared loss values, one per name, with start-up bias removed.

    Args:
        decay: share of the old average kept at each update.
    """

    def __init__(self, decay: float = 0.99) -> None:
        self.decay = decay
        self._square: dict[str, Tensor] = {}
        self._weight: dict[str, Tensor] = {}

    def normalise(self, name: str, loss: Tensor) -> Tensor:
        """Update the average of `name` with a scalar loss and return loss / rms; non-finite values do not update."""
        value = loss.detach().float()
        square = self._square.get(name, torch.zeros_like(value)).to(value.device)
        weight = self._weight.get(name, torch.zeros_like(value)).to(value.device)
        finite = torch.isfinite(value.square())  # a square beyond fp32 would stay in the average for good
        square = torch.where(finite, self.decay * square + (1 - self.decay) * value.square(), square)
        weight = torch.where(finite, self.decay * weight + (1 - self.decay), weight)
        self._square[name], self._weight[name] = square, weight
        rms = (square / weight.clamp_min(1e-12)).sqrt()
        return loss / torch.where(weight > 0, rms, torch.ones_like(rms)).clamp_min(1e-8)

    def state(self) -> dict[str, Tensor]:
        """Tensors that restore the averages."""
        square = {f"square.{name}": value for name, value in self._square.items()}
        weight = {f"weight.{name}": value for name, value in self._weight.items()}
        return square | weight

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` gave."""
        self._square = {key.removeprefix("square."): v for key, v in state.items() if key.startswith("square.")}
        self._weight = {key.removeprefix("weight."): v for key, v in state.items() if key.startswith("weight.")}
