"""Mistakes and damage: one line that says what is wrong, one that says what to do, nothing changed on disk."""

from __future__ import annotations

import shutil

import pytest
import torch

TRAININGS = ("tokenizer train", "dynamics train", "agent finetune", "imagine train")
TOKENIZER, DYNAMICS, AGENT, IMAGINATION = (
    f"{kind}/{kind}.safetensors" for kind in ("tokenizer", "dynamics", "agent", "imagination")
)


# ---------------------------------------------------------------- words and numbers

WORDS: list[tuple[str, str, str]] = [
    ("dynamics train -s dynamics.model.dimm=64", "unknown key dynamics.model.dimm", "write dynamics.model.dim"),
    ("dynamics train -s dynamics.train.steps=true", "dynamics.train.steps is true; expected an integer", "--set"),
    ("agent finetune -s agent.heads.mtp_length=0", "expected an integer from 1 to 64", "--set agent.heads.mtp_length"),
    ("eval rollout -s eval.contexts=1", "eval.contexts is 1; expected an integer at least 2", "--set eval.contexts"),
    ("imagine train -s imagine.horizon", '"imagine.horizon" is not `section.key=value`', "--set"),
    ("data record --append --episodes many", "Invalid value for '--episodes'", "--help"),
    ("data record --append --speed 3", "No such option", "--help"),
    ("data record -s tokenizer.loss.ignored_regions=[[0,0,9,40]] --out other", "inside the frame of 32x32", "--set"),
    ("eval rollout -s eval.context_length=5", "eval.context_length 5 is above dynamics.sampler", "--set"),
    ("imagine train -s imagine.context_length=5", "imagine.context_length 5 is above dynamics.sampler", "--set"),
    ("eval agent --agents random,randm", "agent 'randm' is not known", "--agents"),
    ("data record --policy expert --out other", "policy 'expert' is not known", "--policy"),
    ("data record --env Nope-v0 --out other", "there is no environment 'Nope-v0'", "gymnasium"),
    ("data record -s data.env_options={speed=3} --out other", "cannot be made with options", "data.env_options"),
    ("init . --preset tny", 'there is no preset "tny"', "--preset tiny"),
    ("init . --tokenizer cnn-smal", 'there is no tokenizer "cnn-smal"', "--tokenizer cnn-small"),
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
    monkeypatch.setattr("ahriuwu_cli.core.memory.available_memory", lambda device: 10_000)
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
