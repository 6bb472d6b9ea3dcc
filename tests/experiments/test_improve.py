"""`improve`: each round records with the policy before it and goes on from the same dynamics; nothing is done twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from ahriuwu_cli.agent.train import AgentStage
from ahriuwu_cli.core.artifact import Header, Kind, read_header
from ahriuwu_cli.core.errors import ConfigError, InputError, TrainingInterrupted
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.evaluation.statistics import paired_test
from ahriuwu_cli.experiments.improve import Request, run_improvement
from ahriuwu_cli.experiments.improve.plan import load_plan
from ahriuwu_cli.experiments.improve.table import make_table
from ahriuwu_cli.experiments.plans import read_json
from ahriuwu_cli.pipeline.config import load_run
from ahriuwu_cli.pipeline.template import render_config
from ahriuwu_cli.sources.writer import RecordingWriter

EXAMPLE = Path(__file__).parents[2] / "examples" / "improve.toml"

PLAN = """
run = "run/run.toml"
rounds = 1
episodes = 3
temperature = 2.0
evaluate = 3
overrides = ["agent.train.steps=2"]
"""
BASE = 8
"""Episodes of the base run."""


@pytest.fixture(autouse=True)
def _quick(no_tensorboard) -> None: ...


@pytest.fixture(scope="module")
def finished(road, minuscule, tmp_path_factory) -> Path:
    """A folder with a base run (`run`), its improve.toml, and one round done in `improved`. Read only."""
    root = tmp_path_factory.mktemp("improve")
    shutil.copytree(road.folder, root / "run")
    config = root / "run" / "run.toml"
    config.write_text(render_config(load_run(config, minuscule[1::2]).config), encoding="utf-8")
    (root / "improve.toml").write_text(PLAN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ahriuwu_cli.core.training.sinks._open_tensorboard", lambda folder, step: None)
        run_improvement(Request(root / "improve.toml", root / "improved"))
    return root


@pytest.fixture
def root(finished, tmp_path) -> Path:
    """A copy of it."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def improve(root) -> Callable[..., Report]:
    """Run the plan again."""

    def call(**asked) -> Report:
        return run_improvement(Request(root / "improve.toml", **({"folder": root / "improved"} | asked)))

    return call


@pytest.fixture
def change(root) -> Callable[[str, str], None]:
    """Change the plan's file."""

    def edit(before: str, after: str) -> None:
        text = (root / "improve.toml").read_text()
        assert before in text
        (root / "improve.toml").write_text(text.replace(before, after))

    return edit


def header(folder: Path, kind: Kind, number: int | None = None) -> Header:
    place = folder if number is None else folder / f"round-{number}"
    return read_header(place / kind / f"{kind}.safetensors", kind)


# ---------------------------------------------------------------- the work


def test_a_round(finished, road, tree) -> None:
    """Pitfall 35: each round is compared with the one before it on paired seeds in the real game."""
    base, folder = finished / "run", finished / "improved"
    untouched = tree(road.folder)
    assert {name: value for name, value in tree(base).items() if name != "run.toml"} == {
        name: value for name, value in untouched.items() if name != "run.toml"
    }
    store = EpisodeStore.open(folder / "episodes")
    assert store.episodes[:BASE] == EpisodeStore.open(base / "episodes").episodes
    first, new = header(folder, "imagination", 0), header(folder, "agent", 1)
    assert first.fingerprint == header(base, "imagination").fingerprint
    assert [record.policy for record in store.episodes[BASE:]] == [f"round-0 {first.fingerprint[:8]}"] * 3
    packed = read_header(folder / "packed", "packed").fingerprint
    assert new.parents["packed"] == packed != header(folder, "agent", 0).parents["packed"]
    assert new.parents["dynamics"] == header(base, "dynamics").fingerprint
    assert new.parents["tokenizer"] == header(base, "tokenizer").fingerprint
    assert (new.info["steps"], header(folder, "agent", 0).info["steps"]) == (2, 3)  # overrides of later rounds
    assert header(folder, "imagination", 1).parents["agent"] == new.fingerprint

    facts = json.loads((folder / "results.json").read_text())
    rounds = facts["rounds"]
    assert facts["missing"] == []
    assert [entry["episodes"] for entry in rounds] == [BASE, BASE + 3]
    for entry, records in zip(rounds, (store.episodes[:BASE], store.episodes[BASE:]), strict=True):
        assert entry["recorded"]["episodes"] == len(records)
        assert entry["recorded"]["mean_return"] == pytest.approx(fmean(record.total_reward for record in records))
    said = json.loads((folder / "round-1" / "evaluation" / "agent" / "agents.json").read_text())
    assert list(said["agents"]) == ["bc-0", "imagination-0", "bc-1", "imagination-1"]
    assert not {record.seed for record in store.episodes} & set(said["environment"]["seeds"])
    for name, key in (("imagination-0", "over_imagination_before"), ("bc-0", "over_first_bc")):
        wanted = paired_test(said["agents"]["imagination-1"]["returns"], said["agents"][name]["returns"], 0)
        assert (rounds[1][key]["difference"], rounds[1][key]["p_value"]) == (wanted.difference, wanted.p_value)
    assert rounds[0]["over_imagination_before"] is None
    assert rounds[1]["bc"]["mean"] == pytest.approx(fmean(said["agents"]["bc-1"]["returns"]))
    assert (folder / "table.md").read_text().count("\n| ") == 1 + 1 + 2


