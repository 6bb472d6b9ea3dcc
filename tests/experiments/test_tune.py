"""`tune`: trials asked for once, gone on with where they stopped, shared by processes; what a plan may not ask for."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from ahriuwu_cli.agent.scratch import ScratchStage
from ahriuwu_cli.agent.train import AgentStage
from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.errors import ArtifactError, ConfigError, InputError, TrainingError, TrainingInterrupted
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.dynamics.train import DynamicsStage
from ahriuwu_cli.evaluation.seal import seal_fault
from ahriuwu_cli.pipeline.config import load_run

TUNE = """
run = "run.toml"
stage = "scratch"
trials = 3
seed = 7

[keys]
"agent.train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }
agent.train.batch_size = { low = 2, high = 6, step = 2 }
"agent.train.schedule" = { choices = ["constant", "wsd"] }
"""

optuna = pytest.importorskip("optuna")


@pytest.fixture(autouse=True)
def _quick(no_tensorboard, monkeypatch) -> None:
    """No estimates of memory, and no pictures where they are not what is tested: they take most of the time."""
    monkeypatch.setattr("ahriuwu_cli.agent.scratch.check_agent_memory", lambda *arguments: None)
    monkeypatch.setattr("ahriuwu_cli.agent.train.check_agent_memory", lambda *arguments: None)
    monkeypatch.setattr("ahriuwu_cli.dynamics.train.check_dynamics_memory", lambda *arguments: None)


@pytest.fixture
def no_picture(monkeypatch) -> None:
    monkeypatch.setattr("ahriuwu_cli.experiments.tune.command.plot_search", lambda *arguments: None)


@pytest.fixture
def plan_file(run_dir) -> Path:
    """A tune.toml beside the finished minuscule run, whose recordings and latents its trials share."""
    path = run_dir / "tune.toml"
    path.write_text(TUNE)
    return path


@pytest.fixture
def tune(plan_file, no_picture) -> Callable[..., Report]:
    """Run the search in a folder beside the run's."""
    from ahriuwu_cli.experiments.tune import Request, run_tune

    def call(text: str = "", place: str = "tune", **asked) -> Report:
        if text:
            plan_file.write_text(text)
        return run_tune(Request(config=plan_file, folder=plan_file.parents[1] / place, **asked))

    return call


@pytest.fixture
def steps(monkeypatch) -> list[str]:
    """The stage of every training step, in order."""
    made: list[str] = []
    for stage in (ScratchStage, AgentStage, DynamicsStage):

        def counted(self, step, batch, original=stage.loss) -> object:
            made.append(type(self).__name__.removesuffix("Stage").lower())
            return original(self, step, batch)

        monkeypatch.setattr(stage, "loss", counted)
    return made


def facts(report: Report) -> list[tuple[object, ...]]:
    """What does not depend on how long it took."""
    return [(row["trial"], row["values"], row["value"], row["state"]) for row in report.data["rows"]]


# ---------------------------------------------------------------- the work


def test_one_call_makes_trials_table_and_picture_and_a_second_one_nothing(ahriuwu, plan_file, tree) -> None:
    folder, run_dir = plan_file.parents[1] / "tune", plan_file.parent
    before = tree(run_dir)
    outcome = ahriuwu("tune", "-c", plan_file, "--dir", folder, "--json")
    assert outcome.code == 0, outcome.err
    rows = outcome.data["rows"]
    assert sorted(row["trial"] for row in rows) == [0, 1, 2]
    assert [row["value"] for row in rows] == sorted(row["value"] for row in rows)  # the best first
    assert len({row["value"] for row in rows}) == 3
    [given] = [row for row in rows if row["is_given"]]
    config = load_run(run_dir / "run.toml").config.agent.train
    assert given["trial"] == 0  # so that a search never ends below what there was
    assert given["values"] == {
        "agent.train.learning_rate": config.learning_rate,
        "agent.train.batch_size": config.batch_size,
        "agent.train.schedule": config.schedule,
    }
    for row in rows:
        header = read_header(folder / "trials" / f"{row['trial']:03d}" / "scratch" / "agent.safetensors", "agent")
        assert header.info["heldout"]["heldout_policy"] == row["value"]
        settings = header.config["agent"]["train"]
        assert {f"agent.train.{name}": settings[name] for name in ("learning_rate", "batch_size", "schedule")} == (
            row["values"]
        )
        assert row["cpu_minutes"] > 0
    assert json.loads((folder / "results.json").read_text()) == outcome.data
    assert seal_fault(outcome.data) is None
    assert (folder / "table.md").read_text().count("\n| ") == 1 + 1 + 3
    assert (folder / "tune.png").read_bytes().startswith(b"\x89PNG")
    best = tomllib.loads((folder / "best.toml").read_text())["agent"]["train"]
    assert {f"agent.train.{name}": value for name, value in best.items()} == rows[0]["values"]
    assert tree(run_dir) == before  # the run itself is as it was

    made = tree(folder / "trials")
    again = ahriuwu("tune", "-c", plan_file, "--dir", folder, "--json")
    assert (again.data, again.err) == (outcome.data, "")
    assert tree(folder / "trials") == made
    assert "3 trials done, 0 failed, 0 of 3 to come" in ahriuwu("tune", "-c", plan_file, "--dir", folder).out


