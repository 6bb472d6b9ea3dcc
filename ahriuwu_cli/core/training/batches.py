"""What a training step learns from, and the generator that draws it.

The batch of a step is a function of (seed, step, micro-batch) and nothing else: a resumed training goes on with the
very batches of one that was never stopped, and batches can be read ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor

STREAM = 0xBA7C4
"""Sets batches apart from everything else that is drawn with a seed.

It comes last: a seed sequence takes [seed] and [seed, 0] for the same.
"""


def batch_generator(seed: int, step: int, part: int = 0) -> np.random.Generator:
    """The source of all randomness in which examples a (micro-)batch holds.

    Args:
        seed: of the training.
        step: from 0.
        part: the micro-batch of the step, from 0.
    """
    return np.random.default_rng([seed, step, part, STREAM])


@dataclass(frozen=True)
class Batch:
    """Tensors, other batches, or None where a step needs no such thing; one without fields for stages without data."""

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Self:
        """The same batch on a device; with `non_blocking` a copy from pinned memory goes on beside what follows."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pinned(self) -> Self:
        """The same batch in memory that a CUDA device can copy from by itself."""
        return self._mapped(lambda tensor: tensor.pin_memory())

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: _changed(value, change) for name, value in values.items()})


def _changed(value: Tensor | Batch | None, change: Callable[[Tensor], Tensor]) -> Tensor | Batch | None:
    if isinstance(value, Batch):
        return value._mapped(change)
    return None if value is None else change(value)
