"""Grouped-query attention with QK-norm, RoPE and optional logit soft cap, over space or over time.

Shapes: B batch, T time steps, S tokens per step, D model width, E head width, G key/value heads, R query heads
for each of them (H = G*R query heads in all), N independent sequences, L their length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ahriuwu_cli.nn.cache import MOST_NEW, KVCache, LayerCache
from ahriuwu_cli.nn.norm import wide
from ahriuwu_cli.nn.rotary import Rotary, Table, norm_rotate

MANUAL_LENGTH = 256
"""On the CPU, attention over at most this many keys is plain matrix products.

Measured on 2 cores for 22 keys of width 32, forward and backward: fp32 9 ms against 11 ms for the fused
kernel, bf16 4 ms against 31 ms.
"""


class Sight(NamedTuple):
    """Where the newest steps of a pass lie in time and what they see; the same for every layer.

    Attributes:
        table: rotary table of the T steps.
        mask: (1|B, 1, T, K), True = visible, over the K steps attended to; None for all.
        slots: where the steps go in a cache, see `KVCache.slots`; None without.
    """

    table: Table
    mask: Tensor | None = None
    slots: Tensor | None = None


@dataclass(frozen=True)
class TimeScope:
    """What the time layers may see.

    Attributes:
        separate: (B,) bool; these examples are treated as single images: each step sees only itself.
        window: past steps visible besides the step itself; None for all.
        cache: past keys and values, whose context length is the window; the input then holds only the newest
            steps, and nothing is separate.
    """

    separate: Tensor | None = None
    window: int | None = None
    cache: KVCache | None = None

    def __post_init__(self) -> None:
        assert self.cache is None or (self.separate is None and self.window is None), "a cache has its own window"

    def sight(self, x: Tensor, rotary: Rotary) -> Sight:
        """What the newest steps x (B, T, S, D) see, as tensors."""
        (batch, length), device = x.shape[:2], x.device
        start = self.cache.count if self.cache is not None else 0
        table = rotary.table(start, length, wide(x.dtype), device)
        if self.cache is None:
            return Sight(table, time_mask(length, self.window, self.separate, device) if length > 1 else None)
        if length > MOST_NEW:
            mask = time_mask(length, self.cache.context_length, None, device)
        else:
            mask = self.cache.visible(length, batch, device)
        return Sight(table, mask, self.cache.slots(length, device))


class Attention(nn.Module):
    """Attention over the tokens of one step (`over_space`) or over the steps of one token (`over_time`).

    The rows of `qkv` are ordered by key head: R queries, their key, their value.
    """

    def __init__(self, dim: int, num_heads: int, num_kv_heads: int, soft_cap: float | None) -> None:
        super().__init__()
        self.num_kv_heads, self.num_queries, self.soft_cap = num_kv_heads, num_heads // num_kv_heads, soft_cap
        self.dim_head = dim // num_heads
        self.qkv = nn.Linear(dim, num_kv_heads * (self.num_queries + 2) * self.dim_head, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.logit_gain = nn.Parameter(torch.ones(()))  # logits of normalised queries and keys are bounded

    def _project(self, x: Tensor) -> Tensor:
        """x (B, T, S, D) -> queries, keys and values (B, T, S, G, R+2, E)."""
        heads: Tensor = self.qkv(x).unflatten(-1, (self.num_kv_heads, self.num_queries + 2, self.dim_head))
        return heads

    def _rotated(self, heads: Tensor, table: Table) -> tuple[Tensor, Tensor, Tensor]:
        """heads (N, G, R+2, L, E) -> q (N, G, R, L, E), k and v (N, G, L, E); q and k normalised and rotated."""
        unturned, v = torch.split_with_sizes(heads, [self.num_queries + 1, 1], dim=2)
        q, k = torch.split_with_sizes(norm_rotate(unturned, table), [self.num_queries, 1], dim=2)
        return q, k.squeeze(2), v.squeeze(2)

    def over_space(self, x: Tensor, mask: Tensor | None, table: Table) -> Tensor:
        """x (B, T, S, D) -> (B, T, S, D); mask (S, S) bool, True = visible; rotary table of positions 0..S-1."""
        heads = self._project(x).flatten(0, 1).permute(0, 2, 3, 1, 4)  # (B*T, G, R+2, S, E)
        q, k, v = self._rotated(heads, table)  # (B*T, G, R, S, E), (B*T, G, S, E) twice
        y = self._attend(q, k, v, mask)  # (B*T, G, R, S, E)
        out: Tensor = self.out(y.permute(0, 3, 1, 2, 4).reshape(x.shape))
        return out

    def over_time(self, x: Tensor, sight: Sight, past: LayerCache | None = None) -> Tensor:
        """x (B, T, S, D) -> (B, T, S, D), causal in T; `past` is this layer's part of the cache."""
        # Every token's steps are a sequence of their own, for each key head: (S*G, B, R+2, T, E). Tokens come first so
        # that those of a pass that leaves out the last ones lie in one piece of the cache.
        heads = self._project(x).permute(2, 3, 0, 4, 1, 5).flatten(0, 1)
        q, k, v = self._rotated(heads, sight.table)  # (S*G, B, R, T, E), (S*G, B, T, E) twice
        if past is not None:
            assert sight.slots is not None
            k, v = past.update(k, v, sight.slots)
        mask = None if sight.mask is None else sight.mask.transpose(0, 1)  # (1, 1|B, T, K)
        y = self._attend(q, k, v, mask)  # (S*G, B, R, T, E)
        y = torch.unflatten(y, 0, (x.shape[2], -1)).permute(2, 4, 0, 1, 3, 5)  # (B, T, S, G, R, E)
        out: Tensor = self.out(y.reshape(x.shape))
        return out

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q (N, G, R, Lq, E), k and v (N, G, Lk, E), mask broadcastable to (N, G, Lq, Lk) -> (N, G, R, Lq, E)."""
        if self.soft_cap is None and (k.shape[2] > MANUAL_LENGTH or q.device.type != "cpu"):
            return self._attend_fused(q, k, v, mask)
        rows = q.flatten(2, 3)  # queries that share a key are rows of one product: (N, G, R*Lq, E)
        logits = rows @ k.transpose(-1, -2) * (self.logit_gain / math.sqrt(self.dim_head))  # (N, G, R*Lq, Lk)
        if self.soft_cap is not None:
            logits = self.soft_cap * torch.tanh(logits / self.soft_cap)
        if mask is not None:
            by_query = torch.unflatten(logits, 2, (self.num_queries, -1))  # (N, G, R, Lq, Lk)
            logits = by_query.masked_fill(~mask.unsqueeze(-3), float("-inf")).flatten(2, 3)
        return (logits.softmax(dim=-1, dtype=wide(q.dtype)).to(v.dtype) @ v).reshape(q.shape)

    def _attend_fused(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """The same with the fused kernel; each key head is a sequence of its own with R query heads."""
        groups = q.shape[1]
        if mask is not None and mask[..., 0, 0].numel() > 1:
            mask = mask.expand(*q.shape[:2], -1, -1).flatten(0, 1).unsqueeze(1)  # (N*G, 1, Lq, Lk)
        gained = q.flatten(0, 1) * self.logit_gain.to(q.dtype)  # (N*G, R, Lq, E)
        keys, values = k.flatten(0, 1).unsqueeze(1), v.flatten(0, 1).unsqueeze(1)  # (N*G, 1, Lk, E)
        y = F.scaled_dot_product_attention(gained, keys, values, attn_mask=mask, enable_gqa=self.num_queries > 1)
        return torch.unflatten(y, 0, (-1, groups))


def time_mask(length: int, window: int | None, separate: Tensor | None, device: torch.device) -> Tensor:
    """Causal mask (1|B, 1, T, T), True = visible: at most `window` past steps; separate examples see none."""
    step = torch.arange(length, device=device)
    distance = step[:, None] - step[None, :]  # (T, T), positive towards the past
    mask = distance >= 0
    if window is not None:
        mask = mask & (distance <= window)
    mask = mask[None, None]
    if separate is not None:
        mask = mask & (~separate[:, None, None, None] | (distance == 0))
    return mask
