"""RMS normalisation without gain, computed in fp32 at the least whatever precision its input has.

A gain would be redundant: norms stand before a linear layer, or before attention logits that have a scale of their
own (those inside the heads' networks, before a SiLU, simply go without). The hand-written backward pass touches
memory less often than automatic differentiation of the formula, which on a CPU is what a training step of a small
model waits for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

EPSILON = 1e-6


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type in which numbers of this type are summed: fp32, or double precision for what comes in it."""
    return torch.promote_types(dtype, torch.float32)


def widened(x: Tensor) -> Tensor:
    """x in the `wide` type."""
    return x.to(wide(x.dtype))


def inverse_rms(x: Tensor) -> Tensor:
    """(mean x^2 + eps)^(-1/2) over the last dimension of x (..., width): (..., 1) in fp32 at the least."""
    width, dtype = x.shape[-1], wide(x.dtype)
    square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype).square_()
    scale: Tensor = square.add_(width * EPSILON).rsqrt_().mul_(width**0.5)
    return scale


def _normed(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x / rms(x) in `dtype`, contiguous whatever the strides of x; and 1 / rms(x)."""
    scale = inverse_rms(x)
    y = torch.empty(x.shape, dtype=dtype, device=x.device)
    return torch.mul(x, scale, out=y), scale


class _RmsNorm(torch.autograd.Function):
    """y = x r with r = (mean x^2 + eps)^(-1/2); dx = r (dy - y mean(dy y))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        y, scale = _normed(x, dtype)
        ctx.save_for_backward(y, scale)
        ctx.input_dtype = x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        y, scale = ctx.saved_tensors
        y, gradient = widened(y), widened(gradients[0])
        along = torch.linalg.vecdot(gradient, y).unsqueeze(-1) / y.shape[-1]
        return torch.addcmul(gradient, y, along, value=-1).mul_(scale).to(ctx.input_dtype), None


def rms_norm(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """x (..., width) -> (..., width) with mean square 1, computed in fp32 at the least and given in `dtype`, or so."""
    dtype = dtype or wide(x.dtype)
    if not torch.is_grad_enabled():
        return _normed(x, dtype)[0]
    return _RmsNorm.apply(x, dtype)  # type: ignore[no-any-return, no-untyped-call]


def product_dtype(x: Tensor) -> torch.dtype:
    """The type that matrix products of x run in here: that of autocast, else fp32 at the least."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return wide(x.dtype)


def norm_for_product(x: Tensor) -> Tensor:
    """`rms_norm` in the type that matrix products run in, so that they need not convert it."""
    return rms_norm(x, product_dtype(x))


class RmsNorm(nn.Module):
    """`rms_norm` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., width), same shape out, fp32."""
        return rms_norm(x)