def test_a_second_call_does_nothing(ahriuwu, root, tree) -> None:
    folder = root / "improved"
    before = tree(folder)
    facts = json.loads((folder / "results.json").read_text())
    command = ("improve", "-c", root / "improve.toml", "--dir", folder)
    again = ahriuwu(*command, "--json")
    assert (again.code, again.data, again.err) == (0, facts, "")
    after = tree(folder)
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} <= {"table.md"}
    table = ahriuwu(*command, "--table-only")
    assert f"{BASE + 3} (3 new)" in table.out
    doctor = ahriuwu("doctor", folder, "--json")
    assert doctor.code == 0, doctor.data["problems"]


def test_an_interrupted_round_goes_on_to_the_same_end(root, improve, stop_at, finished, monkeypatch) -> None:
    """Pitfall 14: stopped while recording and while finetuning, all is as without a break."""
    folder = root / "new"
    number = RecordingWriter.add

    def interrupt(self: RecordingWriter, index: int, episode: object) -> None:
        if index == 2:
            raise KeyboardInterrupt
        number(self, index, episode)

    with monkeypatch.context() as patch:
        patch.setattr(RecordingWriter, "add", interrupt)
        with pytest.raises(TrainingInterrupted, match="2 of 3 episodes") as caught:
            improve(folder=folder)
    assert caught.value.hint == "run the same command again to go on"
    assert len(EpisodeStore.open(folder / "episodes").episodes) == BASE + 2
    stop_at(AgentStage, 1)
    with pytest.raises(TrainingInterrupted, match="stopped at step 1 of 2"):
        improve(folder=folder)
    stop_at(AgentStage, 0)
    improve(folder=folder)
    kept = [EpisodeStore.open(place / "episodes").episodes for place in (folder, finished / "improved")]
    assert [record.sha256 for record in kept[0]] == [record.sha256 for record in kept[1]]
    assert read_json(folder / "round-1" / "data.json")["recorded"] == 3


def test_more_rounds_go_on_from_the_last(root, improve) -> None:
    before = header(root / "improved", "agent", 1)
    report = improve(rounds=2)
    assert [entry["episodes"] for entry in report.data["rounds"]] == [BASE, BASE + 3, BASE + 6]
    assert header(root / "improved", "agent", 1) == before
    second = EpisodeStore.open(root / "improved" / "episodes").episodes[-1]
    assert second.policy == f"round-1 {header(root / 'improved', 'imagination', 1).fingerprint[:8]}"


# ---------------------------------------------------------------- what changed since


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"overrides": ["agent.train.steps=4"]}, "round 0 would have to be done anew from its agent"),
        ({"overrides": ["tokenizer.train.steps=4"]}, "round 0 would have to be done anew from its tokenizer"),
        ({"overrides": ["run.seed=4"]}, "round 0 would have to be done anew"),
    ],
)
def test_a_round_that_others_stand_on_is_not_done_anew(improve, root, tree, asked, message) -> None:
    """What later rounds recorded came of it: another config needs another folder."""
    before = tree(root / "improved")
    with pytest.raises(InputError, match=message) as caught:
        improve(**asked)
    assert "--dir" in caught.value.hint
    assert tree(root / "improved") == before


