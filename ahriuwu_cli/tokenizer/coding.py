"""Whole episodes through a tokenizer: encode frames to latents, decode latents to frames.

Shapes: F frames, B batch, T time steps, H and W frame size, N latent tokens, C channels per token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.tokenizer.protocol import Tokenizer, to_frames, to_pixels


@torch.no_grad()
def encode_episode(tokenizer: Tokenizer, frames: Tensor, runtime: Runtime, batch_size: int) -> Tensor:
    """Latents of one episode from its first frame on: frames (F, H, W, 3) uint8 -> (F, N, C) fp32 on the CPU."""
    stream = tokenizer.stream()
    parts = []
    for chunk in torch.split(frames, batch_size):
        with runtime.autocast():
            latents = stream.encode(to_pixels(chunk.to(runtime.device))[None])
        parts.append(latents[0].float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def decode_latents(tokenizer: Tokenizer, latents: Tensor, runtime: Runtime, batch_size: int) -> Tensor:
    """Frames (B, T, H, W, 3) uint8 on the CPU of latents (B, T, N, C); rows are decoded in small batches."""
    rows = max(1, batch_size // latents.shape[1])
    parts = []
    for chunk in torch.split(latents, rows):
        with runtime.autocast():
            pixels = tokenizer.decode(chunk.to(runtime.device))
        parts.append(to_frames(pixels).cpu())
    return torch.cat(parts)
