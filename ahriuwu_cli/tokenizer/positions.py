"""What the learned vectors of the transformer tokenizer's tokens begin as.

Shapes: h and w grid of patches, P = h*w patches, L latent tokens, D model width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ahriuwu_cli.tokenizer.config import TransformerModel


def initial_slots(config: TransformerModel, grid: tuple[int, int], patch_std: float, latent_std: float) -> Tensor:
    """One vector per token, patches first: (P+L, D), of the given sizes.

    With sinusoidal positions those of the patches are sines and cosines of where the patch is, so that neighbours
    begin alike; all of them learn.
    """
    patches = torch.randn(grid[0] * grid[1], config.dim)
    if config.positions == "sinusoidal":
        patches = plane_waves(grid, config.dim)
    latents = torch.randn(config.num_bottleneck, config.dim)
    return torch.cat([patches * patch_std, latents * latent_std])


def plane_waves(grid: tuple[int, int], dim: int) -> Tensor:
    """Positions on a grid (h, w), row by row, as vectors (P, D) of mean square 1.

    Half of the channels tell the row and half the column, each by sines and cosines of wave lengths that go in even
    ratios from four times the frame down to two patches. A last channel or three stay 0 where D is no multiple of 4.
    """
    halves = []
    for axis, size in enumerate(grid):
        place = (torch.arange(size) + 0.5) / size  # (h,) or (w,)
        place = place[:, None].expand(grid) if axis == 0 else place[None].expand(grid)
        octaves = torch.linspace(-1, max(math.log2(size), -1), dim // 4)
        angle = math.pi * place.reshape(-1, 1) * 2**octaves  # (P, D/4)
        halves += [angle.sin(), angle.cos()]
    waves = torch.cat(halves, dim=1) * math.sqrt(2)
    return torch.nn.functional.pad(waves, (0, dim - waves.shape[1]))
