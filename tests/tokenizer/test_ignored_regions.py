"""Screen regions outside the loss: exactly no gradient, and metrics of the pixels that count."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ahriuwu_cli.nn.running_rms import RunningRms
from ahriuwu_cli.tokenizer.loss import reconstruction_loss
from ahriuwu_cli.tokenizer.regions import counted_pixels

REGIONS = [[0, 0, 3, 8], [5, 6, 2, 2]]


class Neighbours(nn.Module):
    """Stands in for LPIPS: compares weighted sums of 5x5 neighbourhoods, so that pixels reach beyond themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.randn(4, 3, 5, 5), requires_grad=False)

    def forward(self, truth: Tensor, guess: Tensor) -> Tensor:
        features = [F.conv2d(image, self.filters, padding=2) for image in (truth, guess)]
        return (features[0] - features[1]).square().mean(dim=(1, 2, 3), keepdim=True)


@pytest.fixture
def counted() -> Tensor:
    """Pixels of 8 x 10 that count; REGIONS do not."""
    return torch.from_numpy(counted_pixels(REGIONS, 8, 10))


@pytest.mark.parametrize("lpips_weight", [0.0, 0.2, 10.0])
def test_no_gradient_inside_and_all_of_it_outside(counted: Tensor, lpips_weight: float) -> None:
    """Pitfall 8: blacked-out screen regions counted in the loss; edges lost 14.5 dB."""
    truth = torch.rand(2, 3, 3, 8, 10)
    guess = torch.rand(2, 3, 3, 8, 10).requires_grad_()
    lpips = Neighbours() if lpips_weight else None
    reconstruction_loss(truth, guess, RunningRms(), lpips, lpips_weight, counted)[0].backward()
    assert guess.grad is not None
    assert (guess.grad[..., ~counted] == 0).all()
    assert (guess.grad[..., counted] != 0).all()


def test_what_is_painted_inside_changes_nothing(counted: Tensor) -> None:
    truth, guess, lpips = torch.rand(2, 1, 3, 8, 10), torch.rand(2, 1, 3, 8, 10), Neighbours()
    other = torch.where(counted, guess, torch.full_like(guess, math.inf))
    first, second = (reconstruction_loss(truth, x, RunningRms(), lpips, 0.2, counted) for x in (guess, other))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])
    changed = guess.clone()
    changed[..., 7, 9] += 1
    assert reconstruction_loss(truth, changed, RunningRms(), lpips, 0.2, counted)[1]["mse"] != first[1]["mse"]


def test_metrics_are_those_of_the_counted_pixels(counted: Tensor) -> None:
    """Half the screen ignored must not halve the error."""
    truth, guess = torch.rand(2, 2, 3, 8, 10), torch.rand(2, 2, 3, 8, 10)
    metrics = reconstruction_loss(truth, guess, RunningRms(), None, 0.0, counted)[1]
    inside = (truth - guess)[..., counted].square().mean()
    assert metrics["mse"].item() == pytest.approx(inside.item(), rel=1e-5)
    assert metrics["psnr"].item() == pytest.approx(10 * math.log10(4 / inside.item()), rel=1e-5)
    spreads = [image.flatten(0, 1).std(dim=0)[..., counted].mean().item() for image in (guess, truth)]
    assert [metrics[name].item() for name in ("spread", "spread_reference")] == pytest.approx(spreads, rel=1e-5)


def test_counting_everything_is_no_mask(counted: Tensor) -> None:
    truth, guess = torch.rand(2, 1, 3, 8, 10), torch.rand(2, 1, 3, 8, 10)
    plain = reconstruction_loss(truth, guess, RunningRms(), None, 0.0)
    masked = reconstruction_loss(truth, guess, RunningRms(), None, 0.0, torch.ones_like(counted))
    for name, value in plain[1].items():
        torch.testing.assert_close(masked[1][name], value)


# ---------------------------------------------------------------- the regions themselves


@given(
    regions=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=3)
)
def test_inside_or_refused(regions: list[tuple[int, ...]]) -> None:
    fits = all(rows and columns and top + rows <= 7 and left + columns <= 8 for top, left, rows, columns in regions)
    pixels = {(y, x) for y in range(7) for x in range(8)}
    for top, left, rows, columns in regions:
        pixels -= {(y, x) for y in range(top, top + rows) for x in range(left, left + columns)}
    if fits and pixels:
        found = counted_pixels(regions, 7, 8)
        assert {tuple(place) for place in np.argwhere(found).tolist()} == pixels
    else:
        with pytest.raises(ValueError, match=r"\[top, left, height, width\]|whole frame of 7x8"):
            counted_pixels(regions, 7, 8)
