"""Symexp two-hot distributions: a real number as a mixture of two neighbouring buckets.

Shapes: N buckets. Buckets are equally spaced in symlog space over [-limit, limit]. [D4] Sec. 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|)."""
    return x.sign() * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """Inverse of symlog."""
    return x.sign() * torch.expm1(x.abs())


class TwoHot:
    """Fixed buckets and the maps between values and distributions over them.

    Args:
        num_buckets: N, odd so that zero is a bucket of its own.
        limit: largest |symlog value|; values beyond are clamped.
    """

    def __init__(self, num_buckets: int, limit: float) -> None:
        assert num_buckets % 2 == 1, "zero needs a bucket of its own"
        self.num_buckets, self.limit = num_buckets, limit

    def centres(self, like: Tensor) -> Tensor:
        """Bucket centres in value space (N,)."""
        return symexp(self._positions(like))

    def _positions(self, like: Tensor) -> Tensor:
        half = self.num_buckets // 2
        # Counted from the middle, so that the middle bucket is zero and the others mirror each other exactly.
        return torch.arange(-half, half + 1, device=like.device, dtype=torch.float32) * (self.limit / half)

    def encode(self, value: Tensor) -> Tensor:
        """value (...) -> weights (..., N) on the two neighbouring buckets, whose mean is the value itself."""
        centres = self.centres(value)
        value = value.float().clamp(centres[0], centres[-1])
        low = (torch.searchsorted(centres, value.contiguous(), right=True) - 1).clamp(0, self.num_buckets - 2)
        high_weight = ((value - centres[low]) / (centres[low + 1] - centres[low]))[..., None]
        return F.one_hot(low, self.num_buckets) * (1 - high_weight) + (
            F.one_hot(low + 1, self.num_buckets) * high_weight
        )

    def loss(self, logits: Tensor, value: Tensor) -> Tensor:
        """Cross-entropy of logits (..., N) against the two-hot of value (...): (...)."""
        return -(self.encode(value) * logits.float().log_softmax(dim=-1)).sum(dim=-1)

    def mean(self, logits: Tensor) -> Tensor:
        """Expected value (...) of logits (..., N), in value space."""
        weights, half = logits.float().softmax(dim=-1), self.num_buckets // 2
        # Mirrored buckets are paired before they are added up: equal weights give exactly zero, where summing
        # buckets of up to e^limit one by one would leave their rounding errors.
        difference = weights[..., half + 1 :] - weights[..., :half].flip(-1)  # (..., (N-1)/2)
        return (difference * self.centres(logits)[half + 1 :]).sum(dim=-1)
