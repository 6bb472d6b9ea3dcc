"""Frames to pixels and back without loss, and whole episodes in pieces of any size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.tokenizer.coding import decode_latents, encode_episode
from ahriuwu_cli.tokenizer.protocol import Tokenizer, to_frames, to_pixels

CPU = Runtime(torch.device("cpu"), "fp32")


def test_every_value_survives_the_round_trip() -> None:
    """Pitfall 27: one frame transform, and it is exact."""
    frames = torch.arange(256, dtype=torch.uint8).reshape(8, 32, 1).expand(8, 32, 3)
    pixels = to_pixels(frames)
    assert pixels.shape == (3, 8, 32)
    assert (pixels.min(), pixels.max()) == (-1, 1)
    assert torch.equal(to_frames(pixels), frames)


@given(frames=hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 3), st.just(4), st.just(5), st.just(3))))
def test_round_trip_of_any_frames(frames: np.ndarray) -> None:
    assert np.array_equal(to_frames(to_pixels(torch.from_numpy(frames))).numpy(), frames)


def test_channels_move_with_their_values() -> None:
    frame = torch.zeros(2, 2, 3, dtype=torch.uint8)
    frame[0, 1, 2] = 255
    assert to_pixels(frame).argmax() == 2 * 4 + 1  # channel 2, row 0, column 1


def test_pixels_beyond_the_range_are_clamped() -> None:
    pixels = torch.tensor([-7.0, -1.004, 1.004, 7.0]).reshape(1, 1, 4).expand(3, 1, 4)
    assert to_frames(pixels)[0, :, 0].tolist() == [0, 0, 255, 255]


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randint(0, 256, (7, 16, 24, 3), dtype=torch.uint8)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_pieces_of_an_episode(tokenizer: Tokenizer, frames: torch.Tensor, batch_size: int) -> None:
    """Pitfall 13: as many latents as frames, in order, whatever the size of the pieces."""
    latents = encode_episode(tokenizer, frames.split(batch_size), CPU)
    assert latents.shape == (7, tokenizer.latent_spec.num_tokens, tokenizer.latent_spec.dim_token)
    assert not latents.requires_grad
    torch.testing.assert_close(latents, tokenizer.encode(to_pixels(frames)[None])[0], atol=2e-5, rtol=1e-4)


def test_episodes_do_not_leak_into_each_other(tokenizer: Tokenizer, frames: torch.Tensor) -> None:
    first = encode_episode(tokenizer, frames.split(4), CPU)
    encode_episode(tokenizer, frames.flip(0).split(4), CPU)
    assert torch.equal(encode_episode(tokenizer, frames.split(4), CPU), first)


@pytest.mark.parametrize("batch_size", [1, 6, 100])
def test_decoding_in_pieces(tokenizer: Tokenizer, batch_size: int) -> None:
    spec = tokenizer.latent_spec
    latents = 2 * torch.rand(5, 3, spec.num_tokens, spec.dim_token) - 1
    decoded = decode_latents(tokenizer, latents, CPU, batch_size)
    assert decoded.shape == (5, 3, 16, 24, 3)
    assert decoded.dtype == torch.uint8
    whole = to_frames(tokenizer.decode(latents))
    assert (decoded.int() - whole.int()).abs().max() <= 1  # rounding of equal pixels


def test_runtime_precision_is_used(make_cnn: Callable[..., Tokenizer], frames: torch.Tensor) -> None:
    model = make_cnn()
    exact = encode_episode(model, frames.split(4), CPU)
    rounded = encode_episode(model, frames.split(4), Runtime(torch.device("cpu"), "bf16"))
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.1, rtol=0)
