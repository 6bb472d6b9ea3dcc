"""Reconstruction loss of the tokenizer ([D4] Eq. 5).

Shapes: B batch, T time steps, H and W frame size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ahriuwu_cli.nn.running_rms import RunningRms
from ahriuwu_cli.tokenizer.perceptual import perceptual_distance


def reconstruction_loss(
    truth: Tensor,
    guess: Tensor,
    rms: RunningRms,
    lpips: nn.Module | None,
    lpips_weight: float,
    counted: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """MSE plus weighted LPIPS over all patches, each divided by its running RMS.

    Pixels that do not count are taken from the truth before anything is compared: they add nothing to either term and
    no gradient reaches them.

    Args:
        truth: (B, T, 3, H, W) pixels in [-1, 1]; guess: the reconstruction, same shape.
        rms: running normaliser, updated here.
        lpips: perceptual model or None.
        lpips_weight: weight of the normalised LPIPS term.
        counted: (H, W) bool, False where the screen is ignored, one True at least; None counts all of it.

    Returns:
        The scalar loss and metrics, all of them over counted pixels; `psnr` is of the whole batch (dB), `spread` the
        standard deviation across images of the reconstruction, which a collapsed tokenizer does not have, beside that
        of the truth (left out where there is one image only).
    """
    guess = guess.float()
    if counted is not None:
        guess = torch.where(counted, guess, truth)
    mse = mean_square(truth, guess, counted)
    loss = rms.normalise("mse", mse)
    metrics = {"mse": mse.detach(), "psnr": psnr(mse.detach())}
    if truth.shape[0] * truth.shape[1] > 1:
        metrics["spread"] = _mean(guess.detach().flatten(0, 1).std(dim=0), counted)
        metrics["spread_reference"] = _mean(truth.flatten(0, 1).std(dim=0), counted)
    if lpips is not None:
        distance = perceptual_distance(lpips, truth, guess)
        loss = loss + lpips_weight * rms.normalise("lpips", distance)
        metrics["lpips"] = distance.detach()
    return loss, metrics


def mean_square(truth: Tensor, guess: Tensor, counted: Tensor | None) -> Tensor:
    """Mean squared error over the pixels that count."""
    return _mean((truth - guess).square(), counted)


def psnr(mse: Tensor) -> Tensor:
    """dB of a mean squared error of pixels in [-1, 1]."""
    return 10 * (4 / mse.clamp_min(1e-10)).log10()  # the range is 2 wide: peak^2 = 4


def _mean(values: Tensor, counted: Tensor | None) -> Tensor:
    """Mean of values (..., H, W) over the pixels that count."""
    if counted is None:
        return values.mean()
    return (values * counted).mean() * (counted.numel() / counted.sum())
