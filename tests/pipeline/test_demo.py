"""`demo`: the road in one call, skipped where it is done, gone on with where it stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.errors import ArtifactError, InputError, TrainingInterrupted
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.dynamics.train import DynamicsStage
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.pipeline import demo
from ahriuwu_cli.pipeline.config import load_run, preset_run
from ahriuwu_cli.pipeline.template import render_config

STAGES = ["tokenizer", "latents", "packed latents", "dynamics", "agent", "imagination", "dream of 4 frames"]
WEIGHTS = ("tokenizer", "dynamics", "agent", "imagination")


def go(folder: Path, seed: int = 0) -> list[str]:
    """Run the demo; gives back the titles of what it showed, the last word left out."""
    shown: list[Report] = []
    demo.run_demo(folder, seed, shown.append)
    assert shown[-1].title == "demo finished"
    return [report.title for report in shown[:-1]]


def fingerprints(folder: Path) -> dict[str, str]:
    return {kind: read_header(folder / kind / f"{kind}.safetensors", kind).fingerprint for kind in WEIGHTS}


@pytest.fixture
def empty_dir(run_dir, tmp_path) -> Path:
    """A folder with nothing but the minuscule run.toml."""
    folder = tmp_path / "demo"
    folder.mkdir()
    shutil.copyfile(run_dir / "run.toml", folder / "run.toml")
    return folder


def test_the_road_in_one_call(ahriuwu, empty_dir, road) -> None:
    """Pitfall 26: all of it on the CPU. The separate commands give the very same weights."""
    outcome = ahriuwu("demo", "--dir", empty_dir)
    assert outcome.code == 0, outcome.err
    places = [outcome.out.index(f"\n{title}\n") for title in STAGES]
    assert outcome.out.startswith("Recorded 8 episodes")
    assert places == sorted(places)
    assert f"ahriuwu doctor {empty_dir}" in outcome.out
    assert str(empty_dir / "evaluation" / "rollout" / "rollout.gif") in outcome.out
    assert fingerprints(empty_dir) == fingerprints(road.folder)


def test_a_second_call_changes_nothing(run_dir, tree) -> None:
    before = tree(run_dir)
    assert go(run_dir) == []
    assert tree(run_dir) == before


def test_further_players_do_not_call_for_another_evaluation(run_dir) -> None:
    results = run_dir / "evaluation" / "agent" / "agents.json"
    facts = json.loads(results.read_text())
    results.write_text(json.dumps(facts | {"fingerprints": {**facts["fingerprints"], "scratch": "0" * 16}}))
    assert go(run_dir) == []
    results.write_text(json.dumps(facts | {"fingerprints": {**facts["fingerprints"], "bc": "0" * 16}}))
    assert go(run_dir) == ["Return per episode in the real environment"]


def test_another_seed_is_refused(run_dir, tree) -> None:
    before = tree(run_dir)
    with pytest.raises(InputError, match="was made with seed 0, not 1") as caught:
        go(run_dir, seed=1)
    assert "--dir" in caught.value.hint
    assert tree(run_dir) == before


def test_the_first_call_writes_the_preset_with_the_seed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(demo, "_left_to_do", lambda run: iter(()))
    assert go(tmp_path / "new", seed=7) == ["New run"]
    assert load_run(tmp_path / "new" / "run.toml").config == preset_run("tiny", tmp_path, ["run.seed=7"]).config


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("kind", WEIGHTS)
def test_a_lost_artifact_comes_back_from_its_state(run_dir, tree, kind) -> None:
    before = fingerprints(run_dir)
    rest = {name: value for name, value in tree(run_dir).items() if Path(name).parts[0] != kind}
    (run_dir / kind / f"{kind}.safetensors").unlink()
    assert go(run_dir) == [kind]
    assert fingerprints(run_dir) == before
    assert {name: value for name, value in tree(run_dir).items() if Path(name).parts[0] != kind} == rest


@pytest.mark.parametrize(
    ("lost", "titles"),
    [
        ("latents", ["latents"]),
        ("packed", ["packed latents"]),
        ("dynamics", ["dynamics"]),
        ("evaluation/rollout", ["dream of 4 frames"]),
        ("evaluation/agent", ["Return per episode in the real environment"]),
    ],
)
def test_a_lost_folder_is_made_again_and_nothing_else(run_dir, lost, titles) -> None:
    before = fingerprints(run_dir)
    shutil.rmtree(run_dir / lost)
    assert go(run_dir) == titles
    assert fingerprints(run_dir) == before


def test_recording_goes_on(ahriuwu, empty_dir, road) -> None:
    assert ahriuwu("data", "record", "-c", empty_dir / "run.toml", "--episodes", "5").code == 0
    demo_run = load_run(empty_dir / "run.toml")
    next(demo._left_to_do(demo_run))()
    store, whole = EpisodeStore.open(empty_dir / "episodes"), EpisodeStore.open(road.folder / "episodes")
    assert [record.sha256 for record in store.episodes] == [record.sha256 for record in whole.episodes]


def test_an_interrupted_training_goes_on_to_the_same_end(run_dir, stop_at, monkeypatch, road) -> None:
    """Pitfall 14: stopped and gone on with, the weights are those of a run without a break."""
    for kind in ("dynamics", "agent", "imagination", "evaluation"):
        shutil.rmtree(run_dir / kind)
    stop_at(DynamicsStage, 1)
    with pytest.raises(TrainingInterrupted, match="stopped at step 1 of 3") as caught:
        go(run_dir)
    stop_at(DynamicsStage, 0)
    loss, steps = DynamicsStage.loss, []

    def counted(self: DynamicsStage, step: int, batch: object) -> object:
        steps.append(step)
        return loss(self, step, batch)

    monkeypatch.setattr(DynamicsStage, "loss", counted)
    assert caught.value.hint == "run the same command again to go on"
    header = read_header(run_dir / "dynamics" / "dynamics.safetensors", "dynamics")
    assert (header.info["steps"], header.info["finished"]) == (1, False)
    assert go(run_dir) == [*STAGES[3:], "Return per episode in the real environment"]
    assert steps == [1, 2]
    assert fingerprints(run_dir) == fingerprints(road.folder)


def test_more_steps_in_run_toml_are_gone_on_with(run_dir) -> None:
    config = run_dir / "run.toml"
    config.write_text(render_config(load_run(config, ["imagine.train.steps=4"]).config))
    assert go(run_dir) == ["imagination", "Return per episode in the real environment"]
    header = read_header(run_dir / "imagination" / "imagination.safetensors", "imagination")
    assert header.info["steps"] == 4


def test_what_stands_on_a_changed_parent_is_made_again(ahriuwu, run_dir, road) -> None:
    """Nothing is called finished that was made from what is no longer there."""
    again = ahriuwu("tokenizer", "train", "-c", run_dir / "run.toml", "-s", "run.seed=1", "--overwrite", "--json")
    assert go(run_dir) == [*STAGES[1:], "Return per episode in the real environment"]
    now, before = fingerprints(run_dir), fingerprints(road.folder)
    assert now["tokenizer"] == again.data["fingerprint"]
    assert all(now[kind] != before[kind] for kind in WEIGHTS)
    parents = read_header(run_dir / "imagination" / "imagination.safetensors", "imagination").parents
    assert parents["tokenizer"] == now["tokenizer"]
    assert go(run_dir) == []


def test_a_damaged_artifact_is_told_not_replaced(run_dir, tree) -> None:
    path = run_dir / "agent" / "agent.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    before = tree(run_dir)
    with pytest.raises(ArtifactError, match=r"agent\.safetensors cannot be read"):
        go(run_dir)
    assert tree(run_dir) == before
