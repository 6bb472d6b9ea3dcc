"""What every tokenizer offers; the rest of the program sees only this and the latent spec.

Shapes: B batch, T time steps, H and W frame size, N latent tokens (N_z), C channels per token (D_z).
Where `latent_spec.stride` S is above 1, T frames have 1 + ceil((T-1)/S) latents, and K latents give 1 + S(K-1) frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.core.specs import FrameSpec, LatentSpec
from ahriuwu_cli.tokenizer.config import TokenizerModel


class Tokenizer(nn.Module, ABC):
    """Frames to latents and back.

    A subclass is built from its model config and the frame spec, raises ConfigError for frames it cannot take,
    and sets `latent_spec`.
    """

    latent_spec: LatentSpec

    def __init__(self, config: TokenizerModel, frame: FrameSpec) -> None:
        super().__init__()
        self.config, self.frame = config, frame

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """pixels (B, T, 3, H, W) in [-1, 1] -> latents (B, T, N, C)."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """latents (B, T, N, C) -> pixels (B, T, 3, H, W), not clamped."""

    def encode_for_training(self, pixels: Tensor, step: int) -> Tensor:
        """Like `encode`; a subclass may mask its input depending on the step (from 0)."""
        del step
        return self.encode(pixels)

    def reconstruct_for_training(self, pixels: Tensor, step: int) -> Tensor:
        """The reconstruction that the loss sees, of the size of `pixels`."""
        return self.decode(self.encode_for_training(pixels, step))

    def encode_stream(self) -> EncodeStream:
        """A fresh encoder for frames that arrive in order; a subclass that looks back carries its past along."""
        return EncodeStream(self)

    def decode_stream(self) -> DecodeStream:
        """A fresh decoder for latents that arrive in order; a subclass that looks back carries its past along."""
        return DecodeStream(self)


class EncodeStream:
    """Encodes episodes piece by piece; here every frame stands by itself."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def encode(self, pixels: Tensor) -> Tensor:
        """The next frames, pixels (B, T, 3, H, W) -> latents (B, T, N, C)."""
        return self.tokenizer.encode(pixels)

    def finish(self) -> Tensor | None:
        """The latents of frames that wait for more (an episode has ended); None when none wait, as here."""
        return None

    def forget(self, rows: Tensor) -> None:
        """Rows (B,) where True begin a new episode with the next frame."""


class DecodeStream:
    """Decodes latents piece by piece; here every latent stands by itself."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def decode(self, latents: Tensor) -> Tensor:
        """The next latents (B, T, N, C) -> pixels (B, T, 3, H, W), not clamped."""
        return self.tokenizer.decode(latents)

    def forget(self, rows: Tensor) -> None:
        """Rows (B,) where True begin a new episode with the next latent."""


def to_pixels(frames: Tensor) -> Tensor:
    """Frames (..., H, W, 3) uint8 to pixels (..., 3, H, W) in [-1, 1]."""
    return frames.movedim(-1, -3).float() / 127.5 - 1


def to_frames(pixels: Tensor) -> Tensor:
    """Pixels (..., 3, H, W) to frames (..., H, W, 3) uint8, clamped and rounded.

    Raises:
        DataError: a pixel is no number; as a byte it would be one, and a score of it would look like a result.
    """
    if pixels.isnan().any():
        raise DataError(
            "the model drew pixels that are no numbers (NaN)",
            hint="its weights or the latents it was given are broken; look at them with `ahriuwu doctor`",
        )
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(-3, -1)
