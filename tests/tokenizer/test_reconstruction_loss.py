"""The reconstruction loss against numbers worked out by hand, and the metric that sees a collapse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ahriuwu_cli.nn.running_rms import RunningRms
from ahriuwu_cli.tokenizer.loss import reconstruction_loss


class MeanGap(nn.Module):
    """Stands in for LPIPS: the mean absolute difference of each image (B, 1, 1, 1)."""

    def forward(self, truth: Tensor, guess: Tensor) -> Tensor:
        return (truth - guess).abs().mean(dim=(1, 2, 3), keepdim=True)


def test_by_hand() -> None:
    truth = torch.zeros(2, 1, 3, 4, 4)
    guess = torch.full_like(truth, 0.2).requires_grad_()
    rms = RunningRms()
    loss, metrics = reconstruction_loss(truth, guess, rms, MeanGap(), 0.2)
    assert loss.item() == pytest.approx(1 + 0.2 * 1)  # both terms are one on their first appearance
    assert metrics["mse"].item() == pytest.approx(0.04)
    assert metrics["psnr"].item() == pytest.approx(10 * math.log10(4 / 0.04))
    assert metrics["lpips"].item() == pytest.approx(0.2)
    second, _ = reconstruction_loss(truth, 2 * guess, rms, MeanGap(), 0.2)
    # averages after 0.04 and 0.16, 0.2 and 0.4, decay 0.99: sqrt((0.99 a^2 + b^2) / 1.99)
    mse = 0.16 / math.sqrt((0.99 * 0.04**2 + 0.16**2) / 1.99)
    lpips = 0.4 / math.sqrt((0.99 * 0.2**2 + 0.4**2) / 1.99)
    assert second.item() == pytest.approx(mse + 0.2 * lpips, rel=1e-5)


def test_gradient_by_hand() -> None:
    """Pitfall 28: the gradient of a normalised loss is not zero."""
    truth = torch.rand(2, 1, 3, 4, 4)
    guess = torch.rand(2, 1, 3, 4, 4).requires_grad_()
    loss, metrics = reconstruction_loss(truth, guess, RunningRms(), None, 0.2)
    loss.backward()
    expected = 2 * (guess.detach() - truth) / truth.numel() / metrics["mse"]
    torch.testing.assert_close(guess.grad, expected)


def test_both_terms_come_out_near_one() -> None:
    """Pitfall 31: without normalisation the LPIPS term dominates."""
    rms, totals = RunningRms(), []
    truth = torch.zeros(2, 1, 3, 4, 4)
    for _ in range(50):
        guess = truth + 0.01 * (0.5 + torch.rand(()))  # MSE near 1e-4, the other near 1e-2
        totals.append(reconstruction_loss(truth, guess, rms, MeanGap(), 1.0)[0].item())
    assert sum(totals) / 50 == pytest.approx(2.0, abs=0.3)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_each_term_comes_out_near_one_whatever_its_size(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Pitfall 31: the LPIPS term dominated; here the raw sizes differ 1000-fold, one way and the other."""

    class Scaled(nn.Module):
        def forward(self, truth: Tensor, guess: Tensor) -> Tensor:
            return factor * (truth - guess).square().mean(dim=(1, 2, 3), keepdim=True)

    terms: dict[str, list[float]] = {"mse": [], "lpips": []}
    normalise = RunningRms.normalise

    def spy(self: RunningRms, name: str, loss: Tensor) -> Tensor:
        terms[name].append(normalise(self, name, loss).item())
        return normalise(self, name, loss)

    monkeypatch.setattr(RunningRms, "normalise", spy)
    rms, truth, ratios = RunningRms(), torch.zeros(2, 1, 3, 4, 4), []
    for _ in range(50):
        guess = truth + 0.1 * (0.8 + 0.4 * torch.rand(()))
        metrics = reconstruction_loss(truth, guess, rms, Scaled(), 0.2)[1]
        ratios.append((metrics["lpips"] / metrics["mse"]).item())
    assert ratios == pytest.approx([factor] * 50, rel=1e-3)
    for values in terms.values():
        assert all(0.3 < value < 3 for value in values)
        assert sum(values) / 50 == pytest.approx(1, abs=0.2)


def test_lpips_is_weighed() -> None:
    truth, guess = torch.zeros(1, 2, 3, 4, 4), torch.full((1, 2, 3, 4, 4), 0.3)
    losses = [reconstruction_loss(truth, guess, RunningRms(), MeanGap(), weight)[0].item() for weight in (0.0, 0.5)]
    assert losses == pytest.approx([1.0, 1.5])
    assert "lpips" not in reconstruction_loss(truth, guess, RunningRms(), None, 0.2)[1]


def test_spread_sees_a_collapse() -> None:
    """Pitfall 30: every image gives the mean image, and the loss alone does not tell."""
    truth = torch.rand(8, 2, 3, 4, 4)
    honest = reconstruction_loss(truth, truth + 0.05 * torch.randn_like(truth), RunningRms(), None, 0.0)[1]
    mean_image = truth.mean(dim=(0, 1), keepdim=True).expand_as(truth) + 1e-8 * torch.randn_like(truth)
    collapsed = reconstruction_loss(truth, mean_image, RunningRms(), None, 0.0)[1]
    assert honest["spread"] / honest["spread_reference"] > 0.9
    assert collapsed["spread"] / collapsed["spread_reference"] < 1e-4


def test_spread_by_hand() -> None:
    truth = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1, 1).expand(2, 1, 3, 2, 2)
    _, metrics = reconstruction_loss(truth, truth / 2, RunningRms(), None, 0.0)
    assert metrics["spread_reference"].item() == pytest.approx(math.sqrt(2))
    assert metrics["spread"].item() == pytest.approx(math.sqrt(2) / 2)


@pytest.mark.filterwarnings("error")
def test_one_image_has_no_spread() -> None:
    truth = torch.rand(1, 1, 3, 4, 4)
    assert set(reconstruction_loss(truth, truth + 0.1, RunningRms(), None, 0.0)[1]) == {"mse", "psnr"}
