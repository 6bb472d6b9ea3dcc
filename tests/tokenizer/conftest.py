"""Minuscule tokenizers of both kinds on 16x16 frames, with weights large enough for every dependence to show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec
from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.tokenizer.cnn import CnnTokenizer
from ahriuwu_cli.tokenizer.config import CnnModel, TransformerModel
from ahriuwu_cli.tokenizer.cosmos import CosmosTokenizer
from ahriuwu_cli.tokenizer.cosmos_config import CosmosModel
from ahriuwu_cli.tokenizer.protocol import Tokenizer
from ahriuwu_cli.tokenizer.transformer import TransformerTokenizer

EPISODE_LENGTHS = (3, 9, 4, 6, 5, 8)  # frames of each of `episodes`
FRAME = FrameSpec(height=16, width=24, fps=10)
COSMOS_FRAME = FrameSpec(height=16, width=32, fps=10)
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
    "mask_warmup_steps": 0,
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


@pytest.fixture(scope="session")
def cosmos_folder(cosmos_files: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder of TorchScript stand-ins; each kind is written once. Read only."""
    written: dict[str, Path] = {}

    def folder(**options: object) -> Path:
        key = repr(sorted(options.items()))
        if key not in written:
            written[key] = cosmos_files(tmp_path_factory.mktemp("cosmos"), **options)
        return written[key]

    return folder


@pytest.fixture(scope="session")
def make_cosmos(cosmos_folder: Callable[..., Path]) -> Callable[..., CosmosTokenizer]:
    """A cosmos tokenizer for 16x32 frames; `stand_in` chooses the files, keywords change the config."""

    def build(
        frame: FrameSpec = COSMOS_FRAME,
        stand_in: dict[str, object] | None = None,
        **changes: object,
    ) -> CosmosTokenizer:
        kind = changes.get("kind", "CV8x8x8")
        path = str(cosmos_folder(kind=kind, **(stand_in or {})))
        return CosmosTokenizer(CosmosModel.model_validate({"path": path} | changes), frame)

    return build


@pytest.fixture
def episodes(tmp_path: Path) -> Path:
    """Six episodes; every pixel of frame t of episode e is 20 e + t, so a frame says where it comes from."""
    spec = ActionSpec(components=(ActionComponent(name="move", type="categorical", num_classes=3),))
    frame = FrameSpec(height=16, width=16, fps=10)
    store = EpisodeStore.create(tmp_path / "episodes", spec, frame, "Some-v0", {}, heldout_fraction=0.34)
    made = []
    for index, count in enumerate(EPISODE_LENGTHS):
        numbers = (20 * index + np.arange(count)).astype(np.uint8)
        made.append(
            Episode(
                frames=np.broadcast_to(numbers[:, None, None, None], (count, 16, 16, 3)).copy(),
                actions=np.zeros((count - 1, 1), np.float32),
                action_valid=np.ones(count - 1, bool),
                rewards=np.zeros(count - 1, np.float32),
                terminals=np.zeros(count - 1, bool),
                truncations=np.zeros(count - 1, bool),
                timestamps=np.arange(count) / 10,
                task="play",
                seed=index,
                policy="hand",
            )
        )
    store.append(made)
    return tmp_path / "episodes"
