"""Reconstruction loss of the tokenizer ([D4] Eq. 5)."""

from __future__ import annotations

from torch import Tensor, nn

from ahriuwu_cli.nn.running_rms import RunningRms
from ahriuwu_cli.tokenizer.perceptual import perceptual_distance


def reconstruction_loss(
    truth: Tensor, guess: Tensor, rms: RunningRms, lpips: nn.Module | None, lpips_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """MSE plus weighted LPIPS over all patches, each divided by its running RMS.

    Args:
        truth: (B, T, 3, H, W) pixels in [-1, 1]; guess: the reconstruction, same shape.
        rms: running normaliser, updated here.
        lpips: perceptual model or None.
        lpips_weight: weight of the normalised LPIPS term.

    Returns:
        The scalar loss and metrics; `psnr` is of the whole batch (dB), `spread` the standard deviation across
        images of the reconstruction, which a collapsed tokenizer does not have, beside that of the truth (left
        out where there is one image only).
    """
    mse = (truth - guess.float()).square().mean()
    loss = rms.normalise("mse", mse)
    metrics = {
        "mse": mse.detach(),
        # The pixel range is 2 wide: peak^2 = 4.
        "psnr": 10 * (4 / mse.detach().clamp_min(1e-10)).log10(),
    }
    if truth.shape[0] * truth.shape[1] > 1:
        metrics["spread"] = guess.detach().float().flatten(0, 1).std(dim=0).mean()
        metrics["spread_reference"] = truth.flatten(0, 1).std(dim=0).mean()
    if lpips is not None:
        distance = perceptual_distance(lpips, truth, guess.float())
        loss = loss + lpips_weight * rms.normalise("lpips", distance)
        metrics["lpips"] = distance.detach()
    return loss, metrics
