"""A small run that has gone the whole road, a copy of it to damage, and the command that looks at it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from torch import Tensor
from typer.testing import CliRunner

from ahriuwu_cli.cli.main import app
from ahriuwu_cli.core.artifact import Header, Kind, read_header, write_manifest, write_weights
from ahriuwu_cli.core.tensorfile import read_tensors
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.config import Run, preset_run
from ahriuwu_cli.pipeline.template import render_config

SMALL = (
    "run.device='cpu'",
    "run.precision='fp32'",
    "run.threads=1",
    "data.episodes=6",
    "data.noise=0.1",
    "data.max_episode_steps=20",
    "data.heldout_fraction=0.34",
    'tokenizer.model={type="cnn", patch=8, dim_token=4, base_channels=8, blocks_per_stage=0}',
    "tokenizer.train={steps=3, batch_size=4, learning_rate=1e-2, warmup_steps=3}",
    "latents.shard_frames=60",
    "dynamics.model={dim=16, num_layers=2, num_heads=2, num_kv_heads=1, time_every=2, num_registers=1, k_max=4}",
    "dynamics.objective={image_fraction=0.0}",
    "dynamics.sampler={steps=2, context_length=4}",
    "dynamics.short_length=5",
    "dynamics.long_length=6",
    "dynamics.train={steps=3, batch_size=4, learning_rate=1e-3}",
    "agent.heads={dim_hidden=8, mtp_length=2, num_buckets=11}",
    "agent.batch_length=6",
    "agent.train={steps=3, batch_size=4, learning_rate=1e-3}",
    "imagine.context_length=4",
    "imagine.horizon=3",
    "imagine.sampling_steps=2",
    "imagine.train={steps=2, batch_size=2, learning_rate=1e-3}",
    "eval.contexts=2",
    "eval.context_length=4",
    "eval.horizon=4",
    "eval.gif_rows=1",
    "eval.episodes=2",
)


@pytest.fixture(scope="package")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has gone the whole road. Read only."""
    run = preset_run("tiny", tmp_path_factory.mktemp("doctor") / "run", SMALL)
    run.folder.mkdir()
    (run.folder / "run.toml").write_text(render_config(run.config), encoding="utf-8")
    stages.record(run, append=False)
    stages.train_tokenizer(run)
    stages.build_latents(run)
    stages.pack_latents(run)
    stages.train_dynamics(run)
    stages.finetune_agent(run)
    stages.train_imagination(run)
    stages.evaluate_rollout(run)
    stages.evaluate_agent(run)
    return run.folder


@pytest.fixture
def run(healthy: Path, tmp_path: Path) -> Run:
    """A copy of it, to be damaged."""
    shutil.copytree(healthy, tmp_path / "run")
    return preset_run("tiny", tmp_path / "run", SMALL)


@pytest.fixture
def with_settings() -> Callable[..., Run]:
    """The same run with other settings in its run.toml."""

    def change(run: Run, *overrides: str) -> Run:
        changed = preset_run("tiny", run.folder, (*SMALL, *overrides))
        (run.folder / "run.toml").write_text(render_config(changed.config), encoding="utf-8")
        return changed

    return change


class Row(NamedTuple):
    """A finding without its status."""

    area: str
    check: str
    found: str
    hint: str


@dataclass(frozen=True)
class Answer:
    """What `ahriuwu doctor RUN_DIR --json` said."""

    code: int
    problems: list[Row]
    notes: list[Row]
    fine: list[tuple[str, str]]

    def note(self, area: str, check: str) -> str:
        """What one note says."""
        [found] = [row.found for row in self.notes if (row.area, row.check) == (area, check)]
        return found

    @property
    def areas(self) -> set[str]:
        """Everything that was looked at."""
        return {area for area, *_ in (*self.problems, *self.notes, *self.fine)}


@pytest.fixture
def doctor() -> Callable[[Run], Answer]:
    """Run the command on a run. Its exit code must go with what it found, every problem must have a hint."""
    return _doctor


def _doctor(run: Run) -> Answer:
    result = CliRunner().invoke(app, ["doctor", str(run.folder), "--json"], catch_exceptions=False)
    data = json.loads(result.stdout)
    checks = data["checks"]
    assert data["problems"] == [check for check in checks if check["status"] == "PROBLEM"]
    assert sum(data["counts"].values()) == len(checks)
    assert result.exit_code == (3 if data["problems"] else 0)

    def rows(status: str) -> Iterator[Row]:
        for check in checks:
            if check["status"] == status:
                assert check["hint"] if status == "PROBLEM" else status == "note" or not check["hint"], check
                yield Row(check["area"], check["check"], check["found"], check["hint"])

    fine = [(row.area, row.check) for row in rows("ok")]
    return Answer(result.exit_code, list(rows("PROBLEM")), list(rows("note")), fine)


@pytest.fixture
def sign() -> Callable[..., Header]:
    """Change an artifact in place and write it anew with the fingerprint of what it is now."""
    return _sign


def _sign(
    path: Path,
    *,
    tensors: Callable[[dict[str, Tensor]], object] | None = None,
    header: Callable[[dict[str, Any]], object] | None = None,
) -> Header:
    kinds: tuple[Kind, ...] = ("episodes", "latents", "packed", "tokenizer", "dynamics", "agent", "imagination")
    found = read_header(path, kinds)
    fields = found.model_dump(include={"config", "specs", "parents", "info"})
    if header is not None:
        header(fields)
    if path.is_dir():
        return write_manifest(path, found.kind, **fields)
    values = read_tensors(path)
    if tensors is not None:
        tensors(values)
    return write_weights(path, found.kind, values, **fields)


@pytest.fixture
def keep_until() -> Callable[[Run, str], None]:
    """Remove everything made after one stage, so that its own rows stand alone."""

    def remove(run: Run, last: str) -> None:
        order = ["episodes", "tokenizer", "latents", "packed", "dynamics", "agent", "imagination", "evaluation"]
        for name in order[order.index(last) + 1 :]:
            shutil.rmtree(run.folder / name)

    return remove
