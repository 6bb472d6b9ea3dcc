"""Mistakes and damage: one line that says what is wrong, one that says what to do, nothing changed on disk."""

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

from ahriuwu_cli.core import artifact
from ahriuwu_cli.episodes.game import BricksEnv
from ahriuwu_cli.episodes.store import EpisodeStore

TRAININGS = ("tokenizer train", "dynamics train", "agent finetune", "imagine train")
TOKENIZER, DYNAMICS, AGENT, IMAGINATION = (
    f"{kind}/{kind}.safetensors" for kind in ("tokenizer", "dynamics", "agent", "imagination")
)


@pytest.fixture
def refused(ahriuwu, tree, tmp_path) -> Callable[..., tuple[str, str]]:
    """Run a command line that must be refused; gives back the text of `error:` and of `hint:`."""

    def call(code: int, *arguments: str | Path) -> tuple[str, str]:
        before = tree(tmp_path)
        outcome = ahriuwu(*arguments)
        assert "Traceback" not in outcome.err, outcome.err
        assert (outcome.code, outcome.out) == (code, ""), outcome.err
        lines = outcome.err.splitlines()
        assert [line.partition(": ")[0] for line in lines] == ["error", "hint"], outcome.err
        assert tree(tmp_path) == before
        return lines[0].removeprefix("error: "), lines[1].removeprefix("hint: ")

    return call


def fingerprint(path: Path) -> str:
    kinds = ("episodes", "tokenizer", "latents", "packed", "dynamics", "agent", "imagination")
    return artifact.read_header(path, kinds).fingerprint


# ---------------------------------------------------------------- words and numbers

WORDS: list[tuple[str, str, str]] = [
    ("dynamics train -s dynamics.model.dimm=64", "unknown key dynamics.model.dimm", "write dynamics.model.dim"),
    ("dynamics train -s dynamics.train.steps=true", "dynamics.train.steps is true; expected an integer", "--set"),
    ("agent finetune -s agent.heads.mtp_length=0", "expected an integer from 1 to 64", "--set agent.heads.mtp_length"),
    ("eval rollout -s eval.contexts=1", "eval.contexts is 1; expected an integer at least 2", "--set eval.contexts"),
    ("imagine train -s imagine.horizon", '"imagine.horizon" is not `section.key=value`', "--set"),
    ("data record --append --episodes many", "Invalid value for '--episodes'", "--help"),
    ("data record --append --speed 3", "No such option", "--help"),
    ("data record -s data.height=36 --out other", "data.height 36 is not divisible by tokenizer.model.patch", "--set"),
    ("eval rollout -s eval.context_length=5", "eval.context_length 5 is above dynamics.sampler", "--set"),
    ("imagine train -s imagine.context_length=5", "imagine.context_length 5 is above dynamics.sampler", "--set"),
    ("eval agent --agents random,randm", "agent 'randm' is not known", "--agents"),
    ("data record --policy expert --out other", "policy 'expert' is not known", "--policy"),
    ("data record --env Nope-v0 --out other", "there is no environment 'Nope-v0'", "gymnasium"),
    ("data record -s data.env_options={speed=3} --out other", "cannot be made with options", "data.env_options"),
    ("init . --preset tny", 'there is no preset "tny"', "--preset tiny"),
    ("tokenizer train --resume --overwrite", "exclude each other", "one of them"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "error", "hint"), WORDS, ids=[row[0] for row in WORDS])
def test_words_and_numbers(refused, run_dir, monkeypatch, line, error, hint) -> None:
    monkeypatch.chdir(run_dir)
    found = refused(2, *line.split())
    assert error in found[0]
    assert hint in found[1]


def test_a_typo_in_the_file(refused, run_dir) -> None:
    config = run_dir / "run.toml"
    config.write_text(config.read_text().replace("batch_length", "batch_lenght"))
    error, hint = refused(2, "agent", "finetune", "-c", config, "--overwrite")
    assert "unknown key agent.batch_lenght" in error
    assert hint == "write agent.batch_length"


# ---------------------------------------------------------------- missing


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("run.toml", "dynamics train"),
        ("episodes", "tokenizer train --overwrite"),
        ("episodes", "eval rollout"),
        ("tokenizer", "latents build"),
        (TOKENIZER, "eval agent --agents bc"),
        ("latents", "latents pack"),
        ("packed", "dynamics train --overwrite"),
        ("dynamics", "agent finetune --overwrite"),
        ("agent", "imagine train --overwrite"),
        ("imagination", "eval agent --agents imagination"),
        ("dynamics/dynamics.state.safetensors", "dynamics train --resume"),
        ("nothing", "eval rollout --checkpoint nowhere.safetensors"),
        ("nothing", "eval agent --agents nowhere.safetensors"),
        ("nothing", "data record --policy nowhere.safetensors --out other"),
        ("nothing", "data info nowhere"),
    ],
)
def test_missing_file(refused, run_dir, monkeypatch, missing, command) -> None:
    monkeypatch.chdir(run_dir)
    path = run_dir / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    assert "does not exist" in refused(2, *command.split())[0]


