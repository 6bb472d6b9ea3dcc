"""Numbers that tell whether latents are used: how large they are, how much they differ, and in how many ways.

Shapes: B batch, T time steps, N latent tokens, C channels per token, M = B*T*N.
"""

from __future__ import annotations

import torch
from torch import Tensor


def latent_statistics(latents: Tensor) -> dict[str, Tensor]:
    """Metrics of latents (B, T, N, C), which two of them left out where there is one image only.

    `latent_mean` and `latent_std` are over all values. `latent_spread` is the standard deviation of a token's channel
    across images: near 0 in a collapsed tokenizer, whose latents may be large and all the same. `latent_rank` is the
    effective rank of that: of the covariance of the channels about each token's own mean, exp of the entropy of its
    eigenvalues as shares of their sum. It is C when all channels tell equally much and nothing twice, 1 when they all
    tell the same or nothing at all.
    """
    values = latents.detach().flatten(0, 1).float()  # (B*T, N, C)
    metrics = {"latent_mean": values.mean(), "latent_std": values.std(correction=0)}
    if len(values) == 1:
        return metrics
    with torch.autocast(values.device.type, enabled=False):
        differing = (values - values.mean(dim=0)).flatten(0, 1)  # (M, C)
        covariance = differing.T @ differing / len(differing)  # (C, C)
    # Eigenvalues on the CPU: a small matrix, and not every device has the routine.
    eigenvalues = torch.linalg.eigvalsh(covariance.cpu().double()).clamp_min(0)
    share = eigenvalues / eigenvalues.sum().clamp_min(1e-30)
    metrics["latent_spread"] = covariance.diagonal().mean().sqrt()
    metrics["latent_rank"] = torch.special.entr(share).sum().exp()
    return metrics
