"""Artifacts and episodes that do not belong together: refused with both fingerprints, nothing changed on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from ahriuwu_cli.core import artifact, content, tensorfile
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.games.bricks import BricksEnv

TRAININGS = ("dynamics train", "agent finetune", "imagine train")
"""Those that stand on latents."""


def fingerprint(path: Path) -> str:
    kinds = ("episodes", "tokenizer", "latents", "packed", "dynamics", "agent", "imagination")
    return artifact.read_header(path, kinds).fingerprint


# ---------------------------------------------------------------- other parents


@pytest.fixture
def other_tokenizer(run_dir, ahriuwu) -> Path:
    """A run whose tokenizer was trained anew, with another seed, after all the rest was made."""
    again = ahriuwu("tokenizer", "train", "-c", run_dir / "run.toml", "-s", "run.seed=1", "--overwrite")
    assert again.code == 0
    return run_dir


@pytest.mark.parametrize(
    "command", ["latents pack", *(f"{name} --overwrite" for name in TRAININGS), "eval rollout", "eval agent"]
)
def test_latents_of_another_tokenizer(refused, other_tokenizer, road, command) -> None:
    error, _ = refused(3, *command.split(), "-c", other_tokenizer / "run.toml")
    assert fingerprint(road.folder / "tokenizer/tokenizer.safetensors") in error
    assert fingerprint(other_tokenizer / "tokenizer/tokenizer.safetensors") in error


def test_dynamics_of_other_latents(refused, other_tokenizer, road, ahriuwu) -> None:
    for command in ("build", "pack"):
        assert ahriuwu("latents", command, "-c", other_tokenizer / "run.toml").code == 0
    shutil.rmtree(other_tokenizer / "tokenizer")  # a run of which only latents and dynamics were copied
    error, hint = refused(3, "agent", "finetune", "-c", other_tokenizer / "run.toml", "--overwrite")
    assert fingerprint(road.folder / "latents") in error
    assert fingerprint(other_tokenizer / "latents") in error
    assert "dynamics.safetensors" in hint


@pytest.mark.parametrize(
    "command", ["latents build", "latents pack", *(f"{name} --overwrite" for name in TRAININGS), "eval rollout"]
)
def test_another_split_after_training(refused, run_dir, ahriuwu, command) -> None:
    """Pitfall 7: once the split has changed, nothing that saw the old one is used on."""
    assert (
        ahriuwu("data", "split", run_dir / "episodes", "--heldout-fraction", "0.5", "-c", run_dir / "run.toml").code
        == 0
    )
    error, _ = refused(3, *command.split(), "-c", run_dir / "run.toml")
    assert f"is {fingerprint(run_dir / 'episodes')}" in error


# ---------------------------------------------------------------- episodes that do not fit


class OtherGame(BricksEnv):
    """The built-in game with a fourth action, and nobody who shows how to play."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.action_space = spaces.Discrete(4)

    def reset(self, **options: Any) -> Any:
        return super().reset(**options)[0], {}

    def step(self, action: int) -> Any:
        return *super().step(min(action, 2))[:4], {}


@pytest.fixture
def other_game() -> str:
    if "test/Other-v0" not in gymnasium.registry:
        gymnasium.register("test/Other-v0", entry_point=OtherGame)
    return "test/Other-v0"


def test_store_of_another_environment(refused, run_dir, other_game) -> None:
    append = ("data", "record", "--append", "-c", run_dir / "run.toml")
    error, hint = refused(2, *append, "--env", other_game, "--policy", "random")
    assert "was recorded with data.env ahriuwu/Bricks-v0; this recording has test/Other-v0" in error
    assert "another run folder" in hint
    assert "data.env_options {}" in refused(2, *append, "-s", "data.env_options={sticky=0.5}")[0]
    assert "data.height 32" in refused(2, *append, "-s", "data.height=64")[0]


def test_no_expert_to_follow(refused, run_dir, other_game) -> None:
    flags = ("-c", run_dir / "run.toml", "--env", other_game, "--out", run_dir / "other")
    assert "noisy-expert needs an environment" in refused(2, "data", "record", *flags)[0]


