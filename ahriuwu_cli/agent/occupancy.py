"""How much of a two-hot range its targets use: a range far too wide spends its buckets on values that never come.

Shapes: N buckets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ahriuwu_cli.nn.twohot import TwoHot, symlog


def buckets_in_use(twohot: TwoHot, target: Tensor, counted: Tensor) -> Tensor:
    """Buckets (N,) bool that have a share in some target (...) where `counted` (...) is true."""
    shares = (twohot.encode(target) > 0) & counted[..., None]  # (..., N)
    return shares.flatten(0, -2).any(dim=0)


def occupancy(name: str, twohot: TwoHot, logits: Tensor, target: Tensor, counted: Tensor) -> dict[str, Tensor]:
    """Metrics of one batch: logits (..., N), target (...), counted (...) bool.

    Returns:
        `<name>_buckets_used`: how many buckets the targets use; `<name>_mass_on_used`: the probability that predictions
        give to those; `<name>_clamped`: the share of targets beyond the range. NaN where nothing is counted.
    """
    used, total = buckets_in_use(twohot, target, counted), counted.sum()
    mass = (logits.detach().float().softmax(dim=-1) * used).sum(dim=-1)  # (...)
    return {
        f"{name}_buckets_used": used.sum().float(),
        f"{name}_mass_on_used": (mass * counted).sum() / total,
        f"{name}_clamped": ((symlog(target).abs() > twohot.limit) & counted).sum() / total,
    }


class BucketsEver:
    """The buckets that targets have used since training began.

    Args:
        twohot: the range.
        device: where targets are.
    """

    def __init__(self, twohot: TwoHot, device: torch.device) -> None:
        self._twohot = twohot
        self._used = torch.zeros(twohot.num_buckets, dtype=torch.bool, device=device)

    def see(self, target: Tensor, counted: Tensor) -> Tensor:
        """Take the targets (...) of one step where `counted` (...); how many buckets have been used so far."""
        self._used |= buckets_in_use(self._twohot, target, counted)
        return self._used.sum().float()

    def state(self) -> dict[str, Tensor]:
        """Tensors that restore it."""
        return {"buckets_ever": self._used}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` gave."""
        self._used.copy_(state["buckets_ever"])
