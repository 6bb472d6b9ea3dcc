"""RMS normalisation without gain, computed in fp32 whatever precision its input has.

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


class _RmsNorm(torch.autograd.Function):
    """y = x r with r = (mean x^2 + eps)^(-1/2); dx = r (dy - y mean(dy y))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square()
        scale = (square / x.shape[-1] + EPSILON).rsqrt()
        y = torch.empty(x.shape, dtype=dtype, device=x.device)
        torch.mul(x, scale, out=y)
        ctx.save_for_backward(y, scale)
        ctx.input_dtype = x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        y, scale = ctx.saved_tensors
        y, gradient = y.float(), gradients[0].float()
        along = torch.linalg.vecdot(gradient, y).unsqueeze(-1) / y.shape[-1]
        return torch.addcmul(gradient, y, along, value=-1).mul_(scale).to(ctx.input_dtype), None


def rms_norm(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """x (..., width) -> (..., width) with mean square 1, computed in fp32 and given in `dtype`."""
    return _RmsNorm.apply(x, dtype)  # type: ignore[no-any-return, no-untyped-call]


def norm_for_product(x: Tensor) -> Tensor:
    """`rms_norm` in the type that matrix products run in, so that they need not convert it."""
    kind = x.device.type
    return rms_norm(x, torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32)


class RmsNorm(nn.Module):
    """`rms_norm` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., width), same shape out, fp32."""
        return rms_norm(x)
