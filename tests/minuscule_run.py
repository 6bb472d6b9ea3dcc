"""Fixtures: the real command line in this process, and one finished run of minuscule models that tests copy."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ahriuwu_cli.cli.main import run
from ahriuwu_cli.pipeline.config import load_run
from ahriuwu_cli.pipeline.template import render_config

MINUSCULE = (
    "run.device='cpu'",
    "run.precision='fp32'",
    "run.threads=1",
    "data.episodes=8",
    "data.noise=0.1",
    "data.max_episode_steps=24",
    "data.heldout_fraction=0.25",
    'tokenizer.model={type="cnn", patch=8, dim_token=4, base_channels=4, blocks_per_stage=0}',
    "tokenizer.train={steps=3, batch_size=4, learning_rate=1e-3}",
    "latents.batch_size=8",
    "dynamics.model={dim=32, num_layers=2, num_heads=2, num_kv_heads=1, time_every=2, num_registers=1, k_max=4}",
    "dynamics.sampler={steps=2, context_length=4}",
    "dynamics.short_length=5",
    "dynamics.long_length=6",
    "dynamics.train={steps=3, batch_size=2, learning_rate=1e-3}",
    "agent.heads={dim_hidden=16, mtp_length=2, num_buckets=11}",
    "agent.batch_length=6",
    "agent.train={steps=3, batch_size=4, learning_rate=1e-3}",
    "imagine.context_length=4",
    "imagine.horizon=3",
    "imagine.sampling_steps=2",
    "imagine.train={steps=2, batch_size=2, learning_rate=1e-3}",
    "eval.contexts=3",
    "eval.context_length=4",
    "eval.horizon=4",
    "eval.gif_rows=2",
    "eval.episodes=3",
)
"""What makes the preset tiny a matter of seconds: `section.key=value` overrides."""

ROAD = (
    "data record",
    "tokenizer train",
    "latents build",
    "latents pack",
    "dynamics train",
    "agent finetune",
    "imagine train",
    "eval rollout",
    "eval agent",
)
"""The commands of the road after `init`, in order."""


@dataclass(frozen=True)
class Outcome:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Stdout as JSON."""
        return json.loads(self.out)


def _ahriuwu(*arguments: str | Path) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


def _tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="session")
def ahriuwu() -> Callable[..., Outcome]:
    """Run `ahriuwu ARGUMENTS...` and give back its exit code and output."""
    return _ahriuwu


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, str]]:
    """Hash every file below a folder: equal dicts mean that nothing on disk has changed."""
    return _tree


@pytest.fixture(scope="session")
def minuscule() -> list[str]:
    """The overrides as command line arguments."""
    return [part for override in MINUSCULE for part in ("--set", override)]


@dataclass(frozen=True)
class Road:
    """A run that has gone the whole road: its folder and what each command said, `init` first."""

    folder: Path
    said: dict[str, Outcome]


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory, minuscule: list[str]) -> Road:
    """Go the road once, by the public commands. Read only: copy it (`run_dir`) to change something."""
    folder = tmp_path_factory.mktemp("road") / "run"
    said = {"init": _ahriuwu("init", folder, "--preset", "tiny", "--json")}
    for command in ROAD:
        said[command] = _ahriuwu(*command.split(), "-c", folder / "run.toml", *minuscule, "--json")
        assert said[command].code == 0, f"{command}: {said[command].err}"
    return Road(folder, said)


@pytest.fixture
def run_dir(road: Road, tmp_path: Path) -> Path:
    """A copy of the finished road whose run.toml has the overrides in it."""
    folder = tmp_path / "run"
    shutil.copytree(road.folder, folder)
    config = folder / "run.toml"
    config.write_text(render_config(load_run(config, MINUSCULE).config), encoding="utf-8")
    return folder


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
