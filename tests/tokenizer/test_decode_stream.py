"""Decoding frame by frame equals one full pass, for ever, and rows begin anew where they should."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.tokenizer.coding import decode_latents, encode_episode
from ahriuwu_cli.tokenizer.protocol import Tokenizer, to_frames
from ahriuwu_cli.tokenizer.transformer import TransformerTokenizer

Make = Callable[..., TransformerTokenizer]
CLOSE = {"atol": 5e-5, "rtol": 1e-4}
CPU = Runtime(torch.device("cpu"), "fp32")


def draw_latents(model: Tokenizer, batch: int, length: int) -> torch.Tensor:
    """(B, T, N, C) uniform in [-1, 1]."""
    return 2 * torch.rand(batch, length, model.latent_spec.num_tokens, model.latent_spec.dim_token) - 1


@pytest.mark.parametrize("pieces", [[7], [1] * 7, [3, 1, 3], [2, 5]])
@pytest.mark.parametrize("context", [0, 2, 10])
def test_stream_equals_one_full_pass(make_transformer: Make, context: int, pieces: list[int]) -> None:
    """Pitfall 19: cached decoding = full decoding, for any cutting into pieces."""
    model = make_transformer(context_length=context)
    latents = draw_latents(model, 2, 7)
    stream = model.decode_stream()
    parts = [stream.decode(piece) for piece in torch.split(latents, pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model.decode(latents), **CLOSE)


@torch.no_grad()
def test_streams_run_on_far_beyond_the_context(make_transformer: Make) -> None:
    """Two time layers in each half, a ring of four, sixty frames, both directions."""
    model = make_transformer(context_length=3, num_encoder_layers=4, num_decoder_layers=4)
    latents = draw_latents(model, 2, 60)
    stream = model.decode_stream()
    pixels = torch.cat([stream.decode(latents[:, step : step + 1]) for step in range(60)], dim=1)
    torch.testing.assert_close(pixels, model.decode(latents), **CLOSE)
    back = model.encode_stream()
    found = torch.cat([back.encode(pixels[:, step : step + 1]) for step in range(60)], dim=1)
    torch.testing.assert_close(found, model.encode(pixels), **CLOSE)


@pytest.mark.parametrize("at", [0, 1, 4])
def test_stream_forgets_rows_that_begin_anew(make_transformer: Make, at: int) -> None:
    model = make_transformer()
    latents = draw_latents(model, 3, 6)
    stream, parts = model.decode_stream(), []
    for step in range(6):
        if step == at:
            stream.forget(torch.tensor([False, True, False]))
        parts.append(stream.decode(latents[:, step : step + 1]))
    found, full = torch.cat(parts, dim=1), model.decode(latents)
    torch.testing.assert_close(found[[0, 2]], full[[0, 2]], **CLOSE)
    torch.testing.assert_close(found[1:2, at:], model.decode(latents[1:2, at:]), **CLOSE)
    if at:
        assert (found[1, at] - full[1, at]).abs().max() > 1e-3


def test_streams_are_independent(make_transformer: Make) -> None:
    model = make_transformer()
    latents = draw_latents(model, 1, 3)
    model.decode_stream().decode(latents)
    torch.testing.assert_close(model.decode_stream().decode(latents), model.decode(latents), **CLOSE)


def test_streams_of_single_frames(make_cnn: Callable[..., Tokenizer]) -> None:
    model = make_cnn()
    latents = draw_latents(model, 2, 3)
    stream = model.decode_stream()
    stream.forget(torch.tensor([True, False]))
    parts = [stream.decode(piece) for piece in torch.split(latents, 1, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model.decode(latents))


@torch.no_grad()
def test_long_sequences_are_decoded_in_pieces(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, draw_pixels: Callable[..., torch.Tensor]
) -> None:
    """Never more frames at a time than the batch size, and the same frames."""
    latents = draw_latents(tokenizer, 2, 11)
    whole = to_frames(tokenizer.decode(latents))
    sizes = []
    make = tokenizer.decode_stream

    def spy() -> object:
        stream = make()
        decode = stream.decode
        stream.decode = lambda piece: sizes.append(piece.shape[:2]) or decode(piece)  # type: ignore[method-assign]
        return stream

    monkeypatch.setattr(tokenizer, "decode_stream", spy)
    found = decode_latents(tokenizer, latents, CPU, 4)
    assert (found.int() - whole.int()).abs().max() <= 1  # rounding of equal pixels
    assert sizes == [(1, 4), (1, 4), (1, 3)] * 2
    sizes.clear()
    decode_latents(tokenizer, latents, CPU, 22)
    assert sizes == [(2, 11)]
    frames = to_frames(draw_pixels(1, 11))[0]
    torch.testing.assert_close(
        encode_episode(tokenizer, frames.split(4), CPU), encode_episode(tokenizer, frames.split(100), CPU), **CLOSE
    )
