"""Frames of any size on a grid of patches: padded at the bottom and the right, cropped after decoding.

Shapes: M leading dimensions of any number, H and W frame size, H' and W' padded size, h and w grid of patches.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from ahriuwu_cli.core.specs import FrameSpec


@dataclass(frozen=True)
class Padding:
    """How a frame becomes whole patches: the last row and the last column are repeated as often as it takes.

    What is added is cropped from every reconstruction, so no loss and no metric ever sees it.

    Attributes:
        frame: (H, W).
        patch: pixels per side of a patch.
    """

    frame: tuple[int, int]
    patch: int

    @classmethod
    def of(cls, frame: FrameSpec, patch: int) -> Padding:
        """For frames of a spec."""
        return cls((frame.height, frame.width), patch)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w), as many patches as cover the frame."""
        return -(-self.frame[0] // self.patch), -(-self.frame[1] // self.patch)

    @property
    def size(self) -> tuple[int, int]:
        """(H', W'), multiples of the patch."""
        return self.grid[0] * self.patch, self.grid[1] * self.patch

    @property
    def note(self) -> str:
        """What a latent spec's layout says of it; empty where nothing is added."""
        if self.size == self.frame:
            return ""
        (height, width), (full_height, full_width) = self.frame, self.size
        return f" of {height}x{width} padded to {full_height}x{full_width}, edge repeated at bottom and right"

    def pad(self, pixels: Tensor) -> Tensor:
        """pixels (M..., 3, H, W) -> (M..., 3, H', W')."""
        down, right = self.size[0] - self.frame[0], self.size[1] - self.frame[1]
        if not down and not right:
            return pixels
        padded = F.pad(pixels.flatten(0, -4), (0, right, 0, down), mode="replicate")  # (M, 3, H', W')
        return padded.reshape(*pixels.shape[:-2], *self.size)

    def crop(self, pixels: Tensor) -> Tensor:
        """Inverse of `pad`: pixels (M..., 3, H', W') -> (M..., 3, H, W)."""
        return pixels[..., : self.frame[0], : self.frame[1]]
