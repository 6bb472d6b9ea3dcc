"""The convolutional tokenizer: each frame by itself, each token in its place, and it learns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.nn.running_rms import RunningRms
from ahriuwu_cli.tokenizer.cnn import CnnTokenizer, Upsample
from ahriuwu_cli.tokenizer.config import CnnModel
from ahriuwu_cli.tokenizer.loss import reconstruction_loss

Draw = Callable[..., torch.Tensor]
Make = Callable[..., CnnTokenizer]


def test_frames_stand_by_themselves(make_cnn: Make, draw_pixels: Draw) -> None:
    """Pitfall 19: perturbing the future changes nothing earlier (here: no other frame at all)."""
    model, pixels = make_cnn(), draw_pixels(2, 3)
    other = pixels.clone()
    other[1, 1] = -other[1, 1]
    latents, moved = model.encode(pixels), model.encode(other)
    changed = (latents != moved).any(dim=-1).any(dim=-1)
    assert changed.tolist() == [[False] * 3, [False, True, False]]
    changed = (model.decode(latents) != model.decode(moved)).flatten(2).any(dim=-1)
    assert changed.tolist() == [[False] * 3, [False, True, False]]


def test_one_frame_alone_is_the_same_frame(make_cnn: Make, draw_pixels: Draw) -> None:
    model, pixels = make_cnn(), draw_pixels(2, 3)
    torch.testing.assert_close(model.encode(pixels)[1:, 2:], model.encode(pixels[1:, 2:]))
    latents = model.encode(pixels)
    torch.testing.assert_close(model.decode(latents)[1:, 2:], model.decode(latents[1:, 2:]))


def middle(changed: torch.Tensor) -> list[float]:
    """Middle of the box around what changed, of (rows, columns)."""
    return [(places.min() + places.max()).item() / 2 for places in changed.nonzero().T]


def test_tokens_lie_row_by_row(make_cnn: Make, draw_pixels: Draw) -> None:
    """Pitfall 11: latents carry their layout. Token 9 i + j lies over patch (i, j) of 7 x 9."""
    frame = FrameSpec(height=56, width=72, fps=10)
    model, pixels = make_cnn(frame, blocks_per_stage=0), draw_pixels(1, 1, frame)
    assert (model.latent_spec.num_tokens, model.latent_spec.layout) == (63, "grid 7x9")
    latents = model.encode(pixels)
    other = pixels.clone()
    other[..., 8 * 3 : 8 * 4, 8 * 5 : 8 * 6] *= -1
    assert middle((model.encode(other) != latents).any(dim=-1).reshape(7, 9)) == [3, 5]
    nudged = latents.clone()
    nudged[:, :, 9 * 3 + 5] += 0.5
    changed = (model.decode(nudged) != model.decode(latents)).any(dim=2).reshape(56, 72)
    assert middle(changed) == pytest.approx([8 * 3 + 3.5, 8 * 5 + 3.5], abs=1)


@pytest.mark.parametrize(("patch", "grid"), [(2, "8x12"), (4, "4x6"), (8, "2x3")])
def test_every_patch_size(make_cnn: Make, draw_pixels: Draw, patch: int, grid: str) -> None:
    model, pixels = make_cnn(patch=patch), draw_pixels(1, 2)
    assert model.latent_spec.layout == f"grid {grid}"
    assert model.decode(model.encode(pixels)).shape == pixels.shape


@pytest.mark.parametrize("stem", [False, True])
def test_normalisation_does_not_depend_on_the_batch(make_cnn: Make, draw_pixels: Draw, stem: bool) -> None:
    """A frame has the same latents and the same picture alone and among others, in training and in use."""
    model, pixels = make_cnn(stem=stem), draw_pixels(4, 2)
    pixels[1:] *= 0.1  # others of quite another contrast
    for training in (True, False):
        model.train(training)
        latents = model.encode(pixels)
        torch.testing.assert_close(latents[:1, :1], model.encode(pixels[:1, :1]), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(model.decode(latents)[:1, :1], model.decode(latents[:1, :1]), atol=1e-5, rtol=1e-5)
    assert not dict(model.named_buffers())  # no running statistics


@pytest.mark.parametrize("patch", [2, 16])
def test_a_stem_is_mirrored(make_cnn: Make, draw_pixels: Draw, patch: int) -> None:
    frame = FrameSpec(height=32, width=16, fps=10)
    plain, model = (make_cnn(frame, patch=patch, stem=stem) for stem in (False, True))
    pixels = draw_pixels(2, 1, frame)
    assert model.latent_spec == plain.latent_spec
    assert model.decode(model.encode(pixels)).shape == pixels.shape
    shapes = [tuple(tensor.shape) for tensor in (model.encoder[0].weight, model.decoder[-1].weight)]
    assert shapes == [(4, 3, 3, 3), (3, 4, 3, 3)]
    strides = [
        [layer.stride for layer in half if isinstance(layer, nn.Conv2d)] for half in (plain.encoder, model.encoder)
    ]
    assert strides[1] == [(1, 1), *strides[0]]
    halvings = patch.bit_length() - 1
    assert strides[0].count((2, 2)) == sum(isinstance(layer, Upsample) for layer in model.decoder) == halvings


def test_overfits_four_frames() -> None:
    """Pitfall 30: the reconstruction depends on its input; 25 dB tell four images apart."""
    frame = FrameSpec(height=16, width=16, fps=10)
    model = CnnTokenizer(CnnModel(patch=4, dim_token=8, base_channels=16), frame)
    blocks = torch.randint(0, 2, (4, 1, 3, 4, 4)).float() * 2 - 1
    pixels = blocks.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)  # (4, 1, 3, 16, 16)
    rms, optimizer = RunningRms(), torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(300):
        guess = model.reconstruct_for_training(pixels, step)
        loss, metrics = reconstruction_loss(pixels, guess, rms, None, 0.0)
        if metrics["psnr"] > 25:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert metrics["psnr"] > 25
    assert metrics["spread"] > 0.8 * metrics["spread_reference"]
