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
    def forward(ctx: Any, x: Tensor) -> Tensor:
        width = x.shape[-1]
        scale = (torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / width + EPSILON).rsqrt()
        y: Tensor = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        y, scale = ctx.saved_tensors
        along = torch.linalg.vecdot(gradient, y).unsqueeze(-1) / y.shape[-1]
        return torch.addcmul(gradient, y, along, value=-1).mul_(scale)


def rms_norm(x: Tensor) -> Tensor:
    """x (..., width) -> (..., width) in fp32 with mean square 1."""
    return _RmsNorm.apply(x.float())  # type: ignore[no-any-return, no-untyped-call]


class RmsNorm(nn.Module):
    """`rms_norm` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., width), same shape out, fp32."""
        return rms_norm(x)
