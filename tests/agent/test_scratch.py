"""The baseline without a world model: what it learns from, what is trained, the artifact, resuming, who refuses it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ahriuwu_cli.agent.batches import read_recorded, relevant_places
from ahriuwu_cli.agent.checkpoint import is_from_scratch, load_agent
from ahriuwu_cli.agent.player import load_player
from ahriuwu_cli.agent.scratch import ScratchStage, scratch_loss, train_scratch
from ahriuwu_cli.agent.train import agent_losses
from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.errors import ArtifactError, DeviceError, TrainingInterrupted
from ahriuwu_cli.core.training.batches import batch_generator
from ahriuwu_cli.core.training.loop import TrainResult, moved, train
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.dynamics.config import ObjectiveConfig
from ahriuwu_cli.dynamics.shortcut_forcing import snap
from ahriuwu_cli.evaluation.dreaming import load_dream_source
from ahriuwu_cli.imagination.train import train_imagination
from ahriuwu_cli.latents.windows import LatentWindows

CPU = torch.device("cpu")
UNTOUCHED = {"world.read_latent.weight", "world.read_latent.bias"}


@pytest.fixture
def stage(packed_run, cpu_runtime) -> ScratchStage:
    torch.manual_seed(0)
    config, windows = packed_run.config, LatentWindows(packed_run.packed, "train")
    return ScratchStage(config.agent, config.dynamics, windows, cpu_runtime, 0)


@pytest.fixture
def cloned(packed_run, cpu_runtime):
    """Train the baseline into a folder."""

    def call(folder: Path, **options: Any) -> TrainResult:
        config = packed_run.config
        given = {"seed": 0, "resume": False, **options}
        return train_scratch(config.agent, config.dynamics, packed_run.packed, folder, cpu_runtime, **given)

    return call


def test_declared_is_moved_and_the_rest_untouched(packed_run, stage, cpu_runtime, tmp_path):
    """Pitfalls 2 and 3: policy and transformer learn, all their tensors; what nothing reads stays as it was."""
    before = {name: tensor.clone() for name, tensor in stage.module.state_dict().items()}
    settings = packed_run.config.agent.train.model_copy(update={"log_every": 1})
    result = train(stage, settings, cpu_runtime, tmp_path, resume=False, seed=0)
    assert set(stage.trained()) == moved(before, stage.module.state_dict())
    rest = set(before) - set(stage.trained())
    assert {name for name in rest if name.startswith("world.")} == UNTOUCHED
    assert {name.split(".")[0] for name in rest - UNTOUCHED} == {"reward", "alive"}
    assert not [name for name in rest if name.startswith("policy.")]
    assert result.header.info["untrained"] == []
    change = (stage.module.state_dict()["policy.net.out.weight"] - before["policy.net.out.weight"]).reshape(3, -1)
    assert change.any(dim=1).all()  # every multi-token distance
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "warning" not in line]
    assert len(lines) == settings.steps
    for line in lines:
        assert math.isfinite(line["policy_loss"]) and line["policy_loss"] == line["loss"]
        assert not [name for name in line if name.startswith(("reward", "continue", "flow"))]


def test_it_learns_from_what_the_finetuned_agent_imitates(packed_run, stage):
    """The same windows at the same levels under the same noise: its loss is the policy term of Eq. 9, bit for bit."""
    section, windows = packed_run.config.agent, LatentWindows(packed_run.packed, "train")
    places = relevant_places(section, windows.sampler, batch_generator(0, 0), section.train.batch_size)
    batch = read_recorded(section, windows, places)
    assert (batch.reward > 0).any(dim=1).all()
    tau = snap(packed_run.config.dynamics.sampler.tau_context, 8)
    torch.manual_seed(7)
    everything = len(batch.valid)
    losses, _ = agent_losses(stage.module, batch, everything, ObjectiveConfig(), tau)
    torch.manual_seed(7)
    mine, _ = scratch_loss(stage.module, batch, tau)
    assert torch.equal(mine, losses["policy"])
    torch.manual_seed(7)
    drawn, metrics = stage.loss(0, stage.batch(0, 0))  # the stage's own batch, of the same generator
    assert torch.equal(drawn, mine)
    assert set(metrics) == {
        "policy_loss", "policy_accuracy", "policy_accuracy_on_changes", "repeat_last_accuracy",
    }  # fmt: skip


def test_the_artifact_says_what_it_is_and_plays(packed_run, cpu_runtime, cloned, tmp_path):
    """Pitfall 1: an agent file like any other, but made from no dynamics."""
    header = cloned(tmp_path).header
    packed = read_header(packed_run.packed, "packed")
    assert header.kind == "agent"
    assert header.parents == packed.parents | {"packed": packed.fingerprint}
    assert (header.info["from_scratch"], header.info["heads"]) == (True, ["policy"])
    assert is_from_scratch(header)
    assert set(header.config["dynamics"]) == {"model", "sampler"}
    loaded = load_agent(tmp_path / "agent.safetensors", CPU)
    assert loaded.model.world.config == packed_run.config.dynamics.model
    assert loaded.sampler == packed_run.config.dynamics.sampler
    assert loaded.specs.latent == LatentWindows(packed_run.packed, "train").latent_spec
    saved = load_file(tmp_path / "agent.safetensors")
    assert not [name for name, tensor in loaded.model.state_dict().items() if not torch.equal(tensor, saved[name])]
    player = load_player(tmp_path / "agent.safetensors", packed_run.tokenizer, cpu_runtime, temperature=1.0)
    player.reset(2, 0)
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    chosen = player.act(frames, np.ones(2, bool), [{"seed": 1}, {"seed": 2}])
    assert chosen.shape == (2, loaded.specs.action.dim)


def test_a_resumed_training_ends_with_the_same_bits(cloned, stop_at, tmp_path):
    """Pitfall 14."""
    whole = cloned(tmp_path / "straight")
    stop_at(ScratchStage, 2)
    with pytest.raises(TrainingInterrupted, match="stopped at step 2 of 4"):
        cloned(tmp_path / "broken")
    stop_at(ScratchStage, 0)
    assert cloned(tmp_path / "broken", resume=True).header.fingerprint == whole.header.fingerprint
    left, right = (load_file(tmp_path / name / "agent.state.safetensors") for name in ("straight", "broken"))
    assert left.keys() == right.keys() and not [name for name in left if not torch.equal(left[name], right[name])]
    assert cloned(tmp_path / "other", seed=1).header.fingerprint != whole.header.fingerprint


def test_it_cannot_dream(packed_run, cpu_runtime, cloned, tmp_path):
    """Neither imagination nor `eval rollout` takes an agent whose world was never trained."""
    cloned(tmp_path)
    path = tmp_path / "agent.safetensors"
    with pytest.raises(ArtifactError, match="cloned from scratch") as caught:
        train_imagination(
            packed_run.config.imagine, path, packed_run.packed, tmp_path / "dream", cpu_runtime, seed=0, resume=False
        )
    assert "ahriuwu agent finetune" in caught.value.hint
    assert not (tmp_path / "dream").exists()
    with pytest.raises(ArtifactError, match="no world model to dream in"):
        load_dream_source(path, CPU)


def test_a_step_that_does_not_fit_is_refused(cloned, tmp_path, monkeypatch):
    monkeypatch.setattr("ahriuwu_cli.core.memory.available_memory", lambda device: 10_000)
    with pytest.raises(DeviceError, match="one agent step needs about"):
        cloned(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_batches_are_drawn_by_the_step(packed_run, cpu_runtime, draws_by_step):
    """Pitfall 14."""
    config, windows = packed_run.config, LatentWindows(packed_run.packed, "train")
    draws_by_step(lambda seed: ScratchStage(config.agent, config.dynamics, windows, cpu_runtime, seed))
