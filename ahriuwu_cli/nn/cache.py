"""Bounded key/value cache of the time layers: a ring of `context_length` past steps and up to two new ones.

Shapes: B batch, S tokens per step, G key/value heads, E head width, C context length, T newest steps.
Keys are stored rotated by their absolute position, so the order of slots does not matter.

All that a block is given has the same shapes at every step of a dream: the ring is as large at the first as at the
last, and which slot is written and what may be seen are tensors. What torch has compiled for one step serves for all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MOST_NEW = 2
"""Steps that one pass may add to what is there: one that becomes the past and one that is being generated."""


class LayerCache(NamedTuple):
    """The rings of one time layer: keys and values (S*G, B, C+2, E)."""

    keys: Tensor
    values: Tensor

    def update(self, keys: Tensor, values: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values (S*G, B, T, E) of the newest steps in place; return those to attend to.

        They are what the rings hold, empty slots included. After more than two steps at once, which are a prefill,
        they are the new ones alone, and only the last of them are written, as many as there are `slots`.
        """
        kept = slots.shape[0]
        for ring, new in ((self.keys, keys), (self.values, values)):
            ring.index_copy_(2, slots, new[:, :, -kept:])
        return (keys, values) if keys.shape[2] > MOST_NEW else (self.keys, self.values)


class KVCache:
    """One `LayerCache` per time layer and the count of committed steps.

    The slot of step t is t mod (C+2). A forward pass writes its steps into their slots and each sees at most C
    earlier steps; `advance` makes steps part of the past. Until then the next pass overwrites them, which is what
    the Euler steps of the sampler do.
    """

    def __init__(self, num_layers: int, context_length: int) -> None:
        self.context_length = context_length
        self.count = 0
        self._since: Tensor | None = None  # (B,) first step each row may see; None: all of them may see all
        self._layers: list[LayerCache | None] = [None] * num_layers
        self._masks: dict[int, Tensor] = {}  # what was asked for since the last step was committed

    @property
    def num_slots(self) -> int:
        """Slots of the ring: the context and the new steps."""
        return self.context_length + MOST_NEW

    def advance(self, steps: int) -> None:
        """Commit the first `steps` of the steps written last."""
        self.count += steps
        self._masks.clear()

    def forget(self, rows: Tensor) -> None:
        """Hide everything committed so far from the rows (B,) where True: they begin anew at the next step."""
        since = torch.zeros_like(rows, dtype=torch.long) if self._since is None else self._since
        self._since = torch.where(rows, torch.full_like(since, self.count), since)
        self._masks.clear()

    def layer(self, index: int, like: Tensor, rows: int, dim_head: int, dtype: torch.dtype) -> LayerCache:
        """The rings of one layer for a pass of `rows` (S*G) sequences per example: (rows, B, C+2, E) twice.

        They are made in the first pass. A pass that is not committed may leave out the last tokens of the block (the
        agent's); the first pass may not.

        Args:
            index: which of the time layers.
            like: (B, ...), tokens on the cache's device.
            rows: S*G of this pass.
            dim_head: E.
            dtype: of keys and values.
        """
        entry = self._layers[index]
        if entry is None:
            shape = (rows, like.shape[0], self.num_slots, dim_head)
            entry = LayerCache(*(torch.zeros(shape, dtype=dtype, device=like.device) for _ in range(2)))
            self._layers[index] = entry
        assert rows <= entry.keys.shape[0], "the first pass goes over all tokens"
        return LayerCache(entry.keys[:rows], entry.values[:rows])

    def slots(self, length: int, device: torch.device) -> Tensor:
        """Where a pass over the `length` newest steps writes the last of them: (min(length, C+2),).

        More than two steps at once are a prefill: only into an empty cache.
        """
        assert length <= MOST_NEW or self.count == 0, "many steps at once only fill an empty cache"
        last = self.count + length
        return torch.arange(max(self.count, last - self.num_slots), last, device=device) % self.num_slots

    def visible(self, length: int, batch: int, device: torch.device) -> Tensor:
        """Mask (B, 1, length, C+2) of the slots that each row may see at the `length` (at most 2) newest steps."""
        if length not in self._masks:
            self._masks[length] = self._visible(length, batch, device)
        return self._masks[length]

    def _visible(self, length: int, batch: int, device: torch.device) -> Tensor:
        last = self.count + length - 1
        slot = torch.arange(self.num_slots, device=device)
        step = last - (last - slot) % self.num_slots  # the step that each slot holds; below 0 where none yet
        now = torch.arange(self.count, last + 1, device=device)[:, None]
        mask = (step <= now) & (step >= (now - self.context_length).clamp_min(0))  # (length, C+2)
        since = torch.zeros(batch, dtype=torch.long) if self._since is None else self._since
        return mask & (step >= since.to(device)[:, None])[:, None, None]
