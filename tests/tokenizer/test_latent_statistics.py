"""Latent statistics against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.tokenizer.statistics import latent_statistics


def rank(latents: torch.Tensor) -> float:
    return float(latent_statistics(latents)["latent_rank"])


def test_mean_and_spread() -> None:
    latents = torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(1, 2, 1, 2)
    found = latent_statistics(latents)
    assert float(found["latent_mean"]) == 0.5
    assert float(found["latent_std"]) == 0.5


def test_rank_by_hand() -> None:
    """Variances 3 : 1 on two channels are shares 3/4 and 1/4."""
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    latents = (signs * torch.tensor([math.sqrt(3), 1.0]) + 7).reshape(4, 1, 1, 2)
    assert rank(latents) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)), rel=1e-4)
    assert float(latent_statistics(latents)["latent_spread"]) == pytest.approx(math.sqrt(2))


def test_what_all_images_share_is_no_spread() -> None:
    """Pitfall 30: latents of a collapsed tokenizer differ from token to token, but not from image to image."""
    pattern = torch.randn(1, 1, 16, 8)
    found = latent_statistics(pattern.expand(6, 2, 16, 8) + 1e-6 * torch.randn(6, 2, 16, 8))
    assert float(found["latent_std"]) > 0.5
    assert float(found["latent_spread"]) < 1e-5
    assert latent_statistics(pattern).keys() == {"latent_mean", "latent_std"}


@given(used=st.integers(1, 6), seed=st.integers(0, 99))
def test_rank_counts_independent_channels_whatever_their_rotation(used: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    white = torch.linalg.qr(torch.randn(64, used, generator=generator))[0]
    white = white - white.mean(dim=0)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0][:used]
    assert rank((white @ rotation).reshape(16, 4, 1, 6)) == pytest.approx(used, rel=0.1)


def test_channels_that_say_the_same_or_nothing() -> None:
    one = torch.randn(3, 2, 5, 1)
    assert rank(torch.cat([one, -2 * one, one], dim=-1)) == pytest.approx(1, abs=1e-3)
    assert rank(torch.full((3, 2, 5, 4), 0.3)) == pytest.approx(1, abs=1e-3)


def test_half_precision_around_it_changes_nothing() -> None:
    latents = torch.randn(8, 1, 16, 8)
    plain = latent_statistics(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = latent_statistics(latents)
    for name, value in plain.items():
        assert torch.equal(inside[name], value)
        assert not value.requires_grad
