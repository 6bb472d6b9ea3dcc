"""The tokenizer's training stage: which frames it sees, its state, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ConfigError, DataError, DeviceError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec
from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.tokenizer import train as module
from ahriuwu_cli.tokenizer.checkpoint import load_tokenizer
from ahriuwu_cli.tokenizer.config import TokenizerSection
from ahriuwu_cli.tokenizer.train import FrameClips, TokenizerStage, check_tokenizer_memory, train_tokenizer

CPU = Runtime(torch.device("cpu"), "fp32")
LENGTHS = (3, 9, 4, 6, 5, 8)  # frames per episode


def section(**changes: Any) -> TokenizerSection:
    values = {
        "model": {"type": "cnn", "patch": 8, "dim_token": 4, "base_channels": 4},
        "loss": {"lpips_weight": 0.0},
        "train": {"steps": 3, "batch_size": 4, "learning_rate": 1e-3},
    }
    return TokenizerSection.model_validate(values | changes)


@pytest.fixture
def episodes(tmp_path: Path) -> Path:
    """Six episodes; every pixel of frame t of episode e is 20 e + t, so a frame says where it comes from."""
    spec = ActionSpec(components=(ActionComponent(name="move", type="categorical", num_classes=3),))
    frame = FrameSpec(height=16, width=16, fps=10)
    store = EpisodeStore.create(tmp_path / "episodes", spec, frame, "Some-v0", {}, heldout_fraction=0.34)
    made = []
    for index, count in enumerate(LENGTHS):
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


@pytest.mark.parametrize("length", [1, 3])
def test_clips_are_consecutive_frames_of_training_episodes(episodes: Path, length: int) -> None:
    """Pitfall 7: held-out videos sat in the tokenizer's training set."""
    store = EpisodeStore.open(episodes)
    drawn = FrameClips(store, length).draw(np.random.default_rng(0), 3000)
    assert drawn.shape == (3000, length, 16, 16, 3)
    assert drawn.dtype == torch.uint8
    first = drawn[:, 0, 0, 0, 0].long()
    assert torch.equal(drawn.long()[:, :, 0, 0, 0], first[:, None] + torch.arange(length))
    starts = {20 * int(id_) + start for id_ in store.ids("train") for start in range(LENGTHS[int(id_)] - length + 1)}
    assert set(first.tolist()) == starts  # every start, none over an episode's end, none held out
    counts = torch.stack([(first == start).sum() for start in starts]) / 3000 * len(starts)
    assert counts.min() > 0.6
    assert counts.max() < 1.5


def test_episodes_shorter_than_a_clip_are_passed_over(episodes: Path) -> None:
    store = EpisodeStore.open(episodes)
    longest = max(LENGTHS[int(id_)] for id_ in store.ids("train"))
    assert FrameClips(store, longest).draw(np.random.default_rng(0), 2).shape[1] == longest
    with pytest.raises(DataError, match=f"no training episode has {longest + 1} frames") as caught:
        FrameClips(store, longest + 1)
    assert "tokenizer.clip_length" in caught.value.hint


def test_clips_do_not_alias_the_frames(episodes: Path) -> None:
    clips = FrameClips(EpisodeStore.open(episodes), 2)
    drawn = clips.draw(np.random.default_rng(0), 2)
    before = drawn.clone()
    drawn.zero_()
    assert torch.equal(clips.draw(np.random.default_rng(0), 2), before)


def test_stage_state_restores_loader_and_averages(episodes: Path) -> None:
    """Pitfall 14: resume replayed the same batches."""
    torch.manual_seed(0)
    stage = TokenizerStage(section(), episodes, CPU, seed=3)
    for step in range(2):
        stage.loss(step)
    state = stage.state()
    json.dumps(state.values)
    straight = [stage.loss(step)[0] for step in (2, 3)]
    resumed = TokenizerStage(section(), episodes, CPU, seed=99)
    resumed.module.load_state_dict(stage.module.state_dict())
    resumed.load_state(state)
    assert [resumed.loss(step)[0] for step in (2, 3)] == straight


def test_the_declared_set_is_the_whole_tokenizer(episodes: Path) -> None:
    """Pitfall 3: set of trained tensors = declared set."""
    stage = TokenizerStage(section(), episodes, CPU, seed=0)
    assert stage.trained().keys() == stage.module.state_dict().keys()


def test_every_step_counts_the_mask_curriculum(episodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = TokenizerStage(section(), episodes, CPU, seed=0)
    steps: list[int] = []
    monkeypatch.setattr(
        stage.module, "reconstruct_for_training", lambda pixels, step: steps.append(step) or pixels * 0.5
    )
    for step in (0, 7):
        stage.loss(step)
    assert steps == [0, 7]


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
def test_trained_tokenizer_can_be_loaded(episodes: Path, tmp_path: Path, kind: str, make_small: Callable) -> None:
    """Pitfall 1: the file alone says what the model is; pitfall 7: it names what was held out."""
    chosen = make_small(kind)
    result = train_tokenizer(chosen, episodes, tmp_path / "out", CPU, seed=1, resume=False)
    loaded, header = load_tokenizer(tmp_path / "out" / "tokenizer.safetensors", CPU.device)
    store = EpisodeStore.open(episodes)
    assert loaded.config == chosen.model
    assert header.fingerprint == result.header.fingerprint
    assert header.parents == {"episodes": store.fingerprint}
    assert header.info["heldout"] == store.ids("heldout")
    assert header.info["untrained"] == []
    assert TokenizerSection.model_validate(header.config) == chosen
    assert FrameSpec.model_validate(header.specs["frame"]) == store.frame_spec
    assert result.metrics["psnr"] > 0


@pytest.fixture
def make_small() -> Callable[[str], TokenizerSection]:
    """A section of either kind."""

    def make(kind: str) -> TokenizerSection:
        if kind == "cnn":
            return section()
        sizes = {"dim": 16, "num_heads": 2, "num_kv_heads": 1, "time_every": 2, "num_bottleneck": 4}
        layers = {"num_encoder_layers": 2, "num_decoder_layers": 2, "num_tokens": 4}
        return section(model={"type": "transformer", **sizes, **layers}, clip_length=3)

    return make


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
def test_memory_is_checked_before_data(
    kind: str, make_small: Callable[[str], TokenizerSection], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = FrameSpec(height=16, width=16, fps=10)
    check_tokenizer_memory(make_small(kind), frame, CPU)
    monkeypatch.setattr("ahriuwu_cli.core.device.available_memory", lambda device: 1000)
    with pytest.raises(DeviceError, match="one tokenizer step needs about"):
        check_tokenizer_memory(make_small(kind), frame, CPU)


def test_lpips_is_asked_for_before_training(episodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS weights that are missing are reported before anything is written."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(ConfigError, match="LPIPS needs VGG weights"):
        train_tokenizer(section(loss={"lpips_weight": 0.2}), episodes, tmp_path / "out", CPU, seed=1, resume=False)
    assert not (tmp_path / "out").exists()


def test_lpips_weight_reaches_the_loss(episodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Constant(torch.nn.Module):
        def forward(self, truth: torch.Tensor, guess: torch.Tensor) -> torch.Tensor:
            return (guess * 0 + 3).mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setattr(module, "load_lpips", lambda path: Constant())
    stage = TokenizerStage(section(loss={"lpips_weight": 0.7}), episodes, CPU, seed=0)
    loss, metrics = stage.loss(0)
    assert loss.item() == pytest.approx(1.7)
    assert float(metrics["lpips"]) == pytest.approx(3)
