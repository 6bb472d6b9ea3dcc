"""A run that grows by the public commands: what was made before is used on, what is no part of it is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ahriuwu_cli.core.artifact import Header, Kind, read_header
from ahriuwu_cli.core.errors import TrainingInterrupted
from ahriuwu_cli.core.lineage import grown_from
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.dynamics.train import DynamicsStage
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.pipeline import demo, stages
from ahriuwu_cli.pipeline.chain import is_current
from ahriuwu_cli.pipeline.config import load_run
from ahriuwu_cli.pipeline.unfinished import training_left

WEIGHTS = ("tokenizer", "dynamics", "agent", "imagination")
KINDS: tuple[Kind, ...] = ("episodes", "tokenizer", "latents", "packed", "dynamics", "agent", "imagination")
NEW = 4
"""Episodes that are added to the 8 of the road."""


@pytest.fixture(autouse=True)
def _quick(no_tensorboard) -> None: ...


def place(folder: Path, kind: str) -> Path:
    return folder / kind / f"{kind}.safetensors" if kind in WEIGHTS else folder / kind


def header(folder: Path, kind: Kind) -> Header:
    return read_header(place(folder, kind), kind)


@pytest.fixture
def call(ahriuwu, run_dir) -> Callable[..., None]:
    """Run a command on the run; it must end well."""

    def run(command: str, *flags: str | Path) -> None:
        outcome = ahriuwu(*command.split(), "-c", run_dir / "run.toml", *flags)
        assert outcome.code == 0, f"{command}: {outcome.err}"

    return run


@pytest.fixture
def grow(call, run_dir) -> Callable[..., None]:
    """Let the run's own policy play on, and take the stages that follow."""

    def run(*commands: str) -> None:
        policy = place(run_dir, "imagination")
        call("data record", "--append", "--policy", policy, "--episodes", str(NEW))
        for command in commands:
            call(command)

    return run


def go(folder: Path) -> list[str]:
    """Run the demo; gives back the titles of what it showed."""
    shown: list[Report] = []
    demo.run_demo(folder, 0, shown.append)
    return [report.title for report in shown[:-1]]


def test_record_finetune_imagine_and_again(run_dir, grow, call, ahriuwu, road) -> None:
    """The loop by hand: the agent and its dream are of the grown data, tokenizer and dynamics of the first."""
    before = {kind: header(run_dir, kind) for kind in KINDS}
    grow("latents build", "latents pack", "agent finetune --overwrite", "imagine train --overwrite")
    after = {kind: header(run_dir, kind) for kind in KINDS}
    for kind in ("tokenizer", "dynamics"):
        assert after[kind] == before[kind]
    for kind in ("episodes", "latents", "packed"):
        assert grown_from(after[kind]) == [before[kind].fingerprint]
        assert len(after[kind].info["episodes"]) == 8 + NEW
    for kind in ("agent", "imagination"):  # they name the data that they were trained on
        wanted = {parent: after[parent].fingerprint for parent in KINDS[: KINDS.index(kind)]}
        assert after[kind].parents == wanted
        assert after[kind].fingerprint != before[kind].fingerprint
        assert after[kind].specs["latent"] == before["dynamics"].specs["latent"]
    store = EpisodeStore.open(run_dir / "episodes")
    assert {record.policy for record in store.episodes[8:]} == {"imagination"}
    assert store.ids("heldout")[:2] == before["tokenizer"].info["heldout_episodes"]  # pitfall 7

    call("eval rollout")
    call("eval agent")
    doctor = ahriuwu("doctor", run_dir, "--json")
    assert doctor.code == 0, doctor.data["problems"]
    notes = {(row["area"], row["check"]): row["found"] for row in doctor.data["checks"] if row["status"] == "note"}
    assert "made from an earlier part of it: episodes " in notes["tokenizer", "made from"]
    assert before["packed"].fingerprint in notes["dynamics", "made from"]
    assert ("agent", "made from") not in notes
    assert go(run_dir) == []


