"""The transformer tokenizer: who sees whom in space and time, the folded bottleneck, and the stream."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ahriuwu_cli.core.errors import ArtifactError
from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.tokenizer.config import TransformerModel
from ahriuwu_cli.tokenizer.transformer import TransformerTokenizer

Draw = Callable[..., torch.Tensor]
Make = Callable[..., TransformerTokenizer]
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def moved(before: Tensor, after: Tensor) -> list[bool]:
    """Which of the T steps of (B, T, ...) differ."""
    return ((before - after).abs().flatten(2).amax(dim=(0, 2)) > 1e-6).tolist()


@pytest.mark.parametrize("step", range(4))
def test_neither_half_sees_the_future(make_transformer: Make, draw_pixels: Draw, step: int) -> None:
    """Pitfall 19: the decoder saw future latents; perturbing the future changes nothing earlier."""
    model, pixels = make_transformer(context_length=3), draw_pixels(1, 4)
    other = pixels.clone()
    other[:, step] = -other[:, step]
    from_step_on = [index >= step for index in range(4)]
    latents = model.encode(pixels)
    assert moved(latents, model.encode(other)) == from_step_on
    nudged = latents.clone()
    nudged[:, step] = -nudged[:, step]
    assert moved(model.decode(latents), model.decode(nudged)) == from_step_on


def test_both_halves_see_as_far_as_the_context(make_transformer: Make, draw_pixels: Draw) -> None:
    model, pixels = make_transformer(context_length=2), draw_pixels(1, 6)  # one time layer in each half
    other = pixels.clone()
    other[:, 1] = -other[:, 1]
    reached = [1 <= index <= 3 for index in range(6)]
    latents = model.encode(pixels)
    assert moved(latents, model.encode(other)) == reached
    nudged = latents.clone()
    nudged[:, 1] = -nudged[:, 1]
    assert moved(model.decode(latents), model.decode(nudged)) == reached


@pytest.mark.parametrize(
    ("half", "slot", "seen_by_all"),
    [
        ("encoder", "patch", True),  # latents see the patches
        ("encoder", "latent", False),  # patches do not see the latents
        ("decoder", "latent", True),  # queries see the latents
        ("decoder", "patch", False),  # latents do not see the queries
    ],
)
def test_modalities_see_whom_they_should(
    make_transformer: Make, draw_pixels: Draw, half: str, slot: str, seen_by_all: bool
) -> None:
    """[D4] Sec. 3.1: encoder latents see all, patches patches; decoder queries see all, latents latents."""
    model, pixels = make_transformer(), draw_pixels(1, 3)
    outputs: list[Tensor] = []
    mixing = [block for block in getattr(model, half).blocks if block.space is not None]
    mixing[-1].register_forward_hook(lambda module, inputs, output: outputs.append(output))  # tokens mix no more
    model.decode(model.encode(pixels))  # runs each half once
    with torch.no_grad():
        # One token of the modality in every step; a decoder query is nothing but its slot.
        getattr(model, f"{half}_slot")[model.layout.slices[slot].start] += 1.0
    model.decode(model.encode(pixels))
    before, after = outputs
    for name, place in model.layout.slices.items():
        changed = (before[:, :, place] - after[:, :, place]).abs().amax(dim=-1) > 1e-6  # (B, T, tokens)
        assert changed.all() if name == slot or seen_by_all else not changed.any()


def test_pixels_come_from_latents_alone(make_transformer: Make, draw_pixels: Draw) -> None:
    model, latents = make_transformer(), torch.rand(2, 3, 2, 6) * 2 - 1
    other = latents.clone()
    other[0] = -other[0]
    changed = (model.decode(latents) != model.decode(other)).flatten(2)
    assert changed[0].float().mean() > 0.9
    assert not changed[1].any()


# ---------------------------------------------------------------- the bottleneck


def test_folding_keeps_every_channel(make_transformer: Make, draw_pixels: Draw) -> None:
    """Pitfall 11: 3x4 and 2x6 latents hold the same numbers; fold(unfold(x)) = x, and the layout is written."""
    model, pixels = make_transformer(), draw_pixels(1, 2)
    bottlenecks: list[Tensor] = []
    model.to_bottleneck.register_forward_hook(lambda module, inputs, output: bottlenecks.append(torch.tanh(output)))
    model.from_bottleneck.register_forward_hook(lambda module, inputs, output: bottlenecks.append(inputs[0]))
    latents = model.encode(pixels)
    model.decode(latents)
    assert latents.shape == (1, 2, 2, 6)
    assert bottlenecks[0].shape == bottlenecks[1].shape == (1, 2, 3, 4)
    assert torch.equal(bottlenecks[0], bottlenecks[1])
    assert model.latent_spec.layout == "bottleneck 3x4 folded to 2x6"
    other = make_transformer(num_bottleneck=2, dim_bottleneck=6)
    assert not model.latent_spec.same_layout(other.latent_spec)


def test_latents_of_the_same_size_are_not_mixed_up() -> None:
    """Pitfall 11: 512x16 and 256x32 latents packed alike; each layout is its own and refuses the other."""
    frame = FrameSpec(height=16, width=16, fps=10)
    with torch.device("meta"):
        wide, long = (
            TransformerTokenizer(
                TransformerModel.model_validate({"num_bottleneck": 512, "dim_bottleneck": 16, "num_tokens": tokens}),
                frame,
            )
            for tokens in (256, 512)
        )
    layouts = [model.latent_spec.layout for model in (wide, long)]
    assert layouts == ["bottleneck 512x16 folded to 256x32", "bottleneck 512x16 folded to 512x16"]
    assert not wide.latent_spec.same_layout(long.latent_spec)
    assert not long.latent_spec.same_layout(wide.latent_spec)
    for model, other in ((wide, long), (long, wide)):
        spec = model.latent_spec
        bottleneck = torch.randn(2, 3, 512, 16)
        latents = model.fold(bottleneck)
        assert latents.shape == (2, 3, spec.num_tokens, spec.dim_token)
        assert torch.equal(model.unfold(latents), bottleneck)
        with pytest.raises(ArtifactError, match="are not those of this tokenizer") as caught:
            other.decode(latents)
        assert f"latents of {spec.num_tokens} x {spec.dim_token}" in caught.value.message
        assert other.latent_spec.layout in caught.value.message


@pytest.mark.parametrize("soft_cap", [None, 5.0])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_is_as_configured(make_transformer: Make, draw_pixels: Draw, kv_heads: int, soft_cap: float) -> None:
    """[D4] Sec. 3.4: fewer key heads make smaller layers; the cap changes what is computed."""
    model = make_transformer(num_heads=4, num_kv_heads=kv_heads, soft_cap=soft_cap)
    for half in (model.encoder, model.decoder):
        projections = [tensor for name, tensor in half.named_parameters() if name.endswith("qkv.weight")]
        assert [tuple(tensor.shape) for tensor in projections] == [((4 + 2 * kv_heads) * 4, 16)] * 2
    for name, tensor in model.named_parameters():
        if name.endswith("logit_gain"):
            tensor.data.fill_(10.0)  # logits beyond the cap
    plain = make_transformer(num_heads=4, num_kv_heads=kv_heads)
    plain.load_state_dict(model.state_dict())
    pixels = draw_pixels(1, 3)
    assert torch.allclose(model.encode(pixels), plain.encode(pixels), atol=1e-4) == (soft_cap is None)


def test_patches_and_back(make_transformer: Make, draw_pixels: Draw) -> None:
    model, pixels = make_transformer(), draw_pixels(2, 3)
    patches = model._patchify(pixels)
    assert patches.shape == (2, 3, 6, 192)
    assert torch.equal(model._unpatchify(patches), pixels)
    other = pixels.clone()
    other[..., 8:16, 16:24] += 1  # the patch in row 1, column 2
    assert (model._patchify(other) != patches).any(dim=-1).all(dim=0).all(dim=0).tolist() == [False] * 5 + [True]


# ---------------------------------------------------------------- the stream


@pytest.mark.parametrize("pieces", [[7], [1] * 7, [3, 1, 3], [2, 5]])
@pytest.mark.parametrize("context", [0, 2, 10])
def test_stream_equals_one_full_pass(
    make_transformer: Make, draw_pixels: Draw, context: int, pieces: list[int]
) -> None:
    """Pitfall 19: cached encoding = full encoding, for any cutting into pieces."""
    model, pixels = make_transformer(context_length=context), draw_pixels(2, 7)
    stream = model.encode_stream()
    parts = [stream.encode(piece) for piece in torch.split(pixels, pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model.encode(pixels), **CLOSE)


@pytest.mark.parametrize("at", [0, 1, 4])
def test_stream_forgets_rows_that_begin_anew(make_transformer: Make, draw_pixels: Draw, at: int) -> None:
    model, pixels = make_transformer(), draw_pixels(3, 6)
    stream, parts = model.encode_stream(), []
    for step in range(6):
        if step == at:
            stream.forget(torch.tensor([False, True, False]))
        parts.append(stream.encode(pixels[:, step : step + 1]))
    found, full = torch.cat(parts, dim=1), model.encode(pixels)
    torch.testing.assert_close(found[[0, 2]], full[[0, 2]], **CLOSE)
    torch.testing.assert_close(found[1:2, at:], model.encode(pixels[1:2, at:]), **CLOSE)
    if at:
        assert (found[1, at] - full[1, at]).abs().max() > 1e-3


def test_streams_are_independent(make_transformer: Make, draw_pixels: Draw) -> None:
    model, pixels = make_transformer(), draw_pixels(1, 3)
    model.encode_stream().encode(pixels)
    torch.testing.assert_close(model.encode_stream().encode(pixels), model.encode(pixels), **CLOSE)