def test_an_episode_file_is_missing(refused, run_dir) -> None:
    (run_dir / "episodes" / "000000.safetensors").unlink()
    assert "is missing; the manifest lists it" in refused(3, "latents", "pack", "-c", run_dir / "run.toml")[0]


@pytest.mark.parametrize("command", ["data info run.toml", "data record --out run.toml", "dynamics train -c episodes"])
def test_a_file_for_a_folder_and_a_folder_for_a_file(refused, run_dir, monkeypatch, command) -> None:
    monkeypatch.chdir(run_dir)
    refused(3 if "info" in command else 2, *command.split())


# ---------------------------------------------------------------- damaged and exchanged files

READERS: list[tuple[str, str]] = [
    ("episodes/000000.safetensors", "latents pack"),
    ("episodes/manifest.json", "tokenizer train --overwrite"),
    (TOKENIZER, "latents build"),
    ("tokenizer/tokenizer.state.safetensors", "tokenizer train --resume"),
    ("latents/000000.safetensors", "latents pack"),
    ("packed/shard", "dynamics train --overwrite"),
    ("packed/manifest.json", "dynamics train --overwrite"),
    (DYNAMICS, "agent finetune --overwrite"),
    (DYNAMICS, "eval rollout"),
    (AGENT, "imagine train --overwrite"),
    ("agent/agent.state.safetensors", "agent finetune --resume"),
    (IMAGINATION, "eval agent"),
    (IMAGINATION, f"data record --policy {IMAGINATION} --out other"),
]


@pytest.mark.parametrize("share", [0.9, 0.1, 0.0])
@pytest.mark.parametrize(("file", "command"), READERS)
def test_truncated_file(refused, run_dir, monkeypatch, file, command, share) -> None:
    monkeypatch.chdir(run_dir)
    [path] = run_dir.glob(f"{file}*")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    error, hint = refused(3, *command.split())
    assert file.removesuffix("/manifest.json") in error.replace("\\", "/")
    assert "again" in hint or "latents build" in hint


@pytest.mark.parametrize(
    ("file", "command"),
    [row for row in READERS if row[0].endswith(".safetensors")],
)
def test_one_changed_byte(refused, run_dir, monkeypatch, file, command) -> None:
    monkeypatch.chdir(run_dir)
    content = bytearray((run_dir / file).read_bytes())
    content[-3] ^= 1
    (run_dir / file).write_bytes(content)
    said = " ".join(refused(3, *command.split()))
    assert "was changed" in said


@pytest.mark.parametrize(
    ("given", "wanted", "command"),
    [
        (AGENT, TOKENIZER, "latents build"),
        (TOKENIZER, DYNAMICS, "agent finetune --overwrite"),
        (DYNAMICS, AGENT, "imagine train --overwrite"),
        (DYNAMICS, IMAGINATION, "eval agent"),
        ("tokenizer/tokenizer.state.safetensors", "agent/agent.state.safetensors", "agent finetune --resume"),
        ("latents/manifest.json", "packed/manifest.json", "dynamics train --overwrite"),
        (TOKENIZER, "", f"eval rollout --checkpoint {TOKENIZER}"),
        (DYNAMICS, "", f"eval agent --agents {DYNAMICS}"),
        (DYNAMICS, "", f"data record --policy {DYNAMICS} --out other"),
        ("episodes", "", "data info latents"),
    ],
)
def test_artifact_of_another_kind(refused, run_dir, monkeypatch, given, wanted, command) -> None:
    monkeypatch.chdir(run_dir)
    if wanted:
        shutil.copyfile(run_dir / given, run_dir / wanted)
    error, hint = refused(3, *command.split())
    assert "expected" in error
    assert "give" in hint


# ---------------------------------------------------------------- other parents


@pytest.fixture
def other_tokenizer(run_dir, ahriuwu) -> Path:
    """A run whose tokenizer was trained anew, with another seed, after all the rest was made."""
    again = ahriuwu("tokenizer", "train", "-c", run_dir / "run.toml", "-s", "run.seed=1", "--overwrite")
    assert again.code == 0
    return run_dir


@pytest.mark.parametrize(
    "command", ["latents pack", *(f"{name} --overwrite" for name in TRAININGS[1:]), "eval rollout", "eval agent"]
)
def test_latents_of_another_tokenizer(refused, other_tokenizer, road, command) -> None:
    error, _ = refused(3, *command.split(), "-c", other_tokenizer / "run.toml")
    assert fingerprint(road.folder / TOKENIZER) in error
    assert fingerprint(other_tokenizer / TOKENIZER) in error


def test_dynamics_of_other_latents(refused, other_tokenizer, road, ahriuwu) -> None:
    for command in ("build", "pack"):
        assert ahriuwu("latents", command, "-c", other_tokenizer / "run.toml").code == 0
    shutil.rmtree(other_tokenizer / "tokenizer")  # a run of which only latents and dynamics were copied
    error, hint = refused(3, "agent", "finetune", "-c", other_tokenizer / "run.toml", "--overwrite")
    assert fingerprint(road.folder / "latents") in error
    assert fingerprint(other_tokenizer / "latents") in error
    assert "dynamics.safetensors" in hint


