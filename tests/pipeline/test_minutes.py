"""`[run] minutes`: every stage has its share, ends for it, is finished then, and goes on when there is more."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.training.budget import SHARES, Budget
from ahriuwu_cli.experiments.plans import dynamics_training
from ahriuwu_cli.pipeline import demo, stages
from ahriuwu_cli.pipeline.config import load_run
from ahriuwu_cli.pipeline.template import render_config
from ahriuwu_cli.pipeline.unfinished import has_used_its_time

NO_TIME = "run.minutes=1e-6"
"""Not enough for a second step on any machine."""
MADE = ("tokenizer", "dynamics", "agent", "imagination")


def change(folder: Path, *overrides: str) -> None:
    config = folder / "run.toml"
    config.write_text(render_config(load_run(config, overrides).config), encoding="utf-8")


def ends(folder: Path) -> list[tuple[int, str]]:
    infos = [read_header(folder / kind / f"{kind}.safetensors", kind).info for kind in MADE]
    return [(info["steps"], info["stopped"]) for info in infos]


class Asked(Exception):
    """Raised in place of training."""


@pytest.mark.parametrize(
    ("stage", "module", "function", "share"),
    [
        ("train_tokenizer", stages.tokenizer_training, "train_tokenizer", SHARES["tokenizer"]),
        ("train_dynamics", stages.dynamics_training, "train_dynamics", SHARES["dynamics"]),
        ("finetune_agent", stages.agent_training, "finetune_agent", SHARES["agent"]),
        ("train_scratch", stages.scratch_training, "train_scratch", SHARES["agent"]),
        ("train_imagination", stages.imagination_training, "train_imagination", SHARES["imagination"]),
    ],
)
def test_each_stage_has_its_share(run_dir, monkeypatch, stage, module, function, share) -> None:
    def ask(*given, budget: Budget, **options) -> None:
        raise Asked(budget.minutes)

    monkeypatch.setattr(module, function, ask)
    for minutes in (0, 60):
        with pytest.raises(Asked) as caught:
            getattr(stages, stage)(load_run(run_dir / "run.toml", [f"run.minutes={minutes}"]), overwrite=True)
        assert caught.value.args == (pytest.approx(minutes * share),)


def test_a_command_says_what_ended_it(ahriuwu, run_dir) -> None:
    """And the doctor; with `--resume` and more time the same command goes on to all steps."""
    command = ("dynamics", "train", "-c", run_dir / "run.toml")
    outcome = ahriuwu(*command, "--overwrite", "-s", NO_TIME)
    assert outcome.code == 0, outcome.err
    assert "1, ended when its share of run.minutes was used up" in outcome.out
    assert "minutes (run.minutes)" in outcome.err and "ends at step 1, not 3" in outcome.err
    info = read_header(run_dir / "dynamics" / "dynamics.safetensors", "dynamics").info
    assert (info["steps"], info["stopped"], info["minutes"]) == (1, "minutes", 1e-6 * SHARES["dynamics"])
    assert "finished, 1 step, ended by run.minutes" in ahriuwu("doctor", run_dir).out.replace("\n", " ")
    more = ahriuwu(*command, "--resume", "--json")
    assert (more.data["steps"], more.data["stopped"]) == (3, "steps")


def test_a_demo_in_no_time(run_dir) -> None:
    """What its minutes ended is finished; more minutes, or none, go on with it and remake what came of it."""
    for kind in (*MADE, "latents", "packed", "evaluation"):
        shutil.rmtree(run_dir / kind)
    change(run_dir, NO_TIME)
    shown = []
    demo.run_demo(run_dir, 0, shown.append)
    assert ends(run_dir) == [(1, "minutes")] * 4
    shown.clear()
    demo.run_demo(run_dir, 0, shown.append)
    assert len(shown) == 1  # the closing words
    change(run_dir, "run.minutes=0")
    demo.run_demo(run_dir, 0, shown.append)
    assert ends(run_dir) == [(3, "steps")] * 3 + [(2, "steps")]


def test_a_plan_s_training_is_done_when_its_minutes_are_used(run_dir) -> None:
    little, none = (load_run(run_dir / "run.toml", [given]) for given in (NO_TIME, "run.minutes=0"))
    assert dynamics_training(none).is_done() and dynamics_training(little).is_done()  # all steps were made
    shutil.rmtree(run_dir / "dynamics")
    dynamics_training(little).finish()
    assert dynamics_training(little).is_done() and not dynamics_training(none).is_done()
    more = load_run(run_dir / "run.toml", ["run.minutes=2e-6"])
    assert not dynamics_training(more).is_done()
    dynamics_training(none).finish()
    assert dynamics_training(none).is_done()
    assert read_header(none.dynamics, "dynamics").info["steps"] == 3


def test_an_end_for_minutes_that_are_not_told_is_none(run_dir) -> None:
    run = load_run(run_dir / "run.toml", ["run.minutes=10"])
    header = read_header(run.dynamics, "dynamics")
    for info, expected in (({}, False), ({"minutes": 4.0}, True), ({"minutes": 3.9}, False)):
        assert has_used_its_time(run, header.model_copy(update={"info": {"stopped": "minutes", **info}})) is expected
    assert has_used_its_time(run, header)


@pytest.mark.parametrize("section", ["tokenizer", "dynamics", "agent", "imagine"])
@pytest.mark.parametrize(("key", "value"), [("schedule", '"cosine"'), ("decay_fraction", "1.0")])
def test_rates_that_fall_over_all_steps_are_refused(refused, run_dir, section, key, value) -> None:
    change = f"{section}.train.{key}={value}"
    said, hint = refused(2, "dynamics", "train", "-c", run_dir / "run.toml", "-s", "run.minutes=5", "-s", change)
    assert f"run.minutes 5 may end {section}.train before all its steps" in said
    assert "expected constant, or wsd with a decay_fraction below 1" in said
    assert hint
    assert load_run(run_dir / "run.toml", [change]).config.run.minutes == 0  # without minutes it is fine
