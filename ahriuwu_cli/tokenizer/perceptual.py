"""LPIPS, imported only when asked for; its VGG weights come from a path or the torch hub cache, never the network."""

from __future__ import annotations

import importlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ahriuwu_cli.core.errors import ConfigError

VGG_FILE = "vgg16-397923af.pth"


def load_lpips(weights_path: str) -> nn.Module:
    """LPIPS with a VGG backbone, frozen, in eval mode.

    Args:
        weights_path: a torchvision vgg16 state dict; empty looks in the torch hub cache.

    Raises:
        ConfigError: the package cannot be imported, or the weights are not there or are something else.
    """
    path = Path(weights_path) if weights_path else Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE
    if not path.is_file():
        raise ConfigError(
            f"LPIPS needs VGG weights; nothing at {path}",
            hint=f"put {VGG_FILE} there, name it in tokenizer.loss.lpips_weights_path, "
            "or set tokenizer.loss.lpips_weight = 0",
        )
    with warnings.catch_warnings(action="ignore"):  # it calls torchvision in an old way
        model: nn.Module = _import_lpips().LPIPS(net="vgg", pretrained=True, pnet_rand=True, verbose=False)
    _load_backbone(model, path)
    return model.requires_grad_(False).eval()


def perceptual_distance(model: nn.Module, truth: Tensor, guess: Tensor) -> Tensor:
    """Mean LPIPS of pixels (B, T, 3, H, W) in [-1, 1]; a scalar."""
    distance: Tensor = model(truth.flatten(0, 1), guess.flatten(0, 1))  # (B*T, 1, 1, 1)
    return distance.mean()


def _import_lpips() -> Any:
    """Import lpips also where torchvision's compiled operators do not match torch; LPIPS uses none of them."""
    try:
        try:
            return importlib.import_module("lpips")
        except RuntimeError:  # "operator torchvision::nms does not exist"
            _declare_detection_operators()
            return importlib.import_module("lpips")
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"the lpips package cannot be imported: {error}",
            hint="install it with `pip install lpips`, or set tokenizer.loss.lpips_weight = 0",
        ) from error


def _declare_detection_operators() -> None:
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)


_KEPT: list[Any] = []
"""Operator declarations live as long as their library object."""


def _load_backbone(model: nn.Module, path: Path) -> None:
    """Fill LPIPS' five VGG slices, which keep torchvision's layer numbers, from a vgg16 state dict."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise _no_backbone(path, "cannot be read") from error
    backbone = model.get_submodule("net")
    filled = {}
    for name, wanted in backbone.state_dict().items():
        _, number, part = name.split(".")
        source = f"features.{number}.{part}"
        found = state.get(source) if isinstance(state, dict) else None
        if not isinstance(found, Tensor) or found.shape != wanted.shape:
            raise _no_backbone(path, f"has no tensor {source} of shape {tuple(wanted.shape)}")
        filled[name] = found
    backbone.load_state_dict(filled, strict=True)


def _no_backbone(path: Path, fault: str) -> ConfigError:
    return ConfigError(f"{path} {fault}; expected a torchvision vgg16 state dict", hint=f"use the file {VGG_FILE}")