def test_an_agent_of_another_game(refused, run_dir, other_game) -> None:
    flags = ("-c", run_dir / "run.toml", "--policy", run_dir / "agent/agent.safetensors", "--out", run_dir / "other")
    assert "actions" in refused(3, "data", "record", *flags, "--env", other_game)[0]
    error, hint = refused(3, "data", "record", *flags, "-s", "data.height=64")
    assert "was made for 32x32 frames; the environment gives 64x32" in error
    assert "data.height=32" in hint


def damage_episode(run_dir: Path, id_: str, name: str, change: Callable[[np.ndarray], None]) -> None:
    """Change an array of an episode the way a faulty program would: with hashes and fingerprints that are right."""
    folder = run_dir / "episodes"
    path = folder / f"{id_}.safetensors"
    arrays = tensorfile.read_arrays(path)
    change(arrays[name])
    tensorfile.write_tensors(path, {key: torch.from_numpy(value) for key, value in arrays.items()}, {})
    header = artifact.read_header(folder, "episodes")
    info = json.loads(json.dumps(header.info))
    next(entry for entry in info["episodes"] if entry["id"] == id_)["sha256"] = content.hash_file(path)
    artifact.write_manifest(
        folder, "episodes", config=header.config, specs=header.specs, parents=header.parents, info=info
    )


@pytest.mark.parametrize("value", [3.0, -1.0, 0.5, np.nan])
def test_action_outside_its_range(refused, run_dir, value) -> None:
    train = EpisodeStore.open(run_dir / "episodes").ids("train")[0]
    damage_episode(run_dir, train, "actions", lambda actions: actions.__setitem__((2, 0), value))
    for kind in ("tokenizer", "latents"):
        shutil.rmtree(run_dir / kind)
    error, hint = refused(3, "tokenizer", "train", "-c", run_dir / "run.toml")
    assert f"action component 'action' (categorical) is {value:g} at step 2; expected a whole number in 0..2" in error
    assert "record again" in hint


def test_ignored_regions_outside_the_recorded_frames(refused, run_dir) -> None:
    """The episodes decide, whatever size run.toml names."""
    sets = ("-s", "tokenizer.loss.ignored_regions=[[40, 0, 8, 64]]", "-s", "data.height=64", "-s", "data.width=64")
    error, hint = refused(2, "tokenizer", "train", "-c", run_dir / "run.toml", "--overwrite", *sets)
    assert "has [40, 0, 8, 64]; expected [top, left, height, width] of at least one pixel" in error
    assert "inside the frame of 32x32" in error
    assert "recorded frames" in hint


def test_heldout_episodes_too_short_for_the_horizon(refused, run_dir) -> None:
    error, hint = refused(3, "eval", "rollout", "-c", run_dir / "run.toml", "-s", "eval.horizon=100")
    wanted = "windows of 104 (eval.context_length + eval.horizon) are asked for"
    assert f"the longest heldout episode has 25 frames; {wanted}" in error
    assert "lower eval.context_length or eval.horizon" in hint


@pytest.mark.parametrize("command", ["eval rollout", "imagine train --overwrite"])
def test_context_longer_than_that_of_the_trained_model(refused, run_dir, command) -> None:
    section = "eval" if "eval" in command else "imagine"
    sets = ("-s", "dynamics.sampler.context_length=5", "-s", f"{section}.context_length=5")
    error, hint = refused(2, *command.split(), "-c", run_dir / "run.toml", *sets)
    assert f"{section}.context_length is 5; the model attends to 4 past frames" in error
    assert "lower" in hint


def test_no_episode_is_as_long_as_a_context(refused, ahriuwu, run_dir, tmp_path, minuscule) -> None:
    short = tmp_path / "short"
    short.mkdir()
    shutil.copyfile(run_dir / "run.toml", short / "run.toml")
    road = ("data record", "tokenizer train", "latents build", "latents pack", "dynamics train", "agent finetune")
    for command in road:
        assert ahriuwu(*command.split(), "-c", short / "run.toml", "-s", "data.max_episode_steps=3").code == 0
    error, hint = refused(3, "imagine", "train", "-c", short / "run.toml")
    assert "the longest train episode has 4 frames; windows of 5 (imagine.context_length + 1) are asked for" in error
    assert "lower imagine.context_length, or" in hint
