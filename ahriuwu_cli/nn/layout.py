"""Token layout of one time step: which modality sits where, and who sees whom.

Shapes: S tokens per step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


class TokenLayout:
    """Named, consecutive groups of tokens.

    Args:
        sizes: tokens per modality, in order; empty modalities are allowed.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.slices: dict[str, slice] = {}
        start = 0
        for name, size in sizes.items():
            self.slices[name] = slice(start, start + size)
            start += size
        self.num_tokens = start

    def visibility(self, sees: Mapping[str, Sequence[str]]) -> Tensor | None:
        """Mask (S, S), True where the row's token may attend to the column's.

        A modality that `sees` does not name attends to every token. None when all see all.
        """
        mask = np.ones((self.num_tokens, self.num_tokens), dtype=bool)
        for name, others in sees.items():
            rows = self.slices[name]
            mask[rows] = False
            for other in others:
                mask[rows, self.slices[other]] = True
        return None if mask.all() else torch.from_numpy(mask)
