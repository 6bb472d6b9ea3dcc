"""The cosmos tokenizer on TorchScript stand-ins: shapes, number formats, what each latent covers, streams, folding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.tokenizer.cosmos_canvas import Canvas, fold, unfold

FRAME = FrameSpec(height=16, width=32, fps=10)
STRIDE = 8


def noise(length: int, frame: FrameSpec = FRAME, batch: int = 1) -> Tensor:
    return 2 * torch.rand(batch, length, 3, frame.height, frame.width) - 1


def numbered(length: int) -> Tensor:
    """(1, T, 3, H, W): frame t is evenly t / 100."""
    return (torch.arange(length) / 100).reshape(1, -1, 1, 1, 1).expand(-1, -1, 3, FRAME.height, FRAME.width)


# ---------------------------------------------------------------- shapes and number formats


@pytest.mark.parametrize("length", [1, 2, 8, 9, 10, 17, 33, 60])
def test_video_has_a_latent_for_every_eight_frames(make_cosmos, length: int) -> None:
    """Pitfall 34: T frames give 1 + ceil((T-1)/8) latents, and these 1 + 8 (K-1) frames."""
    tokenizer, pixels = make_cosmos(), noise(length, batch=2)
    latents = tokenizer.encode(pixels)
    count = 1 + -(-(length - 1) // STRIDE)
    assert latents.shape == (2, count, 8, 16)
    assert tokenizer.decode(latents).shape == (2, 1 + STRIDE * (count - 1), 3, 16, 32)
    assert tokenizer.latent_spec.stride == STRIDE
    assert tokenizer.latent_spec.bound is None


@pytest.mark.parametrize(("kind", "tokens"), [("CI8x8", 8), ("CI16x16", 2)])
def test_images_stand_by_themselves(make_cosmos, kind: str, tokens: int) -> None:
    tokenizer, pixels = make_cosmos(kind=kind), noise(5, batch=2)
    latents = tokenizer.encode(pixels)
    assert latents.shape == (2, 5, tokens, 16)
    assert tokenizer.latent_spec.stride == 1
    alone = torch.cat([tokenizer.encode(pixels[:, t : t + 1]) for t in range(5)], dim=1)
    torch.testing.assert_close(alone, latents)
    assert tokenizer.decode(latents).shape == pixels.shape


@pytest.mark.parametrize("as_tuple", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_files_run_in_their_own_number_format(make_cosmos, dtype: str, as_tuple: bool) -> None:
    """Also under autocast, which would run an fp32 module in bf16; what comes back is fp32, the first of a tuple."""
    tokenizer, pixels = make_cosmos(stand_in={"dtype": dtype, "as_tuple": as_tuple}), noise(9)
    latents = tokenizer.encode(pixels)
    frames = tokenizer.decode(latents)
    assert latents.dtype == frames.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tokenizer.encode(pixels), latents)
        assert torch.equal(tokenizer.decode(latents), frames)
    exact = make_cosmos().encode(pixels)
    torch.testing.assert_close(latents, exact, atol=0.03, rtol=0.03)
    assert torch.equal(latents, latents.bfloat16().float()) == (dtype == "bfloat16")
    assert not tokenizer.decode(latents.requires_grad_()).requires_grad


def test_latents_come_back_as_frames(make_cosmos) -> None:
    """The stand-in loses colour and detail only: frames that are even on every 8x8 square come back exactly."""
    tokenizer = make_cosmos()
    squares = 2 * torch.rand(1, 17, 1, 2, 4) - 1
    pixels = squares.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4).expand(-1, -1, 3, -1, -1)
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(pixels)), pixels)


# ---------------------------------------------------------------- which frames a latent covers


def test_latent_i_covers_its_eight_frames() -> None:
    """Pitfall 34: the numbers themselves, worked out by hand."""
    from ahriuwu_cli.episodes.alignment import covered_frames

    assert [list(covered_frames(i, 8)) for i in range(3)] == [[0], [1, 2, 3, 4, 5, 6, 7, 8], list(range(9, 17))]
    assert [list(covered_frames(i, 1)) for i in range(3)] == [[0], [1], [2]]


def test_first_latent_is_frame_0_and_latent_i_frames_8i_minus_7_to_8i(make_cosmos) -> None:
    """Pitfall 34: read off the latents of frames that bear their number."""
    latents = make_cosmos().encode(numbered(33))  # (1, 5, N, 16)
    found = (latents[0, :, :, :8].mean(dim=1) * 100).round().int()  # (5, 8): one channel per frame
    assert found[0].tolist() == [0] * 8
    for i in range(1, 5):
        assert found[i].tolist() == list(range(8 * i - 7, 8 * i + 1))


def test_padding_is_at_the_end_only(make_cosmos) -> None:
    """The last latent sees the last frame repeated; nothing moves to the right."""
    latents = make_cosmos().encode(numbered(12))
    found = (latents[0, :, :, :8].mean(dim=1) * 100).round().int()
    assert found.tolist() == [[0] * 8, [1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 11, 11, 11, 11, 11]]


@pytest.mark.parametrize("memory", [0, 2])
def test_later_frames_change_nothing_earlier(make_cosmos, memory: int) -> None:
    """Pitfall 19: perturbing frame t leaves the latents before ceil(t/8) as they were, and moves that one."""
    tokenizer, pixels = make_cosmos(stand_in={"memory": memory}), noise(33)
    before = tokenizer.encode(pixels)
    for t in (0, 1, 8, 9, 16, 31):
        changed = pixels.clone()
        changed[:, t] = -changed[:, t]
        moved = (tokenizer.encode(changed) - before).abs().amax(dim=(0, 2, 3)) > 1e-5
        latent = -(-t // STRIDE)
        assert not moved[:latent].any()
        assert moved[latent]


# ---------------------------------------------------------------- streams


@given(data=st.data(), length=st.integers(1, 70), memory=st.sampled_from([0, 2, 3]), overlap=st.integers(0, 2))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_streams_equal_one_full_pass(make_cosmos, data: st.DataObject, length: int, memory: int, overlap: int) -> None:
    """Pitfall 19: however the input is cut, over the ends of passes too."""
    tokenizer = make_cosmos(stand_in={"memory": memory}, clip_latents=3, clip_overlap=overlap)
    pixels = noise(length)
    latents = tokenizer.encode(pixels)
    cuts = sorted(data.draw(st.sets(st.integers(1, length), max_size=8)))
    stream = tokenizer.encode_stream()
    ends, parts = [*cuts, length], []
    for start, stop in zip([0, *ends], ends, strict=False):
        parts.append(stream.encode(pixels[:, start:stop]))
        assert sum(part.shape[1] for part in parts) == (0 if stop == 0 else 1 + (stop - 1) // STRIDE)  # when complete
    rest = stream.finish()
    assert (rest is None) == ((length - 1) % STRIDE == 0)
    torch.testing.assert_close(torch.cat(parts if rest is None else [*parts, rest], dim=1), latents)

    frames, back = tokenizer.decode(latents), tokenizer.decode_stream()
    pieces = [back.decode(piece) for piece in torch.split(latents, data.draw(st.integers(1, 4)), dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), frames)


@pytest.mark.parametrize(("memory", "equal"), [(2, True), (4, False)])
def test_passes_overlap_enough_for_what_looks_back_no_further(make_cosmos, memory: int, equal: bool) -> None:
    """With 2 latents seen again, a tokenizer that looks back 2 gives what one pass over everything would."""
    tokenizer = make_cosmos(stand_in={"memory": memory}, clip_latents=4, clip_overlap=2)
    pixels = noise(1 + 8 * 15)
    whole = tokenizer.encode_clip(pixels)
    assert torch.allclose(tokenizer.encode(pixels), whole, atol=1e-5) == equal
    frames = tokenizer.decode_clip(whole)
    assert torch.allclose(tokenizer.decode(whole), frames, atol=1e-5) == equal


def test_passes_are_bounded(make_cosmos, monkeypatch: pytest.MonkeyPatch) -> None:
    """An episode of any length goes through in passes of 1 + 8 x clip_latents frames at most."""
    tokenizer = make_cosmos(clip_latents=3, clip_overlap=1)
    lengths: list[int] = []
    encode, decode = tokenizer.encode_clip, tokenizer.decode_clip
    monkeypatch.setattr(tokenizer, "encode_clip", lambda x: lengths.append(x.shape[1]) or encode(x))
    monkeypatch.setattr(tokenizer, "decode_clip", lambda z: lengths.append(1 + 8 * (z.shape[1] - 1)) or decode(z))
    assert tokenizer.decode(tokenizer.encode(noise(200))).shape[1] == 201
    assert max(lengths) == 25
    assert sum(lengths) < 2 * 2 * 200


def test_forgetting_begins_anew(make_cosmos) -> None:
    tokenizer, pixels = make_cosmos(stand_in={"memory": 2}), noise(30)
    for stream, method, given_ in (
        (tokenizer.encode_stream(), "encode", pixels[:, :17]),
        (tokenizer.decode_stream(), "decode", tokenizer.encode(pixels[:, :17])),
    ):
        first = getattr(stream, method)(given_)
        stream.forget(torch.zeros(1, dtype=torch.bool))
        assert getattr(stream, method)(given_).shape[1] != first.shape[1]  # not forgotten: no first frame alone
        stream.forget(torch.ones(1, dtype=torch.bool))
        torch.testing.assert_close(getattr(stream, method)(given_), first)


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("kind", ["CV8x8x8", "CI8x8", "CI16x16"])
def test_other_sizes_are_padded_at_the_end(make_cosmos, kind: str) -> None:
    frame = FrameSpec(height=24, width=20, fps=10)
    tokenizer, pixels = make_cosmos(frame, kind=kind), noise(9, frame)
    assert tokenizer.canvas.size == (32, 32)
    laid = tokenizer.canvas.lay(pixels[0])
    assert torch.equal(laid[..., :24, :20], pixels[0])
    assert torch.equal(laid[..., 24:, :20], pixels[0][..., 23:24, :].expand(-1, -1, 8, -1))
    assert torch.equal(laid[..., :24, 20:], pixels[0][..., 19:20].expand(-1, -1, -1, 12))
    decoded = tokenizer.decode(tokenizer.encode(pixels))
    assert decoded.shape == pixels.shape
    if kind == "CV8x8x8":  # the corner square is wholly inside: it is its own mean, whatever the padding
        wanted = pixels[..., :8, :8].mean(dim=(2, 3, 4), keepdim=True).expand(-1, -1, 3, 8, 8)
        torch.testing.assert_close(decoded[..., :8, :8], wanted)


def test_frames_are_resized_and_come_back(make_cosmos) -> None:
    """64 -> 256 bicubic, clamped; tokens are those of 256x256, frames come back at 64x64."""
    frame = FrameSpec(height=64, width=64, fps=10)
    tokenizer = make_cosmos(frame, resize_height=256, resize_width=256)
    assert tokenizer.latent_spec.num_tokens == 32 * 32
    squares = torch.where((torch.arange(64)[:, None] // 8 + torch.arange(64) // 8) % 2 == 0, 1.0, -1.0)
    laid = tokenizer.canvas.lay(squares.expand(1, 3, 64, 64))
    assert laid.shape == (1, 3, 256, 256)
    assert laid.abs().max() <= 1  # bicubic overshoots at edges
    wave = torch.sin(torch.arange(64) / 8)
    pixels = (wave[:, None] * wave).expand(1, 1, 3, 64, 64)
    assert (tokenizer.canvas.lift(tokenizer.canvas.lay(pixels[0])) - pixels[0]).abs().mean() < 0.005
    decoded = tokenizer.decode(tokenizer.encode(pixels))  # an 8x8 square of 256 is a 2x2 square of 64
    assert decoded.shape == pixels.shape
    assert (decoded - pixels).abs().mean() < 0.05


def test_a_smaller_size_is_padded_after_resizing() -> None:
    canvas = Canvas.of(FrameSpec(height=64, width=100, fps=10), (30, 47), 8)
    assert (canvas.padding.frame, canvas.size) == ((30, 47), (32, 48))
    assert "64x100 resized to 30x47 of 30x47 padded to 32x48" in canvas.note  # part of the layout (pitfall 11)
    pixels = noise(3, FrameSpec(height=64, width=100, fps=10))[0]
    assert canvas.lay(pixels).shape == (3, 3, 32, 48)
    assert canvas.lift(canvas.lay(pixels)).shape == pixels.shape


# ---------------------------------------------------------------- folding


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_unfolding_undoes_folding(factor: int, rows: int, columns: int, count: int) -> None:
    """Pitfall 11: fold(unfold(x)) = x, both ways; nothing is lost."""
    grid = torch.rand(count, 16, rows * factor, columns * factor)
    tokens = fold(grid, factor)
    assert tokens.shape == (count, rows * columns, 16 * factor**2)
    assert torch.equal(unfold(tokens, rows * factor, factor), grid)
    assert torch.equal(fold(unfold(tokens, rows * factor, factor), factor), tokens)


def test_a_token_holds_its_neighbours() -> None:
    grid = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert fold(grid, 2)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_folding_changes_the_layout_and_nothing_else(make_cosmos) -> None:
    """Pitfall 11: as many numbers in another layout are not the same latents."""
    plain, folded = make_cosmos(), make_cosmos(fold=2)
    pixels = noise(17)
    assert folded.encode(pixels).shape == (1, 3, 2, 64)
    torch.testing.assert_close(folded.decode(folded.encode(pixels)), plain.decode(plain.encode(pixels)))
    assert folded.encode(pixels).numel() == plain.encode(pixels).numel()
    assert not folded.latent_spec.same_layout(plain.latent_spec)
    assert not make_cosmos(kind="CI8x8").latent_spec.same_layout(plain.latent_spec)


def test_folding_pads_to_whole_tokens(make_cosmos) -> None:
    tokenizer = make_cosmos(FrameSpec(height=16, width=40, fps=10), fold=3)
    assert tokenizer.canvas.size == (48, 48)
    assert tokenizer.latent_spec.num_tokens == 4
