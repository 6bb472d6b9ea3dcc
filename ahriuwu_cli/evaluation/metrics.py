"""PSNR and SSIM of single frames, and their curves over the horizon of a rollout.

Dimension letters: N contexts, T horizon steps, H and W pixels, 3 RGB channels; F frames of one
chunk; M the four filtered maps; H' and W' where the SSIM window lies inside the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

PEAK = 255.0
PSNR_CAP = 100.0
SSIM_SIGMA = 1.5
SSIM_RADIUS = 5  # int(3.5 * SSIM_SIGMA + 0.5): the 11-tap window of Wang et al. 2004
SSIM_C1 = (0.01 * PEAK) ** 2
SSIM_C2 = (0.03 * PEAK) ** 2

CHUNK_VALUES = 1 << 18  # channel values per chunk: its maps stay in the processor's cache

Frames = NDArray[np.uint8]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class HorizonCurve:
    """How good one set of guessed frames is at each step of the horizon.

    `psnr` (T,) in dB and `ssim` (T,) in [-1, 1] are means over contexts of the per-frame scores;
    `psnr_mean` and `ssim_mean` are their means over the horizon.
    """

    psnr: Scores
    ssim: Scores
    psnr_mean: float
    ssim_mean: float

    def dump(self) -> dict[str, Any]:
        """JSON: both curves and their means."""
        return {
            "psnr": self.psnr.tolist(),
            "ssim": self.ssim.tolist(),
            "psnr_mean": self.psnr_mean,
            "ssim_mean": self.ssim_mean,
        }


def psnr(truth: Frames, guess: Frames) -> Scores:
    """Peak signal-to-noise ratio of each frame over all its pixels and channels.

    Args:
        truth: true frames (..., H, W, 3) uint8.
        guess: guessed frames, same shape and type.

    Returns:
        (...) float64 in dB for a data range of 255, capped at 100 dB: identical frames score 100.

    Raises:
        ValueError: the arrays are not uint8 RGB frames of one shape.
    """
    _check_frames(truth, guess)
    return _per_frame(_psnr_of_chunk, truth, guess)


def ssim(truth: Frames, guess: Frames) -> Scores:
    """Structural similarity of each frame, the mean over channels and window positions.

    Gaussian window with sigma 1.5 pixels and 11 taps, population covariance, K1 = 0.01, K2 = 0.03,
    data range 255 (Wang et al. 2004; equal to scikit-image `structural_similarity` with
    `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1`). Only windows
    that lie inside the frame count; along a side of fewer than 11 pixels the window has the largest
    odd number of taps that fits.

    Args:
        truth: true frames (..., H, W, 3) uint8.
        guess: guessed frames, same shape and type.

    Returns:
        (...) float64 in [-1, 1]; identical frames score 1.

    Raises:
        ValueError: the arrays are not uint8 RGB frames of one shape.
    """
    _check_frames(truth, guess)
    return _per_frame(_ssim_of_chunk, truth, guess)


def horizon_table(truth: Frames, guesses: Mapping[str, Frames]) -> dict[str, HorizonCurve]:
    """Score every guess at every horizon step.

    The rule of averaging: PSNR and SSIM are computed per frame, then averaged over contexts (a mean
    of decibels, not the decibels of a mean error), then over the horizon. Because identical frames
    score 100 dB, a guess that is often exactly right (persistence on a picture that stands still)
    is lifted by them; SSIM is not affected.

    Args:
        truth: true frames (N, T, H, W, 3) uint8, the horizon only (no context frames).
        guesses: by name, the frames of a model or a reference, same shape and type.

    Returns:
        One curve per guess, in the order given.

    Raises:
        ValueError: no guess, no frames, or arrays that are not uint8 RGB of the truth's shape.
    """
    if not guesses:
        raise ValueError("there is no guess to score; expected at least one")
    curves = {}
    for name, guess in guesses.items():
        try:
            curves[name] = _curve(truth, guess)
        except ValueError as error:
            raise ValueError(f"guess {name!r}: {error}") from error
    return curves


def _curve(truth: Frames, guess: Frames) -> HorizonCurve:
    if truth.ndim != 5 or 0 in truth.shape[:2]:
        raise ValueError(f"truth has shape {truth.shape}; expected (N, T, H, W, 3) with at least one frame")
    psnr_steps = psnr(truth, guess).mean(axis=0)  # (N, T) -> (T,)
    ssim_steps = ssim(truth, guess).mean(axis=0)
    return HorizonCurve(psnr_steps, ssim_steps, float(psnr_steps.mean()), float(ssim_steps.mean()))


def _check_frames(truth: Frames, guess: Frames) -> None:
    for name, array in (("truth", truth), ("guess", guess)):
        if array.dtype != np.uint8:
            raise ValueError(f"{name} is {array.dtype}; expected uint8 frames with values 0..255")
        if array.ndim < 3 or array.shape[-1] != 3 or 0 in array.shape[-3:]:
            raise ValueError(f"{name} has shape {array.shape}; expected RGB frames (..., H, W, 3)")
    if truth.shape != guess.shape:
        raise ValueError(f"guess has shape {guess.shape}; expected {truth.shape}, the shape of the truth")


def _per_frame(score: Callable[[Frames, Frames], Scores], truth: Frames, guess: Frames) -> Scores:
    """Apply `score` to chunks of frames: (..., H, W, 3) twice -> (...)."""
    leading, frame_shape = truth.shape[:-3], truth.shape[-3:]
    truth, guess = truth.reshape(-1, *frame_shape), guess.reshape(-1, *frame_shape)
    step = max(1, CHUNK_VALUES // int(np.prod(frame_shape)))
    out = np.empty(len(truth))
    for start in range(0, len(truth), step):
        chunk = slice(start, start + step)
        out[chunk] = score(truth[chunk], guess[chunk])
    return out.reshape(leading)


def _psnr_of_chunk(truth: Frames, guess: Frames) -> Scores:
    error = truth.astype(np.int32) - guess  # (F, H, W, 3)
    mse: Scores = np.square(error).mean(axis=(1, 2, 3), dtype=np.float64)  # (F,)
    with np.errstate(divide="ignore"):
        decibels: Scores = 10.0 * np.log10(PEAK**2 / mse)
    return np.minimum(decibels, PSNR_CAP)


def _ssim_of_chunk(truth: Frames, guess: Frames) -> Scores:
    x = np.moveaxis(truth, -1, 1).astype(np.float64)  # (F, 3, H, W)
    y = np.moveaxis(guess, -1, 1).astype(np.float64)
    # The two variances are only needed as a sum, so four maps are enough.
    mean_x, mean_y, mean_squares, mean_product = _blur(np.stack([x, y, x * x + y * y, x * y]))  # each (F, 3, H', W')
    square_means = mean_x**2 + mean_y**2
    product_means = mean_x * mean_y
    luminance = (2.0 * product_means + SSIM_C1) / (square_means + SSIM_C1)
    contrast = (2.0 * (mean_product - product_means) + SSIM_C2) / (mean_squares - square_means + SSIM_C2)
    scores: Scores = (luminance * contrast).mean(axis=(1, 2, 3))  # (F,)
    return scores


def _blur(maps: Scores) -> Scores:
    """Gaussian mean at every window inside the frame: (M, F, 3, H, W) -> (M, F, 3, H', W')."""
    for axis in (-2, -1):
        side = maps.shape[axis]
        radius = min(SSIM_RADIUS, (side - 1) // 2)
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / SSIM_SIGMA) ** 2)
        blurred = correlate1d(maps, weights / weights.sum(), axis=axis)
        maps = blurred.take(range(radius, side - radius), axis=axis)
    return maps
