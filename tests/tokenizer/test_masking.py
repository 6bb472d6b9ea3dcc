"""Masked autoencoding: how many patches are masked, the curriculum, and what the loss reaches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.nn.running_rms import RunningRms
from ahriuwu_cli.tokenizer.config import TransformerModel
from ahriuwu_cli.tokenizer.loss import reconstruction_loss
from ahriuwu_cli.tokenizer.transformer import TransformerTokenizer, mask_limit

Make = Callable[..., TransformerTokenizer]
Draw = Callable[..., torch.Tensor]
MANY = FrameSpec(height=32, width=32, fps=10)  # with patch 2: 256 patches


@pytest.fixture
def masked_shares(make_transformer: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """The share of masked patches of each of 64 x 4 images (B, T) at a training step."""

    def measure(step: int, **changes: object) -> Tensor:
        model = make_transformer(MANY, patch=2, **changes)
        seen: list[Tensor] = []

        def spy(patches: Tensor, scope: object) -> Tensor:
            seen.append((patches == model.mask_embedding).all(dim=-1).float().mean(dim=-1))
            return torch.zeros(*patches.shape[:2], 2, 6)

        monkeypatch.setattr(model, "encode_patches", spy)
        monkeypatch.setattr(model, "decode", lambda latents: latents)
        with torch.no_grad():
            model.reconstruct_for_training(2 * torch.rand(64, 4, 3, 32, 32) - 1, step)
        return seen[0]

    return measure


def test_share_is_uniform_up_to_the_maximum(masked_shares: Callable[..., Tensor]) -> None:
    """[D4] Sec. 3.1: p ~ U(0, 0.9) for each image by itself."""
    shares = masked_shares(0, mask_max=0.9)
    assert shares.max() < 0.99
    assert shares.mean().item() == pytest.approx(0.45, abs=0.06)
    assert shares.std().item() == pytest.approx(0.9 / 12**0.5, abs=0.05)
    assert shares.std(dim=1).mean() > 0.15  # the frames of a clip differ too


@pytest.mark.parametrize(("step", "limit"), [(0, 0.0), (25, 0.2), (50, 0.4), (100, 0.8), (1000, 0.8)])
def test_share_grows_over_the_warm_up(masked_shares: Callable[..., Tensor], step: int, limit: float) -> None:
    """Pitfall 30: masking up to 0.9 from step 0 gave the mean image for every input."""
    shares = masked_shares(step, mask_max=0.8, mask_warmup_steps=100)
    assert shares.max() <= limit + 0.1 * (limit > 0)
    assert shares.mean().item() == pytest.approx(limit / 2, abs=0.06)


@pytest.mark.parametrize(
    ("step", "limit"), [(0, 0.0), (39, 0.0), (40, 0.0), (65, 0.2), (90, 0.4), (140, 0.8), (999, 0.8)]
)
def test_masking_begins_after_its_start(masked_shares: Callable[..., Tensor], step: int, limit: float) -> None:
    shares = masked_shares(step, mask_max=0.8, mask_start_steps=40, mask_warmup_steps=100)
    assert shares.max() <= limit + 0.1 * (limit > 0)
    assert shares.mean().item() == pytest.approx(limit / 2, abs=0.06)


@pytest.mark.parametrize(("step", "wanted"), [(0, 0.0), (9, 0.0), (10, 0.8), (11, 0.8)])
def test_a_start_without_a_warm_up(step: int, wanted: float) -> None:
    config = TransformerModel.model_validate({"mask_max": 0.8, "mask_start_steps": 10, "mask_warmup_steps": 0})
    assert mask_limit(config, step) == wanted


def test_no_masking_when_the_maximum_is_zero(make_transformer: Make, draw_pixels: Draw) -> None:
    model, pixels = make_transformer(mask_max=0.0), draw_pixels(2, 3)
    torch.testing.assert_close(model.reconstruct_for_training(pixels, 10), model.decode(model.encode(pixels)))


def test_encoding_for_use_is_never_masked(make_transformer: Make, draw_pixels: Draw) -> None:
    model, pixels = make_transformer(mask_max=0.9), draw_pixels(2, 3)
    before = model.encode(pixels)
    model.mask_embedding.data += 10
    assert torch.equal(model.encode(pixels), before)
    assert not torch.equal(model.reconstruct_for_training(pixels, 0), model.reconstruct_for_training(pixels, 0))


def test_content_of_masked_patches_leaves_no_trace(make_transformer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_transformer(mask_max=0.9)
    monkeypatch.setattr(torch, "rand", lambda *shape, device=None: torch.full(shape, 0.0 if shape[2] > 1 else 0.5))
    first, second = (model.reconstruct_for_training(value * torch.ones(1, 2, 3, 16, 24), 0) for value in (-0.7, 0.4))
    assert torch.equal(first, second)  # every patch is masked: 0 < 0.45


def test_loss_is_over_all_patches_and_teaches_the_mask(make_transformer: Make, draw_pixels: Draw) -> None:
    model, pixels = make_transformer(mask_max=0.9), draw_pixels(3, 2)
    guess = model.reconstruct_for_training(pixels, 0)
    guess.retain_grad()
    loss, _ = reconstruction_loss(pixels, guess, RunningRms(), None, 0.0)
    loss.backward()
    assert guess.grad is not None
    assert (guess.grad != 0).float().mean() > 0.99
    assert model.mask_embedding.grad is not None
    assert model.mask_embedding.grad.abs().max() > 0
