"""Bounded key/value cache of the time layers: a ring of `context_length` past steps plus the current one.

Shapes: B batch, S tokens per step, G key/value heads, E head width, C context length.
Keys are stored rotated by their absolute position, so the order of slots does not matter.
"""

from __future__ import annotations

import torch
from torch import Tensor


class LayerCache:
    """Ring buffers of one time layer: keys and values (B, S*G, C+1, E)."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None


class KVCache:
    """One `LayerCache` per time layer and the count of committed steps.

    The slot of step t is t mod (C+1). A forward pass writes the current step into its slot and sees
    at most C earlier steps; `advance` makes the step part of the past. Until then the next pass
    overwrites it, which is what the Euler steps of the sampler do.
    """

    def __init__(self, num_layers: int, context_length: int) -> None:
        self.context_length = context_length
        self.count = 0
        self._since: Tensor | None = None  # (B,) first step each row may see
        self._layers = [LayerCache() for _ in range(num_layers)]

    @property
    def num_slots(self) -> int:
        """Slots of the ring: the context and the current step."""
        return self.context_length + 1

    def advance(self, steps: int) -> None:
        """Commit the last `steps` steps written."""
        self.count += steps

    def forget(self, rows: Tensor) -> None:
        """Hide everything committed so far from the rows (B,) where True: they begin anew at the next step."""
        since = torch.zeros_like(rows, dtype=torch.long) if self._since is None else self._since
        self._since = torch.where(rows, torch.full_like(since, self.count), since)

    def visible(self, device: torch.device) -> Tensor | None:
        """Mask (B, 1, 1, filled slots) of what each row may see at the current step; None when that is all."""
        if self._since is None:
            return None
        slot = torch.arange(min(self.count + 1, self.num_slots), device=device)
        step = self.count - (self.count - slot) % self.num_slots  # the step that each slot holds
        return (step[None] >= self._since.to(device)[:, None])[:, None, None]

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values (B, S*G, T, E) of the newest T steps; return all that are in reach.

        With T = 1 the result is (B, S*G, min(count, C) + 1, E). Several steps at once are a prefill:
        only into an empty cache, and the result is what was given (the caller masks it). A pass that is
        not committed may leave out the last tokens of the block (the agent's); the first pass may not.
        """
        entry = self._layers[layer]
        rows, num_new = keys.shape[1], keys.shape[2]
        assert num_new == 1 or self.count == 0, "several steps at once only fill an empty cache"
        if entry.keys is None or entry.values is None:
            shape = (*keys.shape[:2], self.num_slots, keys.shape[3])
            entry.keys, entry.values = keys.new_zeros(shape), values.new_zeros(shape)
        if num_new == 1:
            slot = self.count % self.num_slots
            entry.keys[:, :rows, slot] = keys[:, :, 0]
            entry.values[:, :rows, slot] = values[:, :, 0]
            filled = min(self.count + 1, self.num_slots)
            return entry.keys[:, :rows, :filled], entry.values[:, :rows, :filled]
        kept = min(num_new, self.num_slots)
        slots = [step % self.num_slots for step in range(num_new - kept, num_new)]
        entry.keys[:, :, slots] = keys[:, :, -kept:]
        entry.values[:, :, slots] = values[:, :, -kept:]
        return keys, values
