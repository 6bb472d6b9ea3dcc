"""The convolutional tokenizer: strided convolutions to a token grid with a tanh bottleneck, mirrored decoder.

Shapes: B batch, T time steps, H and W frame size, H' and W' size of the padded frame, h and w token grid, N = h*w
tokens, C channels per token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ahriuwu_cli.core.specs import FrameSpec, LatentSpec
from ahriuwu_cli.tokenizer.config import CnnModel
from ahriuwu_cli.tokenizer.padding import Padding
from ahriuwu_cli.tokenizer.protocol import Tokenizer

MAX_WIDENING = 4
"""Channels grow by 2 per halving of the resolution, up to this multiple of the base."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a GELU; group normalisation does not depend on the batch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(1, channels),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B, channels, H, W), same out."""
        y: Tensor = self.body(x)
        return x + y


class CnnTokenizer(Tokenizer):
    """Each frame by itself: `patch` pixels a side become one token."""

    config: CnnModel

    def __init__(self, config: CnnModel, frame: FrameSpec) -> None:
        super().__init__(config, frame)
        self.padding = Padding.of(frame, config.patch)
        self.grid = self.padding.grid
        self.latent_spec = LatentSpec(
            num_tokens=self.grid[0] * self.grid[1],
            dim_token=config.dim_token,
            layout=f"grid {self.grid[0]}x{self.grid[1]}{self.padding.note}",
            bound=1.0,
        )
        halvings = config.patch.bit_length() - 1
        widths = [config.base_channels * min(2**level, MAX_WIDENING) for level in range(halvings)]
        self.encoder = _encoder(widths, config)
        self.decoder = _decoder(widths, config)

    def encode(self, pixels: Tensor) -> Tensor:
        """pixels (B, T, 3, H, W) in [-1, 1] -> latents (B, T, N, C) in [-1, 1]."""
        batch, length = pixels.shape[:2]
        x = self.padding.pad(pixels).flatten(0, 1)  # (B*T, 3, H', W')
        x = x.contiguous(memory_format=torch.channels_last)
        grid = torch.tanh(self.encoder(x).float())  # (B*T, C, h, w)
        return grid.flatten(2).transpose(1, 2).reshape(batch, length, -1, self.config.dim_token)

    def decode(self, latents: Tensor) -> Tensor:
        """latents (B, T, N, C) -> pixels (B, T, 3, H, W)."""
        batch, length = latents.shape[:2]
        grid = latents.flatten(0, 1).transpose(1, 2).reshape(batch * length, -1, *self.grid)  # (B*T, C, h, w)
        pixels: Tensor = self.decoder(grid.contiguous(memory_format=torch.channels_last)).float()
        return self.padding.crop(pixels.reshape(batch, length, *pixels.shape[1:]))  # from (B, T, 3, H', W')


def _encoder(widths: list[int], config: CnnModel) -> nn.Sequential:
    """Pixels (B, 3, H', W') -> grid (B, C, h, w): a stem if wanted, then one halving and its blocks per width."""
    layers: list[nn.Module] = []
    channels = 3
    if config.stem:
        layers += [nn.Conv2d(3, config.base_channels, 3, padding=1), nn.GELU()]
        channels = config.base_channels
    for width in widths:
        layers += [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.GELU()]
        layers += [ResidualBlock(width) for _ in range(config.blocks_per_stage)]
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, config.dim_token, 1))


class Upsample(nn.Module):
    """Twice the resolution: a 3x3 convolution to four sub-pixels each."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, 4 * channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, channels_in, H, W) -> (B, channels_out, 2H, 2W)."""
        return F.pixel_shuffle(self.conv(x), 2)


def _decoder(widths: list[int], config: CnnModel) -> nn.Sequential:
    """The encoder mirrored: grid (B, C, h, w) -> pixels (B, 3, H', W')."""
    layers: list[nn.Module] = [nn.Conv2d(config.dim_token, widths[-1], 3, padding=1)]
    for level in reversed(range(len(widths))):
        layers += [ResidualBlock(widths[level]) for _ in range(config.blocks_per_stage)]
        last = config.base_channels if config.stem else 3
        layers.append(Upsample(widths[level], widths[level - 1] if level else last))
        if level or config.stem:
            layers.append(nn.GELU())
    if config.stem:
        layers.append(nn.Conv2d(config.base_channels, 3, 3, padding=1))
    return nn.Sequential(*layers)
