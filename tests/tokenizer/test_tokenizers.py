"""What every tokenizer keeps: shapes, bounds, refusals, and that training reaches all of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from ahriuwu_cli.tokenizer.config import CnnModel, TransformerModel
from ahriuwu_cli.tokenizer.protocol import Tokenizer

Draw = Callable[..., torch.Tensor]


def test_shapes_and_bounds(tokenizer: Tokenizer, draw_pixels: Draw) -> None:
    pixels, spec = draw_pixels(2, 3), tokenizer.latent_spec
    latents = tokenizer.encode(pixels)
    assert latents.shape == (2, 3, spec.num_tokens, spec.dim_token)
    assert spec.bound == 1.0
    assert latents.abs().max() <= 1
    assert latents.std() > 0.05
    assert tokenizer.decode(latents).shape == pixels.shape
    assert tokenizer.reconstruct_for_training(pixels, 0).shape == pixels.shape


def test_bounds_hold_for_any_weights(tokenizer: Tokenizer, draw_pixels: Draw) -> None:
    for parameter in tokenizer.parameters():
        parameter.data *= 20
    latents = tokenizer.encode(draw_pixels(1, 2))
    assert 0.9 < latents.abs().max() <= 1


def test_latents_depend_on_the_image(tokenizer: Tokenizer, draw_pixels: Draw) -> None:
    """Pitfall 30: a collapsed tokenizer gives every image the same latents."""
    assert tokenizer.encode(draw_pixels(4, 1)).std(dim=0).min() > 1e-3


def test_every_tensor_learns(tokenizer: Tokenizer, draw_pixels: Draw) -> None:
    """Pitfall 3: what is trained is all there is, and each tensor has a gradient."""
    pixels = draw_pixels(4, 3)
    (tokenizer.reconstruct_for_training(pixels, 0) - pixels).square().mean().backward()
    still = [name for name, tensor in tokenizer.named_parameters() if tensor.grad is None or not tensor.grad.any()]
    assert not still


def test_half_precision_stays_close(tokenizer: Tokenizer, draw_pixels: Draw) -> None:
    pixels = draw_pixels(1, 3)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        latents = tokenizer.encode(pixels)
        decoded = tokenizer.decode(latents)
    assert latents.dtype == decoded.dtype == torch.float32
    gap = (latents - tokenizer.encode(pixels)).abs()
    assert 0 < gap.mean() < 0.05


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (CnnModel, {"patch": 12}, "power of two, found 12"),
        (TransformerModel, {"dim": 100, "num_heads": 8}, "dim 100 must be an even multiple of num_heads 8"),
        (TransformerModel, {"dim": 20, "num_heads": 4}, "dim 20 must be an even multiple of num_heads 4"),
        (TransformerModel, {"num_heads": 4, "num_kv_heads": 3}, "num_heads 4 must be a multiple of num_kv_heads 3"),
        (TransformerModel, {"num_bottleneck": 5, "dim_bottleneck": 3, "num_tokens": 4}, "5x3 does not divide into 4"),
    ],
)
def test_sizes_that_do_not_fit(kind: type[CnnModel], changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        kind.model_validate(changes)