def test_a_stopped_trial_is_gone_on_with_to_the_same_end(tune, plan_file, stop_at, tmp_path, monkeypatch) -> None:
    """Pitfall 14: stopped twice, on other trials, the search is the one without a break."""
    whole = facts(tune())
    (plan_file.parents[1] / "tune").rename(tmp_path / "unbroken")
    original = ScratchStage.loss
    for _ in range(2):
        stop_at(ScratchStage, 2)
        with pytest.raises(TrainingInterrupted, match="stopped at step 2 of 3") as caught:
            tune()
        assert caught.value.hint == "run the same command again to go on"
        monkeypatch.setattr(ScratchStage, "loss", original)
    report = tune(table_only=True)
    assert report.data["missing"] == 2
    assert [row[-1] for row in report.rows][-1] == "not finished"
    assert facts(tune()) == whole


def test_more_trials_are_added_to_those_there_are(tune, steps) -> None:
    first = facts(tune(TUNE.replace("trials = 3", "trials = 2")))
    assert len(steps) == 2 * 3
    steps.clear()
    second = facts(tune(TUNE))
    assert len(steps) == 3
    assert [fact for fact in second if fact[0] < 2] == first


def test_processes_share_the_trials(tune, plan_file, capsys) -> None:
    folder = plan_file.parents[1] / "tune"
    code = "import sys; from ahriuwu_cli.cli.main import run; sys.exit(run())"
    other = subprocess.Popen(
        [sys.executable, "-c", code, "tune", "-c", str(plan_file), "--dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (folder / "trials").exists() and other.poll() is None:
        time.sleep(0.01)
    tune()
    mine, (_, its) = capsys.readouterr().err, other.communicate(timeout=120)
    assert other.returncode == 0, its
    results = json.loads((folder / "results.json").read_text())  # whoever ended last has all of them
    assert sorted(row["trial"] for row in results["rows"]) == [0, 1, 2]
    assert results["missing"] == 0
    begun = [line for line in (mine + its).splitlines() if line.startswith("trial") and "=" in line]
    assert len(begun) == 3  # every trial by one of them
    assert len({tuple(row["values"].items()) for row in results["rows"]}) == 3  # and no two drew the same


def test_a_trial_of_a_living_process_is_left_alone(tune, plan_file, stop_at, monkeypatch) -> None:
    original = ScratchStage.loss
    stop_at(ScratchStage, 1)
    with pytest.raises(TrainingInterrupted):
        tune(TUNE.replace("trials = 3", "trials = 2"))
    monkeypatch.setattr(ScratchStage, "loss", original)
    place = plan_file.parents[1] / "tune" / "trials" / "000"
    hold = "import sys; from pathlib import Path; from ahriuwu_cli.core.lock import exclusive\n"
    hold += "with exclusive(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        report = tune()
    finally:
        holder.communicate("")
    assert [(row["trial"], row["state"]) for row in report.data["rows"]] == [(1, "done"), (0, "open")]
    report = tune()  # it has ended without an end of its trial
    assert {row["state"] for row in report.data["rows"]} == {"done"}


def test_a_failed_trial_is_one_of_them_and_no_end(tune, plan_file, monkeypatch) -> None:
    original = ScratchStage.loss

    def broken(self: ScratchStage, step: int, batch: object) -> object:
        loss, metrics = original(self, step, batch)  # type: ignore[misc]
        return (loss * float("nan") if self._section.train.schedule == "wsd" else loss), metrics

    monkeypatch.setattr(ScratchStage, "loss", broken)
    report = tune(TUNE.replace("trials = 3", "trials = 5"))
    states = [row["state"] for row in report.data["rows"]]
    assert states == sorted(states)  # those that are done come first
    assert set(states) == {"done", "failed"}
    for row in report.data["rows"]:
        assert (row["state"] == "failed") == (row["values"]["agent.train.schedule"] == "wsd")
    assert "none of 3 steps was finite" in report.rows[-1][-1]
    with pytest.raises(TrainingError, match="all 1 trials have failed, the last one: none of 3 steps"):
        tune(TUNE.replace("trials = 3", "trials = 1"), "another")
    assert (plan_file.parents[1] / "another" / "table.md").is_file()


def test_keys_further_up_are_trained_in_the_trial(tune, plan_file, steps, tree) -> None:
    before = tree(plan_file.parent / "dynamics")
    report = tune(
        'stage = "agent"\ntrials = 2\n[keys]\n"dynamics.train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }'
    )
    assert steps == [*["dynamics"] * 3, *["agent"] * 3] * 2
    assert tree(plan_file.parent / "dynamics") == before
    assert len({row["value"] for row in report.data["rows"]}) == 2
    folder = plan_file.parents[1] / "tune"
    assert (folder / "trials" / "001" / "dynamics" / "dynamics.safetensors").is_file()
    assert not (folder / "packed").exists()


def test_what_is_shared_is_made_when_it_is_not_there(tune, plan_file, steps) -> None:
    for name in ("episodes", "packed", "latents", "tokenizer", "dynamics"):
        (plan_file.parent / name).rename(plan_file.parents[1] / f"gone-{name}")
    text = TUNE.replace('"scratch"', '"agent"').replace("trials = 3", "trials = 1")
    tune(text)
    assert steps == [*["dynamics"] * 3, *["agent"] * 3]
    assert (plan_file.parents[1] / "tune" / "dynamics" / "dynamics.safetensors").is_file()
    assert not (plan_file.parent / "episodes").exists()


# ---------------------------------------------------------------- what may not be asked for


def test_trials_of_other_settings_are_not_mixed(tune, plan_file) -> None:
    one = TUNE.replace("trials = 3", "trials = 1")
    tune(one)
    for text, overrides, said in (
        (one.replace("high = 6", "high = 8"), (), "tune.keys.agent.train.batch_size"),
        (one + '"agent.reward_weight" = { low = 0.1, high = 1 }', (), "agent.reward_weight"),
        (one.replace("seed = 7", "seed = 8"), (), "tune.seed 7 -> 8"),
        (one, ("agent.train.steps=4",), "agent.train.steps 3 -> 4"),
        (one.replace("seed = 7", 'seed = 7\nmetric = "heldout_accuracy"\nhigher = true'), (), "tune.metric"),
    ):
        with pytest.raises(ConfigError, match="cannot be compared") as caught:
            tune(text, overrides=overrides)
        assert said in caught.value.message
        assert "--dir" in caught.value.hint
    # what a trial does not hear of is free: where it runs, how often it is looked at, what lies further down, and the
    # run's own values of what is searched
    changes = ["run.name='x'", "agent.train.log_every=1", "imagine.horizon=2", "agent.train.learning_rate=0.002"]
    tune(one, overrides=changes)


def test_another_metric_may_judge(tune) -> None:
    tokenizer = TUNE.partition("[keys]")[0].replace('"scratch"', '"tokenizer"')
    judged = tokenizer.replace("seed = 7", 'seed = 7\nmetric = "heldout_psnr"\nhigher = true')
    text = judged + '[keys]\n"tokenizer.train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }\n'
    values = [row["value"] for row in tune(text).data["rows"]]
    assert len(set(values)) == 3 and values == sorted(values, reverse=True)
    text = TUNE.replace("seed = 7", 'metric = "heldout_accuracy"\nhigher = true')
    with pytest.raises(ConfigError, match="no heldout_acuracy; measured: heldout_policy, ") as caught:
        tune(text.replace("accuracy", "acuracy"), "another")
    assert "name another metric" in caught.value.hint


KEYS = TUNE.partition("[keys]")[0] + "[keys]\n"


@pytest.mark.parametrize(
    ("text", "found", "hint"),
    [
        (KEYS, "has no [keys]", "see examples/bricks/tune.toml"),
        (KEYS + '"agent.train.learning_rat" = { low = 0.1, high = 0.2 }', "unknown key agent.train.learning_rat;",
         "write agent.train.learning_rate"),
        (KEYS + '"agent.train.learning_rate" = { low = 0.1, high = 2.0 }', "learning_rate is 2.0; expected a number",
         "change it in"),
        (KEYS + '"agent.train.schedule" = { choices = ["wsd", "linear"] }', 'schedule is "linear"; expected one of',
         "change it in"),
        (KEYS + '"agent.heads.mtp_length" = { low = 2, high = 6 }', "mtp_length 6 must be below agent.batch_length 6",
         "change one of"),
        (KEYS + '"agent.train.batch_size" = { low = 1.5, high = 6 }', "range of fractions; the key is an integer",
         "give it integers"),
        (KEYS + '"agent.train.schedule" = { low = 1, high = 6 }', "has a range; the key is one of constant",
         "choices = [...]"),
        (KEYS + '"agent.train.learning_rate" = { low = 0.2, high = 0.1 }', "low 0.2 must be below high 0.1", "see exa"),
        (KEYS + '"agent.train.learning_rate" = { low = 0, high = 0.1, log = true }', "log needs a low above 0", "see"),
        (KEYS + '"agent.train.batch_size" = { low = 2, high = 7, step = 2 }', "no whole number of steps", "see exa"),
        (KEYS + '"agent.train.learning_rate" = { lwo = 0.2, high = 0.1 }', "unknown key lwo", "see examples"),
        (KEYS + '"agent.train.learning_rate" = 0.1', "[keys] agent.train.learning_rate", "see examples"),
        (KEYS + '"agent.train.schedule" = { choices = ["wsd", "wsd"] }', "expected distinct ones", "see examples"),
        (KEYS + '"imagine.horizon" = { low = 2, high = 4 }', "does not shape the scratch", "or with --set"),
        (KEYS + '"dynamics.train.learning_rate" = { low = 0.1, high = 0.2 }', "does not shape the scratch",
         "stage = 'dynamics'"),
        (KEYS + '"agent.relevant_reach" = { low = 2, high = 4 }', "which decides what is measured", "for all trials"),
        (KEYS + '"agent.train.heldout_examples" = { low = 2, high = 4 }', "which decides what is measured", "for all"),
        (TUNE.replace('"scratch"', '"tokenizer"'), "does not shape the tokenizer", "stage = 'agent'"),
        (TUNE.replace('"scratch"', '"imagination"'), "stage is \"imagination\"; expected one of tokenizer", "see exa"),
        (TUNE.replace("trials = 3", "trials = 0"), "trials is 0; expected an integer from 1", "see examples"),
        (TUNE.replace("seed = 7", "higher = true"), "higher is for another metric", "name the metric"),
        (TUNE.replace("seed = 7", 'metric = "loss"'), 'metric is "loss"', "see examples"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_is_refused_before_anything_is_made(
    plan_file, refused, monkeypatch, text: str, found: str, hint: str
) -> None:
    plan_file.write_text(text)
    error, advice = refused(2, "tune", "-c", plan_file, "--dir", plan_file.parents[1] / "tune")
    assert found in error
    assert str(plan_file) in error
    assert hint in advice


def test_nothing_held_out_measures_nothing(plan_file, refused) -> None:
    arguments = ("tune", "-c", plan_file, "--dir", plan_file.parents[1] / "tune", "-s", "agent.train.heldout_every=0")
    error, _ = refused(2, *arguments)
    assert "agent.train.heldout_every is 0, so that no trial would measure heldout_policy" in error


def test_without_optuna_the_extra_is_named(plan_file, refused, monkeypatch) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments, **named) -> object:
        if name.partition(".")[0] == "optuna":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    error, hint = refused(2, "tune", "-c", plan_file, "--dir", plan_file.parents[1] / "tune")
    assert error == "`ahriuwu tune` needs the package 'optuna', which is not installed"
    assert hint == "pip install 'ahriuwu[tune]'"


def test_a_damaged_storage_is_no_fault_of_ours(tune, plan_file) -> None:
    folder = plan_file.parents[1] / "tune"
    folder.mkdir()
    (folder / "trials.sqlite3").write_bytes(b"no database at all, but long enough to look like one" * 100)
    with pytest.raises(ArtifactError, match="cannot be read as Optuna's trials"):
        tune()
    with pytest.raises(InputError, match="has no trials"):
        tune(place="nowhere", table_only=True)


def test_the_example_is_a_plan() -> None:
    from ahriuwu_cli.experiments.tune.plan import load_plan

    plan = load_plan(Path(__file__).parents[2] / "examples" / "bricks" / "tune.toml", None, ())
    assert plan.given() is not None  # run.toml as it is can be trial 0
    assert plan.goal.name == "heldout_policy"
