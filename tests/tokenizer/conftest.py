"""Minuscule tokenizers of both kinds on 16x16 frames, with weights large enough for every dependence to show."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.tokenizer.cnn import CnnTokenizer
from ahriuwu_cli.tokenizer.config import CnnModel, TransformerModel
from ahriuwu_cli.tokenizer.protocol import Tokenizer
from ahriuwu_cli.tokenizer.transformer import TransformerTokenizer

FRAME = FrameSpec(height=16, width=24, fps=10)
CNN = {"patch": 8, "dim_token": 4, "base_channels": 4}
TRANSFORMER = {
    "patch": 8,
    "dim": 16,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "num_kv_heads": 1,
    "time_every": 2,
    "num_bottleneck": 3,
    "dim_bottleneck": 4,
    "num_tokens": 2,
    "context_length": 2,
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def frame() -> FrameSpec:
    """16 x 24 pixels: six patches of 8."""
    return FRAME


@pytest.fixture
def make_cnn() -> Callable[..., CnnTokenizer]:
    """A cnn tokenizer; keywords change its config."""

    def make(frame: FrameSpec = FRAME, **changes: object) -> CnnTokenizer:
        return CnnTokenizer(CnnModel.model_validate(CNN | changes), frame)

    return make


@pytest.fixture
def make_transformer() -> Callable[..., TransformerTokenizer]:
    """A transformer tokenizer; keywords change its config."""

    def make(frame: FrameSpec = FRAME, **changes: object) -> TransformerTokenizer:
        model = TransformerTokenizer(TransformerModel.model_validate(TRANSFORMER | changes), frame)
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        return model

    return make


@pytest.fixture(params=["cnn", "transformer"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """Both kinds, one after the other."""
    return request.getfixturevalue(f"make_{request.param}")()


@pytest.fixture
def draw_pixels() -> Callable[..., torch.Tensor]:
    """(B, T, 3, H, W) uniform in [-1, 1]."""

    def draw(batch: int, length: int, frame: FrameSpec = FRAME) -> torch.Tensor:
        return 2 * torch.rand(batch, length, 3, frame.height, frame.width) - 1

    return draw
