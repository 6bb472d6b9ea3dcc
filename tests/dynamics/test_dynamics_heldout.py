"""The world model on held-out windows: the error it reports, and whether actions matter to it."""

from __future__ import annotations

import math
import shutil
from types import SimpleNamespace

import pytest
import torch

from ahriuwu_cli.core.artifact import read_header, write_manifest
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.dynamics.heldout import HeldoutWorld
from ahriuwu_cli.dynamics.model import DynamicsModel
from ahriuwu_cli.dynamics.train import train_dynamics
from ahriuwu_cli.latents.heldout import heldout_windows


@pytest.fixture
def judge(packed_run):
    windows = heldout_windows(packed_run.packed)
    assert windows is not None
    assert all(episode.split == "heldout" for episode in windows.episodes)
    return HeldoutWorld(windows, count=7, length=6, rows=3, tau_context=0.9)


@pytest.fixture
def world(packed_run) -> DynamicsModel:
    windows = heldout_windows(packed_run.packed)
    torch.manual_seed(0)
    return DynamicsModel(packed_run.config.dynamics.model, windows.latent_spec, windows.action_spec).eval()


@torch.no_grad()
def test_the_error_of_a_known_guess(judge, world, monkeypatch):
    """A network that gives zeros errs by the mean square of the latents, frames after an episode's end left out."""
    batch = judge._batches[""]
    z1 = world.normalise(batch.latents)
    squares = z1.square().mean(dim=(-1, -2))
    flow = pytest.approx(squares[batch.valid].mean().item())
    following = pytest.approx(squares[:, -1][batch.valid[:, -1]].mean().item())
    world.read_latent.weight.zero_()
    world.read_latent.bias.zero_()
    found = judge.judge(world)
    assert found == {
        "heldout_flow": flow,
        "heldout_shuffled_flow": flow,
        "heldout_next": following,
        "heldout_shuffled_next": following,
    }


@torch.no_grad()
def test_shuffled_actions_matter_to_a_world_that_listens(judge, world, awake):
    """Pitfall 40: a world that is indifferent to actions errs as much with those of another window."""
    awake(world)
    found = judge.judge(world)
    assert judge.judge(world) == found  # the same noise every time
    for name in ("flow", "next"):
        assert not math.isclose(found[f"heldout_{name}"], found[f"heldout_shuffled_{name}"], rel_tol=1e-4)
    for parameter in world.embed_action.parameters():
        parameter.zero_()
    deaf = judge.judge(world)
    assert deaf["heldout_flow"] == deaf["heldout_shuffled_flow"]
    assert deaf["heldout_next"] == deaf["heldout_shuffled_next"]
    whole = HeldoutWorld(heldout_windows_of(judge), 7, 6, 7, 0.9).judge(world)
    assert whole == pytest.approx(deaf, rel=1e-5)  # in one pass as in three


def heldout_windows_of(judge):
    sampler = SimpleNamespace(draw=lambda rng, count, length: None)
    return SimpleNamespace(sampler=sampler, read=lambda places, length: judge._batches[""])


def test_the_artifact_says_what_was_measured(packed_run, cpu_runtime, tmp_path):
    section = packed_run.config.dynamics
    result = train_dynamics(section, packed_run.packed, tmp_path, cpu_runtime, seed=0, resume=False)
    found = result.header.info["heldout"]
    assert set(found) == {"heldout_flow", "heldout_shuffled_flow", "heldout_next", "heldout_shuffled_next"}
    last = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert last["step"] == section.train.steps
    assert {name: last[name] for name in found} == found


def test_without_held_out_episodes_training_goes_on_without_numbers(packed_run, cpu_runtime, tmp_path, capfd):
    packed = tmp_path / "packed"
    shutil.copytree(packed_run.packed, packed)
    header = read_header(packed, "packed")
    entries = [entry | {"split": "train"} for entry in header.info["episodes"]]
    info = header.info | {"episodes": entries}
    write_manifest(packed, "packed", config=header.config, specs=header.specs, parents=header.parents, info=info)
    section = packed_run.config.dynamics
    result = train_dynamics(section, packed, tmp_path / "out", cpu_runtime, seed=0, resume=False)
    assert result.header.info["heldout"] == {}
    assert "nothing is held out" in capfd.readouterr().err
    assert not [name for line in read_metrics(tmp_path / "out" / "metrics.jsonl") for name in line if "heldout" in name]
