"""Frames of any size: padded by their edge, cropped after decoding, and no trace of the padding in the loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.nn.running_rms import RunningRms
from ahriuwu_cli.tokenizer.config import TokenizerSection
from ahriuwu_cli.tokenizer.loss import reconstruction_loss
from ahriuwu_cli.tokenizer.padding import Padding
from ahriuwu_cli.tokenizer.protocol import Tokenizer
from ahriuwu_cli.tokenizer.train import check_tokenizer_memory

Draw = Callable[..., torch.Tensor]
ODD = FrameSpec(height=19, width=9, fps=10)  # 3 x 2 patches of 8: 24 x 16
WHOLE = FrameSpec(height=24, width=16, fps=10)
KINDS = ["cnn", "transformer"]


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Callable[..., Tokenizer]:
    """Makes a tokenizer of either kind for a frame spec."""
    return request.getfixturevalue(f"make_{request.param}")


@given(height=st.integers(1, 40), width=st.integers(1, 40), patch=st.integers(1, 16))
def test_any_size(height: int, width: int, patch: int) -> None:
    padding = Padding((height, width), patch)
    pixels = torch.rand(2, 1, 3, height, width)
    padded = padding.pad(pixels)
    assert padded.shape == (2, 1, 3, *padding.size)
    for size, full, count in zip((height, width), padding.size, padding.grid, strict=True):
        assert full == count * patch
        assert size <= full < size + patch
    assert torch.equal(padding.crop(padded), pixels)
    assert (padded[..., height:, :] == padded[..., height - 1 : height, :]).all()
    assert (padded[..., width:] == padded[..., width - 1 : width]).all()
    assert (padding.note == "") == (padded.shape == pixels.shape)


def test_by_hand() -> None:
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 3, 2, 2)
    assert Padding((2, 2), 3).pad(image)[0, 0].tolist() == [[1, 2, 2], [3, 4, 4], [3, 4, 4]]


def test_frame_in_frame_out(make: Callable[..., Tokenizer], draw_pixels: Draw) -> None:
    model, pixels = make(ODD), draw_pixels(2, 3, ODD)
    latents = model.encode(pixels)
    assert model.decode(latents).shape == model.reconstruct_for_training(pixels, 0).shape == pixels.shape
    assert model.encode_stream().encode(pixels).shape == latents.shape
    assert model.decode_stream().decode(latents).shape == pixels.shape
    padded = " of 19x9 padded to 24x16, edge repeated at bottom and right"
    assert model.latent_spec.layout.endswith(padded)
    assert "padded" not in make(WHOLE).latent_spec.layout


def test_latents_are_those_of_the_padded_frame(make: Callable[..., Tokenizer], draw_pixels: Draw) -> None:
    model, whole = make(ODD), make(WHOLE)
    whole.load_state_dict(model.state_dict())
    pixels = draw_pixels(1, 2, ODD)
    latents = whole.encode(Padding((19, 9), 8).pad(pixels))
    torch.testing.assert_close(model.encode(pixels), latents)
    torch.testing.assert_close(model.decode(latents), whole.decode(latents)[..., :19, :9])


def test_padding_is_not_in_the_loss(make: Callable[..., Tokenizer], draw_pixels: Draw) -> None:
    """What is decoded below and right of the frame has no gradient at all."""
    model, whole = make(ODD), make(WHOLE)
    whole.load_state_dict(model.state_dict())
    painted: list[torch.Tensor] = []
    crop = Padding.crop

    def spy(padding: Padding, pixels: torch.Tensor) -> torch.Tensor:
        pixels.retain_grad()
        painted.append(pixels)
        return crop(padding, pixels)

    pixels = draw_pixels(2, 2, ODD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Padding, "crop", spy)
        guess = model.reconstruct_for_training(pixels, 0)
    reconstruction_loss(pixels, guess, RunningRms(), None, 0.0)[0].backward()
    [canvas] = painted
    assert canvas.shape[-2:] == (24, 16)
    assert canvas.grad is not None
    assert (canvas.grad[..., :19, :9] != 0).float().mean() > 0.99
    assert not canvas.grad[..., 19:, :].any()
    assert not canvas.grad[..., 9:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_estimated_for_padded_frames(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"model": {"type": kind}, "train": {"steps": 1, "batch_size": 2, "learning_rate": 1e-3}}
    section = TokenizerSection.model_validate(values | {"loss": {"lpips_weight": 0.0}})
    check_tokenizer_memory(section, ODD, Runtime(torch.device("cpu"), "fp32"))