@pytest.mark.parametrize(("before", "after"), [("episodes = 3", "episodes = 4"), ("= 2.0", "= 1.5")])
def test_another_recording_needs_another_folder(improve, change, before, after) -> None:
    change(before, after)
    with pytest.raises(InputError, match="round 1 would have to be done anew from its recording"):
        improve()


def test_the_last_round_can_be_done_anew(improve, change, root) -> None:
    change("agent.train.steps=2", "agent.train.steps=4")
    before = header(root / "improved", "imagination", 1).fingerprint
    store = EpisodeStore.open(root / "improved" / "episodes").fingerprint
    improve()
    assert header(root / "improved", "agent", 1).info["steps"] == 4
    assert header(root / "improved", "imagination", 1).fingerprint != before
    assert EpisodeStore.open(root / "improved" / "episodes").fingerprint == store


# ---------------------------------------------------------------- plans and tables


@pytest.mark.parametrize(
    ("before", "after", "error", "message"),
    [
        ("agent.train.steps=2", "dynamics.train.steps=2", ConfigError, r"overrides set dynamics\.train\.steps"),
        ("agent.train.steps=2", "agent.train.stepz=2", ConfigError, r"unknown key agent\.train\.stepz"),
        ("rounds = 1", "rounds = 0", ConfigError, "rounds is 0"),
        ("evaluate", "evaluat", ConfigError, "unknown key evaluat; nearest valid key: evaluate"),
        ("run/run.toml", "none/run.toml", InputError, "does not exist"),
    ],
)
def test_a_plan_that_cannot_be_used(improve, change, before, after, error, message) -> None:
    change(before, after)
    with pytest.raises(error, match=message):
        improve()


def test_the_base_runs_own_folder_is_refused(improve, root, tree) -> None:
    before = tree(root)
    with pytest.raises(InputError, match="folder of the base run"):
        improve(folder=root / "run")
    assert tree(root) == before


def test_the_example_is_a_plan_for_the_built_in_game() -> None:
    plan = load_plan(EXAMPLE, None, None, ())
    assert plan.folder == Path("runs") / f"improve-{plan.base.config.run.name}"
    assert plan.base.folder == EXAMPLE.parent / "bricks"
    assert len(plan.rounds) == plan.settings.rounds + 1
    assert {this.run.dynamics for this in plan.rounds} == {plan.folder / "dynamics" / "dynamics.safetensors"}
    assert all(this.run.config.eval.episodes == plan.settings.evaluate for this in plan.rounds)
    named = {line.partition("=")[0].strip() for line in EXAMPLE.read_text().splitlines() if not line.startswith("#")}
    assert named - {""} == set(type(plan.settings).model_fields)


def test_numbers_by_hand(finished) -> None:
    plan = load_plan(finished / "improve.toml", finished / "improved", 2, ())
    agent = {"mean": 2.0, "low": 1.0, "high": 3.0}
    gain = {"difference": 0.5, "low": -0.25, "high": 1.25, "p_value": 0.04, "n": 3}
    data = [{"asked": {"episodes": 8 + 3 * n}, "recorded": 8 - 5 * n, "mean_return": 1.0 + n} for n in range(2)]
    first = {"agents": {"bc-0": agent, "imagination-0": agent}, "over": {"bc-0": gain}}
    report = make_table(plan, [*data, {}], [first, None, None])
    assert report.rows[0] == (
        "0", "8 (8 new)", "1.00", "2.00 (1.00 to 3.00)", "2.00 (1.00 to 3.00)", "",
        "+0.50 (-0.25 to +1.25), p = 0.04",
    )  # fmt: skip
    assert report.rows[1] == ("1", "11 (3 new)", "2.00", "", "", "", "")
    assert {len(row) for row in report.rows} == {len(report.columns)}
    assert report.data["missing"] == [1, 2]
