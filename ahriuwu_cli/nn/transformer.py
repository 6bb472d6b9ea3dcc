"""The block-causal transformer of [D4] Sec. 3.4: pre-norm blocks, space layers and one time layer every few.

Shapes: B batch, T time steps, S tokens per step, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ahriuwu_cli.core.training.recompute import Recomputing
from ahriuwu_cli.nn.attention import Attention, Sight, TimeScope
from ahriuwu_cli.nn.cache import KVCache, LayerCache
from ahriuwu_cli.nn.norm import norm_for_product, product_dtype, rms_norm, wide
from ahriuwu_cli.nn.rotary import Rotary, Table

INIT_STD = 0.02


class SwiGLU(nn.Module):
    """Gated feed-forward layer; hidden width 8/3 D, rounded up to a multiple of 32, unless given."""

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or -(-8 * dim // 3 // 32) * 32
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        y: Tensor = self.down(gated(self.gate(x), self.up(x)))
        return y


class _Gated(torch.autograd.Function):
    """h = silu(g) u, keeping g and u alone: the backward pass computes silu(g) again."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        gate, up = ctx.saved_tensors
        through = gradient * up
        return torch.ops.aten.silu_backward(through, gate), F.silu(gate).mul_(gradient)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, two tensors of one shape."""
    if not torch.is_grad_enabled():
        return F.silu(gate).mul_(up)
    return _Gated.apply(gate, up)  # type: ignore[no-any-return, no-untyped-call]


class Block(nn.Module):
    """Attention over space, time or (one after the other) both, and a feed-forward layer.

    Each is pre-normalised and residual.

    Args:
        attend: makes one attention layer.
        feed: the feed-forward layer.
        space: attend over the tokens of a step.
        time_layer: index of this block's time attention in the cache; None for none.
    """

    def __init__(self, attend: Callable[[], Attention], feed: SwiGLU, *, space: bool, time_layer: int | None) -> None:
        super().__init__()
        self.space = attend() if space else None
        self.time = attend() if time_layer is not None else None
        self.feed = feed
        self.time_layer = time_layer

    def forward(
        self, x: Tensor, space_mask: Tensor | None, space_table: Table, sight: Sight, past: LayerCache | None
    ) -> Tensor:
        """x (B, T, S, D) -> (B, T, S, D); takes nothing but tensors, so that compiled code serves every step."""
        if self.space is not None:
            x = x + self.space.over_space(norm_for_product(x), space_mask, space_table)
        if self.time is not None:
            x = x + self.time.over_time(norm_for_product(x), sight, past)
        out: Tensor = x + self.feed(norm_for_product(x))
        return out


class SpaceTimeTransformer(Recomputing):
    """A stack of blocks: block i attends over time when (i + 1) is a multiple of `time_every`, over space otherwise.

    With `time_every` = 1 every block attends over both.
    """

    def __init__(
        self,
        dim: int,
        num_layers: int,
        num_heads: int,
        num_kv_heads: int,
        time_every: int,
        soft_cap: float | None,
        feed_width: int | None = None,
    ) -> None:
        super().__init__()
        self.num_time_layers, self.num_kv_heads = num_layers // time_every, num_kv_heads
        self.dim_head = dim // num_heads
        self._rotary = Rotary(self.dim_head)

        def block(layer: int) -> Block:
            over_time = (layer + 1) % time_every == 0
            return Block(
                lambda: Attention(dim, num_heads, num_kv_heads, soft_cap),
                SwiGLU(dim, feed_width),
                space=not over_time or time_every == 1,
                time_layer=layer // time_every if over_time else None,
            )

        self.blocks = nn.ModuleList(block(layer) for layer in range(num_layers))
        self._last_over_space = max(layer for layer, block in enumerate(self.blocks) if block.space is not None)
        self._initialise(num_layers)

    def _initialise(self, num_layers: int) -> None:
        """Normal weights; what writes into the residual stream is scaled down with depth."""
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            writes = name.endswith(("out.weight", "feed.down.weight"))
            nn.init.normal_(parameter, std=INIT_STD * ((2 * num_layers) ** -0.5 if writes else 1.0))

    def new_cache(self, context_length: int) -> KVCache:
        """An empty cache for the time layers of this stack."""
        return KVCache(self.num_time_layers, context_length)

    def forward(
        self, x: Tensor, space_mask: Tensor | None, scope: TimeScope, read: Sequence[slice] = (slice(None),)
    ) -> Tensor:
        """x (B, T, S, D) -> (B, T, R, D), normalised at the end.

        Args:
            x: tokens; with a cache in `scope`, only those of the newest steps.
            space_mask: (S, S) bool, True where the row may attend to the column; None for all.
            scope: what the time layers see.
            read: groups of tokens that the caller reads, R in all. The others are dropped after the last block over
                space, when nothing that is read can see them any more.
        """
        space_table = self._rotary.table(0, x.shape[2], wide(x.dtype), x.device)
        sight = scope.sight(x, self._rotary)
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            x = self.call(block, x, space_mask, space_table, sight, self._past(block.time_layer, x, scope.cache))
            if layer == self._last_over_space:
                x = torch.cat([x[:, :, group] for group in read], dim=2)
        return rms_norm(x)

    def _past(self, layer: int | None, x: Tensor, cache: KVCache | None) -> LayerCache | None:
        """What a block that goes over the tokens x (B, T, S, D) finds in the cache."""
        if layer is None or cache is None:
            return None
        return cache.layer(layer, x, x.shape[2] * self.num_kv_heads, self.dim_head, product_dtype(x))
