"""Minuscule transformers whose weights are large enough for every dependence to show."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ahriuwu_cli.nn.transformer import SpaceTimeTransformer

DIM = 16


def loud(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fill every parameter with numbers of order one, gains included; in eval mode, without gradients."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        values = torch.rand(parameter.shape, generator=generator)
        parameter.data = 0.5 + values if parameter.dim() < 2 else values - 0.5
    return module.requires_grad_(False).eval()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def stack() -> Callable[..., SpaceTimeTransformer]:
    """Four layers, every second one over time; 4 query heads share 2 key heads."""

    def make(soft_cap: float | None = None, seed: int = 0) -> SpaceTimeTransformer:
        model = SpaceTimeTransformer(DIM, 4, num_heads=4, num_kv_heads=2, time_every=2, soft_cap=soft_cap)
        loud(model, seed)
        return model

    return make


@pytest.fixture
def tokens() -> Callable[..., torch.Tensor]:
    """(B, T, S, D) normal numbers."""

    def draw(batch: int, length: int, count: int, seed: int = 1) -> torch.Tensor:
        return torch.randn(batch, length, count, DIM, generator=torch.Generator().manual_seed(seed))

    return draw