@pytest.mark.parametrize(
    "command", ["latents build", "latents pack", *(f"{name} --overwrite" for name in TRAININGS[1:]), "eval rollout"]
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
    assert "was recorded with environment ahriuwu/Bricks-v0; this recording has test/Other-v0" in error
    assert "another run folder" in hint
    assert "environment options {}" in refused(2, *append, "-s", "data.env_options={sticky=0.5}")[0]
    assert "frame spec" in refused(2, *append, "-s", "data.height=64")[0]


def test_no_expert_to_follow(refused, run_dir, other_game) -> None:
    flags = ("-c", run_dir / "run.toml", "--env", other_game, "--out", run_dir / "other")
    assert "noisy-expert needs an environment" in refused(2, "data", "record", *flags)[0]


def test_an_agent_of_another_game(refused, run_dir, other_game) -> None:
    flags = ("-c", run_dir / "run.toml", "--policy", run_dir / AGENT, "--out", run_dir / "other")
    assert "actions" in refused(3, "data", "record", *flags, "--env", other_game)[0]
    error, hint = refused(3, "data", "record", *flags, "-s", "data.height=64")
    assert "was made for 32x32 frames; the environment gives 64x32" in error
    assert "data.height=32" in hint


def damage_episode(run_dir: Path, id_: str, name: str, change: Callable[[np.ndarray], None]) -> None:
    """Change an array of an episode the way a faulty program would: with hashes and fingerprints that are right."""
    folder = run_dir / "episodes"
    path = folder / f"{id_}.safetensors"
    arrays = artifact.read_arrays(path)
    change(arrays[name])
    artifact.write_tensors(path, {key: torch.from_numpy(value) for key, value in arrays.items()}, {})
    header = artifact.read_header(folder, "episodes")
    info = json.loads(json.dumps(header.info))
    next(entry for entry in info["episodes"] if entry["id"] == id_)["sha256"] = artifact.hash_file(path)
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


def test_frames_that_do_not_divide_into_patches(refused, run_dir) -> None:
    """The episodes decide, whatever size run.toml names."""
    sets = ("-s", "tokenizer.model.patch=64", "-s", "data.height=64", "-s", "data.width=64")
    error, hint = refused(2, "tokenizer", "train", "-c", run_dir / "run.toml", "--overwrite", *sets)
    assert "frame size 32x32 is not divisible by tokenizer.model.patch 64" in error
    assert "multiples of the patch" in hint


def test_heldout_episodes_too_short_for_the_horizon(refused, run_dir) -> None:
    error, hint = refused(3, "eval", "rollout", "-c", run_dir / "run.toml", "-s", "eval.horizon=100")
    assert "the longest episode has 25 frames; windows of 104 are asked for" in error
    assert "horizon" in hint


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
    error, _ = refused(3, "imagine", "train", "-c", short / "run.toml")
    assert "the longest episode has 4 frames; windows of 5 are asked for" in error


# ---------------------------------------------------------------- what the machine cannot do

DEVICE_USERS = (
    *(f"{name} --overwrite" for name in TRAININGS),
    "latents build",
    "eval rollout",
    "eval agent",
    f"data record --policy {AGENT} --out other",
)


@pytest.mark.parametrize("command", DEVICE_USERS)
def test_cuda_where_there_is_none(refused, run_dir, monkeypatch, command) -> None:
    """Pitfall 26: the device is asked for in one place, before anything else."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(run_dir)
    error, hint = refused(2, *command.split(), "-s", "run.device=cuda")
    assert error.startswith("run.device is cuda, but torch")
    assert "run.device=auto" in hint


@pytest.mark.parametrize("command", DEVICE_USERS)
def test_fp16_on_the_cpu(refused, run_dir, monkeypatch, command) -> None:
    monkeypatch.chdir(run_dir)
    error, hint = refused(2, *command.split(), "-s", "run.precision=fp16")
    assert "fp16 is not supported on the CPU" in error
    assert "run.precision=auto" in hint


@pytest.mark.parametrize("command", TRAININGS)
def test_too_little_memory(refused, run_dir, monkeypatch, command) -> None:
    monkeypatch.setattr("ahriuwu_cli.core.device.available_memory", lambda device: 10_000)
    error, hint = refused(2, *command.split(), "-c", run_dir / "run.toml", "--overwrite")
    assert " step needs about " in error
    assert "batch_size" in hint


# ---------------------------------------------------------------- resuming something else


@pytest.mark.parametrize(
    "override", ["run.seed=3", "dynamics.model.num_registers=2", "dynamics.train.learning_rate=0.1"]
)
def test_resume_with_other_settings(refused, run_dir, override) -> None:
    error, hint = refused(3, "dynamics", "train", "-c", run_dir / "run.toml", "--resume", "-s", override)
    assert override.partition("=")[0].rpartition(".")[2] in error
    assert "--overwrite" in hint
