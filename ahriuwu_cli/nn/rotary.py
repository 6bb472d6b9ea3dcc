"""QK-norm followed by rotary position embedding, as one operation.

Shapes: L positions, E head width (even).

The backward pass is written by hand: automatic differentiation of the formulas would go over the same few megabytes
three times as often, which is what a training step of a small model waits for on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ahriuwu_cli.nn.norm import EPSILON

Table = tuple[Tensor, Tensor]
"""Cosines and sines (L, E/2) in fp32."""


def rotary_table(start: int, length: int, dim_head: int, device: torch.device, base: float = 10_000.0) -> Table:
    """Cosines and sines of positions start .. start + length - 1: two tensors (L, E/2) in fp32.

    Angles are computed in double precision, so that they stay exact however far a dream has gone.
    """
    frequency = base ** (-torch.arange(0, dim_head, 2, dtype=torch.float64) / dim_head)
    angle = torch.arange(start, start + length, dtype=torch.float64)[:, None] * frequency  # (L, E/2)
    return angle.cos().float().to(device), angle.sin().float().to(device)


def rotate(x: Tensor, table: Table) -> Tensor:
    """Rotate x (..., L, E) by the table of its L positions; keeps x's dtype, contiguous. Not to be differentiated."""
    cos, sin = (part.to(x.dtype) for part in table)
    first, second = x.chunk(2, dim=-1)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    left, right = y.chunk(2, dim=-1)
    torch.mul(first, cos, out=left).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=right).addcmul_(first, sin)
    return y


class _NormRotate(torch.autograd.Function):
    """y = R n with n = x r, r = (mean x^2 + eps)^(-1/2); with g = R^T dy: dx = r (g - n mean(g n))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square()
        scale = (square / x.shape[-1] + EPSILON).rsqrt()
        n = torch.empty(x.shape, dtype=x.dtype, device=x.device)  # contiguous, whatever the strides of x
        torch.mul(x, scale, out=n)
        ctx.save_for_backward(n, scale, cos, sin)
        return rotate(n, (cos, sin))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        n, scale, cos, sin = ctx.saved_tensors
        g = rotate(gradients[0], (cos, -sin))
        along = (torch.linalg.vecdot(g, n).unsqueeze(-1) / n.shape[-1]).to(g.dtype)
        return torch.addcmul(g, n, along, value=-1).mul_(scale), None, None


def norm_rotate(x: Tensor, table: Table) -> Tensor:
    """RMS-normalise x (..., L, E) over E, then rotate by the table of its L positions; keeps x's dtype, contiguous."""
    y: Tensor = _NormRotate.apply(x, *table)  # type: ignore[no-untyped-call]
    return y
