"""Bounded key/value cache of the time layers: a ring of `context_length` past steps and up to two new ones.

Shapes: B batch, S tokens per step, G key/value heads, E head width, C context length.
Keys are stored rotated by their absolute position, so the order of slots does not matter.
"""

from __future__ import annotations

import torch
from torch import Tensor

MOST_NEW = 2
"""Steps that one pass may add to what is there: one that becomes the past and one that is being generated."""


class LayerCache:
    """Ring buffers of one time layer: keys and values (B, S*G, C+2, E)."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None


class KVCache:
    """One `LayerCache` per time layer and the count of committed steps.

    The slot of step t is t mod (C+2). A forward pass writes its steps into their slots and each sees at most C
    earlier steps; `advance` makes steps part of the past. Until then the next pass overwrites them, which is what
    the Euler steps of the sampler do.
    """

    def __init__(self, num_layers: int, context_length: int) -> None:
        self.context_length = context_length
        self.count = 0
        self._since: Tensor | None = None  # (B,) first step each row may see
        self._layers = [LayerCache() for _ in range(num_layers)]

    @property
    def num_slots(self) -> int:
        """Slots of the ring: the context and the new steps."""
        return self.context_length + MOST_NEW

    def advance(self, steps: int) -> None:
        """Commit the first `steps` of the steps written last."""
        self.count += steps

    def forget(self, rows: Tensor) -> None:
        """Hide everything committed so far from the rows (B,) where True: they begin anew at the next step."""
        since = torch.zeros_like(rows, dtype=torch.long) if self._since is None else self._since
        self._since = torch.where(rows, torch.full_like(since, self.count), since)

    def visible(self, length: int, device: torch.device) -> Tensor | None:
        """Mask (1|B, 1, length, filled slots) of what each row may see at the `length` newest steps.

        None when that is all.
        """
        last = self.count + length - 1
        if length == 1 and self._since is None and last <= self.context_length:
            return None
        slot = torch.arange(min(last + 1, self.num_slots))
        step = last - (last - slot) % self.num_slots  # the step that each slot holds
        now = torch.arange(self.count, last + 1)[:, None]
        mask = ((step <= now) & (step >= now - self.context_length)).to(device)[None, None]  # (1, 1, length, slots)
        if self._since is not None:
            mask = mask & (step.to(device) >= self._since.to(device)[:, None])[:, None, None]
        return mask

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values (B, S*G, T, E) of the newest T steps; return what the ring holds.

        More than two steps at once are a prefill: only into an empty cache, and the result is what was given (the
        caller masks it). Otherwise it is (B, S*G, min(count + T, C + 2), E), see `visible`. A pass that is not
        committed may leave out the last tokens of the block (the agent's); the first pass may not.
        """
        entry = self._layers[layer]
        rows, num_new = keys.shape[1], keys.shape[2]
        assert num_new <= MOST_NEW or self.count == 0, "many steps at once only fill an empty cache"
        if entry.keys is None or entry.values is None:
            shape = (*keys.shape[:2], self.num_slots, keys.shape[3])
            entry.keys, entry.values = keys.new_zeros(shape), values.new_zeros(shape)
        if num_new > MOST_NEW:
            kept = min(num_new, self.num_slots)
            slots = [step % self.num_slots for step in range(num_new - kept, num_new)]
            entry.keys[:, :, slots] = keys[:, :, -kept:]
            entry.values[:, :, slots] = values[:, :, -kept:]
            return keys, values
        for step in range(num_new):
            slot = (self.count + step) % self.num_slots
            entry.keys[:, :rows, slot] = keys[:, :, step]
            entry.values[:, :rows, slot] = values[:, :, step]
        filled = min(self.count + num_new, self.num_slots)
        return entry.keys[:, :rows, :filled], entry.values[:, :rows, :filled]
