"""The tokenizer's training stage: which frames it sees, its state, and what it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ConfigError, DataError, DeviceError
from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.core.training.batches import batch_generator
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.tokenizer import train as module
from ahriuwu_cli.tokenizer.checkpoint import load_tokenizer
from ahriuwu_cli.tokenizer.clips import Clip, ClipReader, ClipSampler
from ahriuwu_cli.tokenizer.cnn import CnnTokenizer
from ahriuwu_cli.tokenizer.config import TokenizerSection
from ahriuwu_cli.tokenizer.statistics import latent_statistics
from ahriuwu_cli.tokenizer.train import TokenizerStage, check_tokenizer_memory, train_tokenizer

CPU = Runtime(torch.device("cpu"), "fp32")


def section(**changes: Any) -> TokenizerSection:
    values = {
        "model": {"type": "cnn", "patch": 8, "dim_token": 4, "base_channels": 4},
        "loss": {"lpips_weight": 0.0},
        "train": {"steps": 3, "batch_size": 4, "learning_rate": 1e-3},
    }
    return TokenizerSection.model_validate(values | changes)


def test_stage_state_restores_averages_and_the_step_its_clips(episodes: Path) -> None:
    """Pitfall 14: resume replayed the same batches. A step has its own ones, whatever came before it."""
    torch.manual_seed(0)
    stage = TokenizerStage(section(), episodes, CPU, seed=3)
    for step in range(2):
        stage.loss(step, stage.batch(step, 0))
    state = stage.state()
    assert not state.values
    straight = [stage.loss(step, stage.batch(step, 0))[0] for step in (2, 3)]
    resumed = TokenizerStage(section(), episodes, CPU, seed=3)
    resumed.module.load_state_dict(stage.module.state_dict())
    resumed.load_state(state)
    assert [resumed.loss(step, resumed.batch(step, 0))[0] for step in (2, 3)] == straight


def test_the_declared_set_is_the_whole_tokenizer(episodes: Path) -> None:
    """Pitfall 3: set of trained tensors = declared set."""
    stage = TokenizerStage(section(), episodes, CPU, seed=0)
    assert stage.trained().keys() == stage.module.state_dict().keys()


def test_every_step_counts_the_mask_curriculum(episodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = TokenizerStage(section(), episodes, CPU, seed=0)
    steps: list[int] = []
    monkeypatch.setattr(
        stage.module, "encode_for_training", lambda pixels, step: steps.append(step) or stage.module.encode(pixels)
    )
    for step in (0, 7):
        stage.loss(step, stage.batch(step, 0))
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
    assert header.info["heldout_episodes"] == store.ids("heldout")
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
        layers = {"num_encoder_layers": 2, "num_decoder_layers": 2, "num_tokens": 4, "mask_warmup_steps": 0}
        return section(model={"type": "transformer", **sizes, **layers}, clip_length=3)

    return make


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
def test_memory_is_checked_before_data(
    kind: str, make_small: Callable[[str], TokenizerSection], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = FrameSpec(height=16, width=16, fps=10)
    check_tokenizer_memory(make_small(kind), frame, CPU)
    monkeypatch.setattr("ahriuwu_cli.core.memory.available_memory", lambda device: 1000)
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
    loss, metrics = stage.loss(0, stage.batch(0, 0))
    assert loss.item() == pytest.approx(1.7)
    assert float(metrics["lpips"]) == pytest.approx(3)


def test_ignored_regions_reach_the_loss(episodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 8: the gradient of the painted frame is zero inside the region and nowhere else."""
    chosen = section(loss={"lpips_weight": 0.0, "ignored_regions": [[0, 4, 6, 9]]})
    stage, painted = TokenizerStage(chosen, episodes, CPU, seed=0), []
    decode = stage.module.decode

    def spy(latents: torch.Tensor) -> torch.Tensor:
        painted.append(decode(latents))
        painted[-1].retain_grad()
        return painted[-1]

    monkeypatch.setattr(stage.module, "decode", spy)
    stage.loss(0, stage.batch(0, 0))[0].backward()
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[0:6, 4:13] = True
    assert torch.equal((painted[0].grad == 0).flatten(0, 2).all(dim=0), inside)


@pytest.mark.parametrize("region", [[8, 0, 9, 1], [0, 16, 1, 1], [0, 0, 16, 16]])
def test_ignored_regions_outside_the_recorded_frames(episodes: Path, tmp_path: Path, region: list[int]) -> None:
    chosen = section(loss={"lpips_weight": 0.0, "ignored_regions": [region]})
    with pytest.raises(ConfigError, match=r"frame of 16x16") as caught:
        train_tokenizer(chosen, episodes, tmp_path / "out", CPU, seed=1, resume=False)
    assert "recorded frames" in caught.value.hint
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- what training says of itself


