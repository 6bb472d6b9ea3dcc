"""Grouped-query attention with QK-norm, RoPE and optional logit soft cap, over space or over time.

Shapes: B batch, T time steps, S tokens per step, D model width, H heads, G key/value heads, E head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ahriuwu_cli.nn.cache import KVCache
from ahriuwu_cli.nn.norm import rms_norm
from ahriuwu_cli.nn.rotary import rotary_table, rotate

MANUAL_LENGTH = 256
"""On the CPU, attention over at most this many keys is plain matrix products.

Measured on 2 cores for 22 keys of width 32, forward and backward: fp32 9 ms against 11 ms for the fused
kernel, bf16 4 ms against 31 ms.
"""


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


class Attention(nn.Module):
    """Attention over the tokens of one step (`over_space`) or over the steps of one token (`over_time`)."""

    def __init__(self, dim: int, num_heads: int, num_kv_heads: int, soft_cap: float | None) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.soft_cap = num_heads, num_kv_heads, soft_cap
        self.dim_head = dim // num_heads
        self.qkv = nn.Linear(dim, (num_heads + 2 * num_kv_heads) * self.dim_head, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.logit_gain = nn.Parameter(torch.ones(()))  # logits of normalised queries and keys are bounded

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, S, D) -> q (B, T, S, H, E), k and v (B, T, S, G, E); q and k normalised, not rotated."""
        heads = self.qkv(x).unflatten(-1, (-1, self.dim_head))  # (B, T, S, H+2G, E)
        q, k, v = heads.split([self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=-2)
        return rms_norm(q).to(v.dtype), rms_norm(k).to(v.dtype), v

    def over_space(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, T, S, D) -> (B, T, S, D); mask (S, S) bool, True = visible."""
        batch, length, tokens, dim = x.shape
        table = rotary_table(torch.arange(tokens, device=x.device), self.dim_head)
        q, k, v = (part.flatten(0, 1).transpose(1, 2) for part in self._project(x))  # (B*T, H|G, S, E)
        y = self._attend(rotate(q, self._with_gain(table)), rotate(k, table), v, mask)  # (B*T, H, S, E)
        out: Tensor = self.out(y.transpose(1, 2).reshape(batch, length, tokens, dim))
        return out

    def over_time(self, x: Tensor, scope: TimeScope, layer: int) -> Tensor:
        """x (B, T, S, D) -> (B, T, S, D), causal in T; `layer` is this layer's index in the cache."""
        batch, length, tokens, dim = x.shape
        start = scope.cache.count if scope.cache is not None else 0
        table = rotary_table(torch.arange(start, start + length, device=x.device), self.dim_head)
        # Heads and tokens merge: query head s*H+h belongs to key head s*G+h//(H/G), as GQA wants it.
        q, k, v = (part.permute(0, 2, 3, 1, 4).flatten(1, 2) for part in self._project(x))  # (B, S*(H|G), T, E)
        q, k = rotate(q, self._with_gain(table)), rotate(k, table)
        window = scope.window
        if scope.cache is not None:
            k, v = scope.cache.update(layer, k, v)
            window = scope.cache.context_length
        mask: Tensor | None = None
        if length > 1:
            mask = time_mask(length, window, scope.separate, x.device)
        elif scope.cache is not None:
            mask = scope.cache.visible(x.device)
        y = self._attend(q, k, v, mask)  # (B, S*H, T, E)
        y = y.reshape(batch, tokens, self.num_heads, length, self.dim_head).permute(0, 3, 1, 2, 4)  # (B, T, S, H, E)
        out: Tensor = self.out(y.reshape(batch, length, tokens, dim))
        return out

    def _with_gain(self, table: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The rotary table of the queries, which carries the logit gain along."""
        return table[0] * self.logit_gain, table[1] * self.logit_gain

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q (N, H, Lq, E), k and v (N, G, Lk, E), mask broadcastable to (N, 1, Lq, Lk) -> (N, H, Lq, E)."""
        long = k.shape[2] > MANUAL_LENGTH or q.device.type != "cpu"
        if self.soft_cap is None and long:
            grouped = q.shape[1] != k.shape[1]
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
        # Query heads that share a key head are stacked as rows: (N, G, H/G * Lq, E).
        rows = q.reshape(q.shape[0], k.shape[1], -1, q.shape[-1])
        logits = rows @ k.transpose(-1, -2) / math.sqrt(self.dim_head)
        if self.soft_cap is not None:
            logits = self.soft_cap * torch.tanh(logits / self.soft_cap)
        if mask is not None:
            by_head = logits.reshape(*logits.shape[:2], -1, q.shape[2], k.shape[2])  # (N, G, H/G, Lq, Lk)
            logits = by_head.masked_fill(~mask.unsqueeze(-3), float("-inf")).flatten(2, 3)
        return (logits.softmax(dim=-1).to(v.dtype) @ v).reshape(q.shape)


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
