"""The tokenizer presets at full size, on the meta device: tokens, widths, layers."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch

from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.pipeline.config import preset_run, tokenizer_preset_names, tokenizer_preset_text
from ahriuwu_cli.tokenizer.cnn import CnnTokenizer
from ahriuwu_cli.tokenizer.protocol import Tokenizer
from ahriuwu_cli.tokenizer.registry import config_class, module_class
from ahriuwu_cli.tokenizer.transformer import TransformerTokenizer

FRAME = FrameSpec(height=256, width=256, fps=20)
SIZES = {  # width, layers each side, latent width; base channels, latent width
    "tiny": ((256, 4, 16), (32, 128)),
    "small": ((512, 6, 32), (64, 256)),
    "medium": ((768, 8, 48), (96, 384)),
    "large": ((1024, 12, 64), (128, 512)),
}


def build(name: str, frame: FrameSpec = FRAME) -> Tokenizer:
    model = tomllib.loads(tokenizer_preset_text(name))["tokenizer"]["model"]
    with torch.device("meta"):
        return module_class(model["type"])(config_class(model["type"]).model_validate(model, strict=True), frame)


def count(model: Tokenizer) -> float:
    """Parameters in millions."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def test_names() -> None:
    assert tokenizer_preset_names() == [f"{kind}-{size}" for kind in ("cnn", "transformer") for size in SIZES]


@pytest.mark.parametrize("size", SIZES)
def test_transformers(size: str) -> None:
    model = build(f"transformer-{size}")
    assert isinstance(model, TransformerTokenizer)
    dim, layers, width = SIZES[size][0]
    assert (model.latent_spec.num_tokens, model.latent_spec.dim_token) == (256, width)
    assert model.padding.grid == (16, 16)
    assert len(model.encoder.blocks) == len(model.decoder.blocks) == layers
    assert model.embed_patch.weight.shape == (dim, 3 * 16 * 16)
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("size", SIZES)
def test_convolutions(size: str) -> None:
    model = build(f"cnn-{size}")
    assert isinstance(model, CnnTokenizer)
    base, width = SIZES[size][1]
    assert (model.latent_spec.num_tokens, model.latent_spec.dim_token) == (256, width)
    halvings = [layer for layer in model.encoder if isinstance(layer, torch.nn.Conv2d) and layer.stride == (2, 2)]
    assert len(halvings) == 4
    assert model.encoder[0].weight.shape == (base, 3, 3, 3)
    assert model.encoder[0].stride == (1, 1)


@pytest.mark.parametrize("name", tokenizer_preset_names())
def test_the_first_lines_name_the_size(name: str) -> None:
    model = build(name)
    lines = tokenizer_preset_text(name).splitlines()
    assert f"{model.latent_spec.num_tokens} tokens of {model.latent_spec.dim_token} channels" in lines[1]
    stated = float(lines[1].partition("about ")[2].partition("M")[0])
    assert stated == pytest.approx(count(model), rel=0.05)


def test_the_paper_s_tokenizer() -> None:
    config = preset_run("paper", Path("x")).config
    frame = FrameSpec(height=config.data.height, width=config.data.width, fps=20)
    with torch.device("meta"):
        model = module_class("transformer")(config.tokenizer.model, frame)
    assert isinstance(model, TransformerTokenizer)
    assert model.padding.grid == (24, 40)
    assert model.latent_spec.layout == "bottleneck 512x16 folded to 256x32"
    assert count(model) == pytest.approx(400, rel=0.1)
