"""A start for the transformer tokenizer: latent tokens lie over the frame, each above some of its patches.

**decision** ([D4] says nothing of initialisation): a latent token starts from the patches below it and a patch query
from the latent above it, both in the residual stream, beside the learned vectors that [D4] gives them. Without this
the tokenizer has a saddle to leave. Latents tell images apart only when attention already prefers some patches, and
that is worth learning only when the decoder's queries already prefer some latents; until both happen together every
latent is an average over the frame and every reconstruction the mean image. With it, patch -> latent -> patch is
linear from step 0 and attention refines it. Patches that share a latent are told apart by signs: what they carry is
multiplied by the same random +-1 vector on its way in and on its way out, else it would be averaged.

Measured on 32x32 frames of the built-in game (mean image 18.55 dB), width 128, 4+4 layers, 16 latents of 16 channels,
learning rate 1e-3, PSNR in dB of frames without masks:

    patch 8 (16 patches), batch 32, 150 steps: 19.26 without, 23.77 with, 24.64 with masks that come slowly as well
    patch 4 (64 patches), batch 16, 100 steps: 18.46 without; masks slowly: 21.69 with but without signs, 23.58 with

Larger or sinusoidal position vectors and larger attention outputs changed nothing in the same time.

Shapes: B batch, T time steps, h and w grid of patches, P = h*w patches, L latent tokens, K most patches that share a
latent, D model width.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn


class Anchor(nn.Module):
    """Which patches lie below which latent, and the learned signatures of patches that share one.

    Where there are more latents than patches, those with no patch of their own start from nothing.

    Args:
        grid: (h, w) patches.
        num_latents: L.
        dim: D.
    """

    below: Tensor
    rank: Tensor

    def __init__(self, grid: tuple[int, int], num_latents: int, dim: int) -> None:
        super().__init__()
        owner = patch_owners(grid, latent_grid(num_latents, grid))
        owned = np.arange(num_latents)[:, None] == owner  # (L, P)
        rank = (np.cumsum(owned, axis=1) * owned).sum(axis=0) - 1  # (P,) place among the patches of its latent
        shares = owned.sum(axis=1, keepdims=True)
        below = owned / np.sqrt(np.maximum(shares, 1))  # as large as one patch, however many share
        self.register_buffer("below", torch.from_numpy(below.astype(np.float32)), persistent=False)
        self.register_buffer("rank", torch.from_numpy(rank), persistent=False)
        signs = torch.randn(int(rank.max()) + 1, dim).sign()
        signs[0] = 1  # a patch that has a latent to itself goes through unchanged
        self.sign_in, self.sign_out = nn.Parameter(signs), nn.Parameter(signs.clone())  # (K, D)

    def gather(self, patches: Tensor) -> Tensor:
        """Patch tokens (B, T, P, D) -> what latent tokens start from (B, T, L, D)."""
        signed = patches * self.sign_in[self.rank].to(patches.dtype)
        return self.below.to(patches.dtype) @ signed

    def scatter(self, latents: Tensor) -> Tensor:
        """Latent tokens (B, T, L, D) -> what patch queries start from (B, T, P, D)."""
        above = (self.below > 0).to(latents.dtype).T @ latents
        return above * self.sign_out[self.rank].to(latents.dtype)


def latent_grid(num_latents: int, grid: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns, rows * columns = num_latents, whose cells come nearest to squares on (h, w) patches."""
    wanted = math.log(grid[0] / grid[1])
    shapes = [(rows, num_latents // rows) for rows in range(1, num_latents + 1) if num_latents % rows == 0]
    return min(shapes, key=lambda shape: abs(math.log(shape[0] / shape[1]) - wanted))


def patch_owners(grid: tuple[int, int], latents: tuple[int, int]) -> np.ndarray:
    """For each patch (P,), row by row, the latent that lies over its top left corner, numbered row by row."""
    row = np.arange(grid[0]) * latents[0] // grid[0]
    column = np.arange(grid[1]) * latents[1] // grid[1]
    owners: np.ndarray = (row[:, None] * latents[1] + column).reshape(-1)
    return owners
