"""How frames of any size come to the size that a Cosmos tokenizer takes, and back; folding of tokens.

Shapes: M frames, H and W frame size, H' and W' size of the canvas, h and w grid of the tokenizer, f fold,
N = h*w/f^2 tokens, C = 16*f^2 channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.tokenizer.padding import Padding

ALIGNMENT = 16
"""Heights and widths that the tokenizers take are multiples of this."""


@dataclass(frozen=True)
class Canvas:
    """Where frames lie on what the tokenizer sees: resized if asked for, then padded at the bottom and the right.

    Attributes:
        frame: (H, W).
        padding: from the size after resizing (the frame's own where nothing is resized) to (H', W'), multiples of
            16 and of the pixels that one token covers.
    """

    frame: tuple[int, int]
    padding: Padding

    @classmethod
    def of(cls, frame: FrameSpec, image: tuple[int, int] | None, token_pixels: int) -> Canvas:
        """For frames of a spec, a size to resize them to or None, and tokens of `token_pixels` pixels a side."""
        own = (frame.height, frame.width)
        return cls(own, Padding(image or own, math.lcm(ALIGNMENT, token_pixels)))

    @property
    def size(self) -> tuple[int, int]:
        """(H', W')."""
        return self.padding.size

    @property
    def note(self) -> str:
        """What a latent spec's layout says of it; empty where frames are taken as they are."""
        (height, width), (inner_height, inner_width) = self.frame, self.padding.frame
        resized = f", {height}x{width} resized to {inner_height}x{inner_width}"
        return (resized if self.frame != self.padding.frame else "") + self.padding.note

    def lay(self, pixels: Tensor) -> Tensor:
        """pixels (M, 3, H, W) in [-1, 1] -> (M, 3, H', W') in [-1, 1]; padding repeats the edge."""
        return self.padding.pad(_resized(pixels, self.padding.frame).clamp(-1, 1))  # bicubic overshoots

    def lift(self, pixels: Tensor) -> Tensor:
        """Inverse of `lay`: (M, 3, H', W') -> (M, 3, H, W), not clamped."""
        return _resized(self.padding.crop(pixels), self.frame)


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic; smoothed first where it becomes smaller."""
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    return F.interpolate(pixels, size=size, mode="bicubic", align_corners=False, antialias=True)


# ---------------------------------------------------------------- tokens


def fold(grid: Tensor, factor: int) -> Tensor:
    """Grid (M, 16, h, w) -> tokens (M, N, C): the channels of factor x factor neighbours stand side by side."""
    folded = F.pixel_unshuffle(grid, factor)  # (M, C, h/f, w/f)
    return folded.flatten(2).transpose(1, 2)


def unfold(tokens: Tensor, height: int, factor: int) -> Tensor:
    """Inverse of `fold`: tokens (M, N, C) -> grid (M, 16, height, w)."""
    rows = height // factor
    folded = tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], rows, -1)  # (M, C, h/f, w/f)
    return F.pixel_shuffle(folded, factor)
