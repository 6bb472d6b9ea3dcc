"""Whole episodes through a tokenizer: encode frames to latents, decode latents to frames.

Shapes: F frames, K latents (one for every `stride` frames), B batch, T time steps, H and W frame size, N latent
tokens, C channels per token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.tokenizer.protocol import Tokenizer, to_frames, to_pixels


def encode_episode(tokenizer: Tokenizer, pieces: Iterable[Tensor], runtime: Runtime) -> Tensor:
    """Latents of one episode: all its frames, in pieces (n, H, W, 3) uint8 in order -> (K, N, C) fp32 on the CPU."""
    return torch.cat(list(encode_pieces(tokenizer, pieces, runtime)))


@torch.no_grad()
def encode_pieces(tokenizer: Tokenizer, pieces: Iterable[Tensor], runtime: Runtime) -> Iterator[Tensor]:
    """`encode_episode`, latents (k, N, C) of as many frames at a time as come together."""
    stream = tokenizer.encode_stream()
    for piece in pieces:
        with runtime.autocast():
            latents = stream.encode(to_pixels(piece.to(runtime.device))[None])
        yield latents[0].float().cpu()
    with runtime.autocast():
        rest = stream.finish()
    if rest is not None:
        yield rest[0].float().cpu()


@torch.no_grad()
def decode_latents(tokenizer: Tokenizer, latents: Tensor, runtime: Runtime, batch_size: int) -> Tensor:
    """Frames (B, T, H, W, 3) uint8 on the CPU of latents (B, K, N, C), at most about `batch_size` frames at a time.

    Short sequences are decoded whole, several rows together; longer ones as a stream, piece by piece. With stride S
    the frames are T = 1 + S(K-1); those past an episode's end are the caller's to drop.
    """
    stride = tokenizer.latent_spec.stride
    rows = max(1, batch_size // (latents.shape[1] * stride))
    steps = max(1, batch_size // stride)  # latents of one piece of a sequence that is too long
    parts = []
    for chunk in torch.split(latents, rows):
        stream, frames = tokenizer.decode_stream(), []
        for piece in torch.split(chunk, steps, dim=1):
            with runtime.autocast():
                pixels = stream.decode(piece.to(runtime.device))
            frames.append(to_frames(pixels).cpu())
        parts.append(torch.cat(frames, dim=1))
    return torch.cat(parts)
