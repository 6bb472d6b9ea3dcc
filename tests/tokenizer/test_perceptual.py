"""LPIPS: weights from a file or nowhere, refusals with a hint, and the real module on made-up weights."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
import torch
from torch import nn

from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.tokenizer import perceptual
from ahriuwu_cli.tokenizer.perceptual import load_lpips, perceptual_distance

CONVOLUTIONS = {
    0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256),
    17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512),
}  # fmt: skip
"""The 13 convolutions of VGG-16 by their place in torchvision's `features`: channels in and out."""


def vgg_weights() -> dict[str, torch.Tensor]:
    """A random state dict of torchvision's vgg16, as far as LPIPS reads it."""
    state = {"classifier.0.weight": torch.zeros(1)}
    for place, (inputs, outputs) in CONVOLUTIONS.items():
        state[f"features.{place}.weight"] = torch.randn(outputs, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
        state[f"features.{place}.bias"] = 0.1 * torch.rand(outputs)
    return state


class TwoSlices(nn.Module):
    """Stands in for LPIPS: a backbone in slices whose layers keep their numbers."""

    def __init__(self, net: str, pretrained: bool, pnet_rand: bool, verbose: bool) -> None:
        super().__init__()
        assert (net, pretrained, pnet_rand) == ("vgg", True, True)
        self.net = nn.Module()
        self.net.slice1 = nn.Sequential()
        self.net.slice1.add_module("0", nn.Conv2d(3, 4, 3))
        self.net.slice2 = nn.Sequential()
        self.net.slice2.add_module("5", nn.Conv2d(4, 5, 3))
        self.dropout = nn.Dropout()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """LPIPS replaced by two slices; weights that fit."""
    monkeypatch.setattr(perceptual, "_import_lpips", lambda: types.SimpleNamespace(LPIPS=TwoSlices))
    shapes = {"0.weight": (4, 3, 3, 3), "0.bias": (4,), "5.weight": (5, 4, 3, 3), "5.bias": (5,), "9.bias": (2,)}
    return {f"features.{name}": torch.randn(shape) for name, shape in shapes.items()}


def test_layers_find_their_weights(tmp_path: Path, small: dict[str, torch.Tensor]) -> None:
    torch.save(small, tmp_path / "vgg.pth")
    model = load_lpips(str(tmp_path / "vgg.pth"))
    assert torch.equal(model.net.slice1[0].weight, small["features.0.weight"])
    assert torch.equal(model.net.slice2[0].bias, small["features.5.bias"])
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_weights_in_the_hub_cache_are_found(
    tmp_path: Path, small: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(small, tmp_path / "checkpoints" / perceptual.VGG_FILE)
    assert torch.equal(load_lpips("").net.slice1[0].bias, small["features.0.bias"])


@pytest.mark.parametrize("path", ["", "nowhere/vgg.pth"])
def test_missing_weights_are_refused_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ConfigError, match="LPIPS needs VGG weights; nothing at") as caught:
        load_lpips(path)
    assert (path or perceptual.VGG_FILE) in caught.value.message.replace("\\", "/")
    assert "tokenizer.loss.lpips_weights_path" in caught.value.hint
    assert "tokenizer.loss.lpips_weight = 0" in caught.value.hint


@pytest.mark.parametrize("fault", ["text", "empty", "list", "missing", "reshaped", "cut"])
def test_other_files_are_refused(tmp_path: Path, small: dict[str, torch.Tensor], fault: str) -> None:
    path = tmp_path / "vgg.pth"
    if fault == "missing":
        del small["features.5.bias"]
    elif fault == "reshaped":
        small["features.5.bias"] = torch.zeros(7)
    torch.save([1, 2] if fault == "list" else small, path)
    if fault in ("text", "empty"):
        path.write_text("weights" if fault == "text" else "")
    elif fault == "cut":
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigError, match="expected a torchvision vgg16 state dict") as caught:
        load_lpips(str(path))
    assert "\n" not in caught.value.message
    assert perceptual.VGG_FILE in caught.value.hint


def test_a_file_with_code_is_not_run(tmp_path: Path, small: dict[str, torch.Tensor]) -> None:
    torch.save({"features.0.bias": Path("x")}, tmp_path / "vgg.pth")  # any class that is no tensor
    with pytest.raises(ConfigError, match="cannot be read"):
        load_lpips(str(tmp_path / "vgg.pth"))


def test_missing_package_is_refused_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(perceptual.importlib, "import_module", fail)
    with pytest.raises(ConfigError, match="lpips package cannot be imported: No module named 'lpips'") as caught:
        perceptual._import_lpips()
    assert "pip install lpips" in caught.value.hint


def test_the_real_lpips_on_random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It loads without network, is zero between equal images, and gives gradients."""
    # VGG-16 is built with its classifier, which LPIPS drops: seconds to fill 124M random weights.
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda self: None)
    monkeypatch.setattr(nn.init, "normal_", lambda tensor, *args: tensor)
    torch.save(vgg_weights(), tmp_path / "vgg.pth")
    model = load_lpips(str(tmp_path / "vgg.pth"))
    truth = 2 * torch.rand(2, 1, 3, 32, 32) - 1
    guess = (truth + 0.3 * torch.randn_like(truth)).requires_grad_()
    distance = perceptual_distance(model, truth, guess)
    distance.backward()
    assert distance.shape == ()
    assert distance.item() > 1e-4
    assert perceptual_distance(model, truth, truth).item() == pytest.approx(0, abs=1e-6)
    assert guess.grad is not None
    assert guess.grad.abs().flatten(2).amax(dim=-1).min() > 0
    assert all(parameter.grad is None for parameter in model.parameters())
