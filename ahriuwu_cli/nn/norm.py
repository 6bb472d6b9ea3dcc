"""RMS normalisation that computes in fp32 whatever precision its input has."""

from __future__ import annotations

from torch import Tensor, nn


class RmsNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm` over the last dimension, computed and returned in fp32."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., width) -> (..., width) fp32."""
        return super().forward(x.float())
