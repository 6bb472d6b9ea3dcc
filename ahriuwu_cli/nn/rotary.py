"""QK-norm followed by rotary position embedding, as one operation.

Shapes: L positions, E head width (even).

The backward pass is written by hand: automatic differentiation of the formulas would go over the same few megabytes
three times as often, which is what a training step of a small model waits for on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ahriuwu_cli.nn.norm import inverse_rms, wide, widened

Table = tuple[Tensor, Tensor]
"""Two tensors (L, E): cosines, and sines that are negative in the first half of the width."""

CHUNK = 256
"""Positions that `Rotary` computes at a time."""

KEPT = 16
"""Chunks that it keeps."""


def rotary_table(
    start: int,
    length: int,
    dim_head: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    base: float = 10_000.0,
) -> Table:
    """Cosines and sines of positions start .. start + length - 1: two tensors (L, E), see `Table`.

    Angles are computed in double precision, so that they stay exact however far a dream has gone.
    """
    frequency = base ** (-torch.arange(0, dim_head, 2, dtype=torch.float64) / dim_head)
    angle = torch.arange(start, start + length, dtype=torch.float64)[:, None] * frequency  # (L, E/2)
    cos, sin = angle.cos(), angle.sin()
    both = torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)
    return both[0].to(device, dtype), both[1].to(device, dtype)


class Rotary:
    """Tables of one head width; what was computed lately is not computed again."""

    def __init__(self, dim_head: int) -> None:
        self._dim_head = dim_head
        self._kept: dict[tuple[int, int, torch.dtype, torch.device], Table] = {}

    def table(self, start: int, length: int, dtype: torch.dtype, device: torch.device) -> Table:
        """`rotary_table` of positions start .. start + length - 1."""
        chunk, offset = divmod(start, CHUNK)
        size = CHUNK + length if start else length  # what starts at 0 comes again and again as it is
        key = chunk, size, dtype, device
        if key not in self._kept:
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = rotary_table(chunk * CHUNK, size, self._dim_head, device, dtype)
        cos, sin = self._kept[key]
        return cos[offset : offset + length], sin[offset : offset + length]


def rotate(x: Tensor, table: Table) -> Tensor:
    """Rotate x (..., L, E) by the table of its L positions; keeps x's dtype, contiguous. Not to be differentiated.

    Whole rows at a time: operations on the halves of a row take longer on a CPU.
    """
    cos, sin = (part.to(x.dtype) for part in table)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([second, first], dim=-1).mul_(sin).addcmul_(x, cos)


def _norm_rotate(x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """R n, n = x r and r, in fp32 at the least.

    One copy of x is made first, contiguous whatever its strides: each operation that mixes types would make its own.
    """
    n = torch.empty(x.shape, dtype=wide(x.dtype), device=x.device).copy_(x)
    scale = inverse_rms(n)
    n.mul_(scale)
    return rotate(n, (cos, sin)), n, scale


class _NormRotate(torch.autograd.Function):
    """y = R n with n = x r, r = (mean x^2 + eps)^(-1/2); with g = R^T dy: dx = r (g - n mean(g n))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        y, n, scale = _norm_rotate(x, cos, sin)
        ctx.save_for_backward(n.to(x.dtype), scale, cos, sin)
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        kept, scale, cos, sin = ctx.saved_tensors
        n, g = widened(kept), rotate(widened(gradients[0]), (cos, -sin))
        along = torch.linalg.vecdot(g, n).unsqueeze(-1) / n.shape[-1]
        return g.addcmul_(n, along, value=-1).mul_(scale).to(kept.dtype), None, None


def norm_rotate(x: Tensor, table: Table) -> Tensor:
    """RMS-normalise x (..., L, E) over E, then rotate by the table of its L positions; keeps x's dtype, contiguous."""
    if not torch.is_grad_enabled():
        return _norm_rotate(x, *table)[0].to(x.dtype)
    y: Tensor = _NormRotate.apply(x, *table)  # type: ignore[no-untyped-call]
    return y
