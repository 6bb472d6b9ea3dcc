"""Rotary position embedding, applied after QK-norm.

Shapes: L positions, E head width (even).
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_table(positions: Tensor, dim_head: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines for integer positions (L,): two tensors (L, E/2) in fp32."""
    frequency = base ** (-torch.arange(0, dim_head, 2, device=positions.device, dtype=torch.float32) / dim_head)
    angle = positions.float()[:, None] * frequency  # (L, E/2)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate x (..., L, E) by the table of its L positions; keeps x's dtype."""
    cos, sin = (part.to(x.dtype) for part in table)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
