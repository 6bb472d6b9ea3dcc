"""A Fréchet distance between two sets of short videos, over features of a fixed random network.

It is made like the Fréchet video distance of [D4] Table 2, but with features that need no download: three layers
of 3D convolutions with random weights from a fixed seed. Its values say nothing by themselves and cannot be
compared with published ones; they order the rows of one table, all against the same truth. Beside them belongs
the distance between two halves of the truth, which is what the number of videos leaves of zero.

Shapes: N clips, T frames of a clip, H and W pixels, S side after resizing, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.evaluation.metrics import Frames

CLIP_LENGTH = 16  # frames, as in [D4] Sec. 4
SEED = 0x0F1D
SMALL_SIDE, LARGE_SIDE = 32, 64  # frames are resized to the larger one from that size on
CHANNELS = (12, 24, 32)
DIFFERENCE_GAIN = 4.0  # what moves is small beside what stands
BATCH = 32

Features = NDArray[np.float64]
VideoFeatures = Callable[[Tensor], Tensor]
"""Clips (N, 3, T, H, W) in [-1, 1] to features (N, D)."""


class RandomVideoNet(nn.Module):
    """Colour and change since the frame before, through random 3D convolutions; mean and spread of each channel."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(SEED)
        widths = (6, *CHANNELS)
        self.layers = nn.ModuleList()
        for before, after in pairwise(widths):
            layer: nn.Conv3d = skip_init(nn.Conv3d, before, after, 3, stride=(1, 2, 2), padding=1)  # type: ignore[no-untyped-call]
            fan_in = before * 27
            with torch.no_grad():
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
                assert layer.bias is not None
                layer.bias.copy_(torch.randn(after, generator=generator) * 0.1)
            self.layers.append(layer)
        self.requires_grad_(False).eval()

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, H, W) in [-1, 1] -> (N, D), D twice the last layer's channels."""
        side = LARGE_SIDE if min(clips.shape[-2:]) >= LARGE_SIDE else SMALL_SIDE
        x = F.interpolate(clips, size=(clips.shape[2], side, side), mode="area")  # (N, 3, T, S, S)
        change = torch.diff(x, dim=2, prepend=x[:, :, :1]) * DIFFERENCE_GAIN
        x = torch.cat([x, change], dim=1)  # (N, 6, T, S, S)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        values = x.flatten(2)  # (N, D/2, T * S/8 * S/8)
        return torch.cat([values.mean(dim=2), values.std(dim=2)], dim=1)


def load_video_features(path: str) -> VideoFeatures:
    """The network in a TorchScript file, or the random one where `path` is empty.

    Raises:
        InputError: the file is not there or is no TorchScript.
    """
    if not path:
        return RandomVideoNet()
    try:
        net: VideoFeatures = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        found = "cannot be read" if Path(path).exists() else "does not exist"
        raise InputError(
            f"eval.video_features {path} {found}; expected a TorchScript file",
            hint="clips (N, 3, T, H, W) in [-1, 1] in, features (N, D) out; empty takes the built-in network",
        ) from error
    return net


@torch.no_grad()
def clip_features(frames: Frames, network: VideoFeatures) -> Features:
    """Features of all clips in some videos; frames after the last whole clip are left out.

    Args:
        frames: (M, L, H, W, 3) uint8; videos shorter than a clip are one clip each.
        network: what gives the features, on the CPU.

    Returns:
        (N, D) float64 with N = M * max(1, L // 16).

    Raises:
        ValueError: not uint8 RGB videos.
    """
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"videos are {frames.dtype} {frames.shape}; expected uint8 (M, L, H, W, 3)")
    length = min(CLIP_LENGTH, frames.shape[1])
    per_video = frames.shape[1] // length
    clips = frames[:, : per_video * length].reshape(-1, length, *frames.shape[2:])  # (N, T, H, W, 3)
    parts = []
    for start in range(0, len(clips), BATCH):
        pixels = torch.from_numpy(np.ascontiguousarray(clips[start : start + BATCH])).permute(0, 4, 1, 2, 3)
        parts.append(network(pixels.float() / 127.5 - 1).double().numpy())
    features: Features = np.concatenate(parts)
    return features


def frechet_distance(a: Features, b: Features) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) of two sets of features (N, D) with covariances A and B.

    tr (A B)^(1/2) is the sum of the singular values of A^(1/2) B^(1/2), so that nothing becomes complex or
    negative where a covariance lacks full rank.

    Raises:
        ValueError: a set has fewer than two rows, or the widths differ.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"features have shapes {a.shape} and {b.shape}; expected two rows each, of one width")
    root_a, root_b = _root(a), _root(b)
    shift = float(np.square(a.mean(axis=0) - b.mean(axis=0)).sum())
    cross = float(np.linalg.svd(root_a @ root_b, compute_uv=False).sum())
    spread = float(np.square(root_a).sum() + np.square(root_b).sum())  # tr A + tr B
    return max(0.0, shift + spread - 2 * cross)


def _root(features: Features) -> Features:
    """The symmetric square root of the covariance of (N, D): (D, D)."""
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(features, rowvar=False)))
    root: Features = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return root


def halves_distance(features: Features, seed: int) -> float | None:
    """The distance between two random halves of one set (N, D): what the number of clips leaves of zero.

    None where there are fewer than four clips.
    """
    order = np.random.default_rng(seed).permutation(len(features))
    middle = len(order) // 2
    if middle < 2:
        return None
    return frechet_distance(features[order[:middle]], features[order[middle : 2 * middle]])
