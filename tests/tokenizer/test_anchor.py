"""The transformer tokenizer's start: which patches lie below which latent, and that images differ from step 0."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.tokenizer.anchor import Anchor, latent_grid, patch_owners
from ahriuwu_cli.tokenizer.config import TransformerModel
from ahriuwu_cli.tokenizer.positions import initial_slots, plane_waves
from ahriuwu_cli.tokenizer.transformer import TransformerTokenizer


@pytest.mark.parametrize(
    ("num_latents", "grid", "wanted"),
    [(16, (4, 4), (4, 4)), (512, (24, 40), (16, 32)), (8, (4, 4), (2, 4)), (7, (2, 9), (1, 7)), (1, (3, 5), (1, 1))],
)
def test_latents_lie_like_the_frame(num_latents: int, grid: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert latent_grid(num_latents, grid) == wanted


@given(grid=st.tuples(st.integers(1, 9), st.integers(1, 9)), latents=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_every_patch_has_one_latent_and_they_share_evenly(grid: tuple[int, int], latents: tuple[int, int]) -> None:
    owners = patch_owners(grid, latents).reshape(grid)
    assert owners.min() >= 0
    assert owners.max() < latents[0] * latents[1]
    for axis in (0, 1):
        line = owners[:, 0] // latents[1] if axis == 0 else owners[0] % latents[1]
        counts = [int((line == place).sum()) for place in range(latents[axis])]
        assert max(counts) - min(counts) <= 1
        assert line.tolist() == sorted(line.tolist())


def test_shared_patches_by_hand() -> None:
    """2 x 4 patches, 2 latents: each has four patches, told apart by signs."""
    anchor = Anchor((2, 4), 2, 6)
    assert patch_owners((2, 4), (1, 2)).tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert anchor.rank.tolist() == [0, 1, 0, 1, 2, 3, 2, 3]
    assert anchor.sign_in.shape == (4, 6)
    assert (anchor.sign_in[0] == 1).all()
    assert set(anchor.sign_in[1:].flatten().tolist()) == {-1.0, 1.0}
    patches, signs = torch.randn(3, 5, 8, 6), anchor.sign_in.detach()
    wanted = (patches[:, :, [0, 1, 4, 5]] * signs).sum(dim=2) / 2
    torch.testing.assert_close(anchor.gather(patches)[:, :, 0].detach(), wanted)
    latents = torch.randn(3, 5, 2, 6)
    found = anchor.scatter(latents).detach()
    torch.testing.assert_close(found[:, :, 7], latents[:, :, 1] * signs[3])
    torch.testing.assert_close(found[:, :, 0], latents[:, :, 0])


def test_one_latent_each_goes_through_unchanged() -> None:
    anchor, patches = Anchor((3, 3), 9, 4), torch.randn(2, 1, 9, 4)
    assert torch.equal(anchor.gather(patches), patches)
    assert torch.equal(anchor.scatter(patches), patches)


def test_latents_without_patches_start_from_nothing() -> None:
    anchor = Anchor((1, 2), 8, 4)
    started = anchor.gather(torch.ones(1, 1, 2, 4))[0, 0].abs().sum(dim=-1) > 0
    assert started.sum() == 2


def spread_of_reconstructions(patch: int, **changes: object) -> float:
    """Spread across images over that of the truth, of an untrained tokenizer of 16 latents."""
    torch.manual_seed(0)
    frame = FrameSpec(height=32, width=32, fps=10)
    config = TransformerModel.model_validate({"patch": patch, "dim": 64} | changes)
    pixels = -torch.ones(16, 1, 3, 32, 32)  # dark frames with a bright ball somewhere
    for index, place in enumerate(torch.randint(28, (16, 2)).tolist()):
        pixels[index, :, :, place[0] : place[0] + 4, place[1] : place[1] + 4] = 1
    with torch.no_grad():
        guess = TransformerTokenizer(config, frame).reconstruct_for_training(pixels, 0)
    return float(guess.std(dim=0).mean() / pixels.std(dim=0).mean())


@pytest.mark.parametrize("patch", [4, 8])
def test_an_anchored_tokenizer_tells_images_apart_from_the_start(patch: int) -> None:
    """Pitfall 30: it began at the mean image, and stayed there for long."""
    anchored = spread_of_reconstructions(patch, mask_max=0.0)
    plain = spread_of_reconstructions(patch, mask_max=0.0, anchored=False)
    assert anchored > 0.3
    assert plain < 0.2 * anchored


# ---------------------------------------------------------------- positions


@pytest.mark.parametrize("dim", [32, 34])
def test_plane_waves_tell_places_apart(dim: int) -> None:
    waves = plane_waves((5, 7), dim)
    assert waves.shape == (35, dim)
    assert waves.square().mean().item() == pytest.approx(1, abs=0.1)
    alike = waves @ waves.T / dim
    assert (alike - alike.diag()[:, None]).fill_diagonal_(-1).max() < -0.02  # nothing is as like it as itself
    assert alike[0, 1] > alike[0, 3]  # neighbours are more alike


@pytest.mark.parametrize("positions", ["random", "sinusoidal"])
def test_sizes_of_learned_vectors(positions: str) -> None:
    config = TransformerModel.model_validate({"positions": positions, "dim": 64, "num_bottleneck": 32})
    slots = initial_slots(config, (8, 8), 0.5, 0.01)
    assert slots.shape == (96, 64)
    assert slots[:64].square().mean().sqrt().item() == pytest.approx(0.5, rel=0.05)
    assert slots[64:].std().item() == pytest.approx(0.01, rel=0.1)
    model = TransformerTokenizer(config.model_copy(update={"query_std": 0.3}), FrameSpec(height=64, width=64, fps=10))
    patches, latents = model.layout.slices["patch"], model.layout.slices["latent"]
    for slot, small, large in (
        (model.encoder_slot, patches, latents),
        (model.decoder_slot, latents, patches),
    ):
        assert slot[small].square().mean().sqrt().item() == pytest.approx(0.02, rel=0.1)
        assert slot[large].square().mean().sqrt().item() == pytest.approx(0.3, rel=0.1)
