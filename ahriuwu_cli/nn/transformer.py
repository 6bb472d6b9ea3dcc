"""The block-causal transformer of [D4] Sec. 3.4: pre-norm blocks, space layers and one time layer every few.

Shapes: B batch, T time steps, S tokens per step, D model width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ahriuwu_cli.nn.attention import Attention, TimeScope
from ahriuwu_cli.nn.cache import KVCache
from ahriuwu_cli.nn.norm import rms_norm

INIT_STD = 0.02


class SwiGLU(nn.Module):
    """Gated feed-forward layer of hidden width 8/3 D, rounded up to a multiple of 32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = -(-8 * dim // 3 // 32) * 32
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        y: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return y


class Block(nn.Module):
    """Attention over space or time and a feed-forward layer, each pre-normalised and residual."""

    def __init__(self, dim: int, num_heads: int, num_kv_heads: int, soft_cap: float | None) -> None:
        super().__init__()
        self.attention = Attention(dim, num_heads, num_kv_heads, soft_cap)
        self.feed = SwiGLU(dim)


class SpaceTimeTransformer(nn.Module):
    """A stack of blocks; block i attends over time when (i + 1) is a multiple of `time_every`."""

    def __init__(
        self,
        dim: int,
        num_layers: int,
        num_heads: int,
        num_kv_heads: int,
        time_every: int,
        soft_cap: float | None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, num_heads, num_kv_heads, soft_cap) for _ in range(num_layers))
        time_layers = [layer for layer in range(num_layers) if (layer + 1) % time_every == 0]
        self.time_index = {layer: index for index, layer in enumerate(time_layers)}
        self._initialise(num_layers)

    def _initialise(self, num_layers: int) -> None:
        """Normal weights; what writes into the residual stream is scaled down with depth."""
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            writes = name.endswith(("attention.out.weight", "feed.down.weight"))
            nn.init.normal_(parameter, std=INIT_STD * ((2 * num_layers) ** -0.5 if writes else 1.0))

    def new_cache(self, context_length: int) -> KVCache:
        """An empty cache for the time layers of this stack."""
        return KVCache(len(self.time_index), context_length)

    def forward(self, x: Tensor, space_mask: Tensor | None, scope: TimeScope) -> Tensor:
        """x (B, T, S, D) -> (B, T, S, D), normalised at the end.

        Args:
            x: tokens; with a cache in `scope`, only those of the newest steps.
            space_mask: (S, S) bool, True where the row may attend to the column; None for all.
            scope: what the time layers see.
        """
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            y = rms_norm(x)
            if layer in self.time_index:
                x = x + block.attention.over_time(y, scope, self.time_index[layer])
            else:
                x = x + block.attention.over_space(y, space_mask)
            x = x + block.feed(rms_norm(x))
        out: Tensor = rms_norm(x)
        return out