@pytest.mark.parametrize("collapsed", [True, False])
def test_a_tokenizer_of_one_mean_image_is_warned_about(
    episodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_tensorboard: None, collapsed: bool
) -> None:
    """Pitfall 30: every image gave the mean image (outputs differed by 1e-8) and nobody was told."""
    if collapsed:
        encode = CnnTokenizer.encode
        monkeypatch.setattr(CnnTokenizer, "encode", lambda self, pixels: 1e-8 * encode(self, pixels))
    train = {"steps": 80, "batch_size": 8, "learning_rate": 1e-2, "warmup_steps": 50, "log_every": 20}
    result = train_tokenizer(section(train=train), episodes, tmp_path / "out", CPU, seed=1, resume=False)
    lines = read_metrics(tmp_path / "out" / "metrics.jsonl")
    warnings = [line["warning"] for line in lines if "collapsed to the mean" in line.get("warning", "")]
    assert bool(warnings) == collapsed
    share = result.metrics["spread"] / result.metrics["spread_reference"]
    assert share < 1e-5 if collapsed else share > 0.5
    assert result.metrics["latent_spread"] < 1e-7 if collapsed else result.metrics["latent_spread"] > 0.01


def test_latent_statistics_stand_at_every_log_point_and_only_there(
    episodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_tensorboard: None
) -> None:
    counted: list[tuple[int, ...]] = []

    def spy(latents: torch.Tensor) -> dict[str, torch.Tensor]:
        counted.append(tuple(latents.shape))
        return latent_statistics(latents)

    monkeypatch.setattr(module, "latent_statistics", spy)
    train = {"steps": 11, "batch_size": 4, "learning_rate": 1e-3, "log_every": 4, "checkpoint_every": 6}
    train_tokenizer(section(train=train), episodes, tmp_path / "out", CPU, seed=1, resume=False)
    points = [line for line in read_metrics(tmp_path / "out" / "metrics.jsonl") if "warning" not in line]
    assert [line["step"] for line in points] == [4, 6, 8, 11]
    assert counted == [(4, 1, 4, 4)] * 4
    assert all(1 <= line["latent_rank"] <= 4 for line in points)
    assert all(0 < line["latent_spread"] < line["latent_std"] <= 1 for line in points)
    assert all(abs(line["latent_mean"]) <= 1 for line in points)


def test_batches_are_drawn_by_the_step(episodes: Path, draws_by_step: Callable) -> None:
    """Pitfall 14."""
    draws_by_step(lambda seed: TokenizerStage(section(), episodes, CPU, seed=seed))


def test_results_are_the_same_however_many_read_ahead(episodes: Path, tmp_path: Path, no_tensorboard: None) -> None:
    prints = set()
    for workers in (0, 1, 4):
        runtime, folder = replace(CPU, loader_workers=workers), tmp_path / str(workers)
        train = {"steps": 9, "batch_size": 4, "learning_rate": 1e-3, "accumulate": 2}
        header = train_tokenizer(section(train=train), episodes, folder, runtime, seed=1, resume=False).header
        prints.add((header.fingerprint, read_header(folder / "tokenizer.state.safetensors", "state").fingerprint))
    assert len(prints) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_frames_that_change_under_a_training_end_it_with_a_clear_error(
    episodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_tensorboard: None, workers: int
) -> None:
    """Nothing is written over: the last checkpoint is whole and training can go on from it."""
    train = {"steps": 30, "batch_size": 4, "learning_rate": 1e-3, "checkpoint_every": 5}
    runtime, read = replace(CPU, loader_workers=workers), ClipReader.read

    def broken(self: ClipReader, clips: list[Clip]) -> torch.Tensor:
        if clips == ClipSampler(self._store, 1).draw(batch_generator(1, 13), 4):
            raise DataError("000003.mp4: frame 2 of 4 is damaged", hint="restore the file, or make it again")
        return read(self, clips)

    with monkeypatch.context() as patch:
        patch.setattr(ClipReader, "read", broken)
        with pytest.raises(DataError, match="frame 2 of 4 is damaged"):
            train_tokenizer(section(train=train), episodes, tmp_path / "x", runtime, seed=1, resume=False)
    assert read_header(tmp_path / "x" / "tokenizer.state.safetensors", "state").info["step"] == 10
    assert not (tmp_path / "x" / "tokenizer.safetensors").exists()
    found = train_tokenizer(section(train=train), episodes, tmp_path / "x", runtime, seed=1, resume=True)
    whole = train_tokenizer(section(train=train), episodes, tmp_path / "whole", CPU, seed=1, resume=False)
    assert found.header.fingerprint == whole.header.fingerprint