def test_a_store_that_has_grown_leaves_the_rest_as_it_was(run_dir, grow, refused, ahriuwu) -> None:
    """Nothing is stale; latents wait for their own command, and packing for them."""
    grow()
    run = load_run(run_dir / "run.toml")
    for kind in KINDS[1:]:
        assert is_current(run, place(run_dir, kind), kind)
        assert not is_current(run, place(run_dir, kind), kind, same=("episodes",))
    assert go(run_dir) == []
    error, hint = refused(3, "latents", "pack", "-c", run_dir / "run.toml")
    assert "8 of 12 episodes are encoded" in error
    assert "latents build" in hint
    doctor = ahriuwu("doctor", run_dir, "--json")
    assert doctor.code == 0, doctor.data["problems"]
    found = {(row["area"], row["check"]): row["found"] for row in doctor.data["checks"]}
    assert "before 4 episodes more came; `ahriuwu latents build` adds them" in found["latents", "counts"]
    assert found["tokenizer", "split"] == "trained without the 2 episodes held out then"


@pytest.mark.parametrize("command", ["agent finetune --overwrite", "imagine train --overwrite"])
def test_a_store_that_is_no_part_of_it_is_refused(run_dir, refused, call, road, tmp_path, ahriuwu, command) -> None:
    """Pitfall 7: data recorded anew is not grown, were it of the same game and as long."""
    other = tmp_path / "other"
    shutil.copytree(run_dir / "tokenizer", other / "tokenizer")
    shutil.copy(run_dir / "run.toml", other)
    for step in ("data record", "data record --append", "tokenizer train --overwrite", "latents build", "latents pack"):
        outcome = ahriuwu(*step.split(), "-c", other / "run.toml", "-s", "run.seed=3")
        assert outcome.code == 0, outcome.err
    for kind in ("episodes", "tokenizer", "latents", "packed"):
        shutil.rmtree(run_dir / kind)
    shutil.copytree(other / "packed", run_dir / "packed")
    error, hint = refused(3, *command.split(), "-c", run_dir / "run.toml")
    assert header(road.folder, "packed").fingerprint in error
    assert header(other, "packed").fingerprint in error
    assert hint


def test_a_split_ends_it(run_dir, grow, refused, ahriuwu) -> None:
    """Pitfall 7: a new split of a grown store may hold out what was trained on."""
    before = header(run_dir, "episodes").fingerprint
    grow("latents build", "latents pack")
    assert ahriuwu("data", "split", "-c", run_dir / "run.toml", "--seed", "5").code == 0
    error, _ = refused(3, "agent", "finetune", "--overwrite", "-c", run_dir / "run.toml")
    assert before in error
    assert header(run_dir, "episodes").fingerprint in error


def test_a_training_does_not_go_on_with_other_data(run_dir, grow, stop_at, monkeypatch) -> None:
    """Pitfall 14: what was begun on the small data and not finished is begun anew on the grown one."""
    run = load_run(run_dir / "run.toml", ["dynamics.train.steps=5"])

    def go_on() -> None:
        for stage in training_left(run, "dynamics", run.config.dynamics.train, stages.train_dynamics):
            stage()

    stop_at(DynamicsStage, 4)
    with pytest.raises(TrainingInterrupted, match="step 4 of 5"):
        go_on()
    stop_at(DynamicsStage, 0)
    grow("latents build", "latents pack")
    loss, steps = DynamicsStage.loss, []

    def counted(self: DynamicsStage, step: int, batch: object) -> object:
        steps.append(step)
        return loss(self, step, batch)

    monkeypatch.setattr(DynamicsStage, "loss", counted)
    go_on()
    assert steps == [0, 1, 2, 3, 4]
    assert header(run_dir, "dynamics").parents["packed"] == header(run_dir, "packed").fingerprint
