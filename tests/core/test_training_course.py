"""Training by measured progress: the best weights are kept, and a plateau ends it, resumable bit for bit."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from ahriuwu_cli.core.artifact import read_header, read_weights
from ahriuwu_cli.core.errors import TrainingInterrupted
from ahriuwu_cli.core.training.course import Course
from ahriuwu_cli.core.training.heldout import Evaluation
from ahriuwu_cli.core.training.loop import train
from ahriuwu_cli.core.training.schedule import learning_rate
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.core.training.stage import Goal

RISING = (5.0, 2.0, 3.0, 4.0)
"""Best at the second measurement."""


def state(folder):
    return read_weights(folder / "dynamics.state.safetensors", "state")


def weights(folder):
    return read_weights(folder / "dynamics.safetensors", "dynamics")[1]


def differ(left, right):
    assert left.keys() == right.keys()
    return [name for name in left if not torch.equal(left[name], right[name])]


def assert_same_run(left, right):
    assert not differ(state(left)[1], state(right)[1])
    assert state(left)[0].info == state(right)[0].info
    assert read_header(left / "dynamics.safetensors", "dynamics") == read_header(
        right / "dynamics.safetensors", "dynamics"
    ).model_copy(update={"provenance": read_header(left / "dynamics.safetensors", "dynamics").provenance})
    assert not differ(weights(left), weights(right))


# ---------------------------------------------------------------- the best weights


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.7}], ids=["plain", "averaged"])
def test_the_best_weights_are_the_result(tmp_path, judged_toy, settings, cpu, changes):
    """Pitfall 14, too: those of the very step, and of the average where there is one; also after a break."""
    options = settings(heldout_every=3, keep="best", schedule="constant", **changes)
    best = train(judged_toy(RISING), options, cpu, tmp_path / "best", resume=False, seed=3)
    short = settings(heldout_every=3, steps=6, schedule="constant", **changes)
    train(judged_toy(RISING), short, cpu, tmp_path / "short", resume=False, seed=3)
    last = settings(heldout_every=3, schedule="constant", **changes)
    whole = train(judged_toy(RISING), last, cpu, tmp_path / "last", resume=False, seed=3)

    assert not differ(weights(tmp_path / "best"), weights(tmp_path / "short"))
    assert differ(weights(tmp_path / "best"), weights(tmp_path / "last"))
    assert {"steps": 12, "kept_step": 6, "heldout": {"heldout_error": 2.0}}.items() <= best.header.info.items()
    assert "kept_step" not in whole.header.info

    with pytest.raises(TrainingInterrupted):
        train(judged_toy(RISING, stop_at=7), options, cpu, tmp_path / "broken", resume=False, seed=3)
    assert read_header(tmp_path / "broken" / "dynamics.safetensors", "dynamics").info["kept_step"] == 6
    train(judged_toy(RISING[2:]), options, cpu, tmp_path / "broken", resume=True, seed=3)
    assert_same_run(tmp_path / "best", tmp_path / "broken")


# ---------------------------------------------------------------- the plateau


@pytest.mark.parametrize("stop", [4, 9, 13])
def test_a_plateau_ends_training_with_its_decay(tmp_path, judged_toy, settings, cpu, capfd, stop):
    """It is to the last bit the training whose `steps` had been that number; and so is one with a break."""
    options = settings(steps=60, heldout_every=2, patience=2, decay_fraction=0.4, warmup_steps=2)
    flat = (5.0, 4.0, 4.0, 3.99)  # after step 8 two measurements without progress: ends at ceil(8 / 0.6)
    stage = judged_toy(flat)
    result = train(stage, options, cpu, tmp_path / "flat", resume=False, seed=3)
    assert (result.steps, result.stopped, result.header.info["finished"]) == (14, "progress", True)
    assert "no progress in 2 held-out measurements up to step 8: ends at step 14, not 60" in capfd.readouterr().err
    rates = {line["step"]: line["learning_rate"] for line in read_metrics(tmp_path / "flat" / "metrics.jsonl")}
    assert rates == {step: learning_rate(step - 1, options, 14) for step in (2, 4, 5, 6, 8, 10, 12, 14)}
    assert rates[8] == options.learning_rate > rates[10]

    planned = settings(steps=14, heldout_every=2, decay_fraction=0.4, warmup_steps=2)
    train(judged_toy(), planned, cpu, tmp_path / "planned", resume=False, seed=3)
    assert not differ(state(tmp_path / "flat")[1], state(tmp_path / "planned")[1])

    broken = tmp_path / "broken"
    with pytest.raises(TrainingInterrupted, match=f"step {stop} of {14 if stop > 8 else 60}"):
        train(judged_toy(flat, stop_at=stop - 1), options, cpu, broken, resume=False, seed=3)
    train(judged_toy(flat[stop // 2 :] or flat[-1:]), options, cpu, broken, resume=True, seed=3)
    assert_same_run(tmp_path / "flat", broken)
    again = train(judged_toy(flat), options, cpu, broken, resume=True, seed=3)  # nothing is left to do
    assert (again.steps, again.stopped) == (14, "progress")


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_other_schedules_end_at_the_plateau(tmp_path, judged_toy, settings, cpu, schedule):
    options = settings(steps=60, heldout_every=2, patience=1, schedule=schedule)
    stage = judged_toy((5.0, 4.0, 4.0))
    result = train(stage, options, cpu, tmp_path, resume=False, seed=3)
    assert (result.steps, result.stopped, len(stage.measured)) == (6, "progress", 3)
    last = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert (last["step"], last["heldout_error"]) == (6, 4.0)


def test_a_stage_that_must_know_learns_where_its_end_is(tmp_path, judged_toy, settings, cpu):
    class Planned(judged_toy):
        def __init__(self, *given, **options):
            super().__init__(*given, **options)
            self.plans = []

        def plan(self, total):
            self.plans.append((len(self.seen), total))

    options = settings(steps=60, heldout_every=2, patience=1, decay_fraction=0.5)
    stage = Planned((5.0, 4.0, 4.0))
    train(stage, options, cpu, tmp_path, resume=False, seed=3)
    assert stage.plans == [(0, 60), (6, 12)]


@pytest.mark.parametrize("wrong", [{"keep": "best"}, {"patience": 2}], ids=lambda wrong: next(iter(wrong)))
def test_nothing_is_judged_without_measurements(tmp_path, judged_toy, settings, cpu, capfd, wrong):
    with pytest.raises(ValidationError, match="expected heldout_every above 0"):
        settings(heldout_every=0, **wrong)
    result = train(judged_toy(goal=None), settings(**wrong), cpu, tmp_path, resume=False, seed=3)
    assert (result.steps, result.stopped) == (12, "steps")
    assert "train.patience and train.keep have no effect" in capfd.readouterr().err


# ---------------------------------------------------------------- what counts as progress


def followed(settings, goal, *values, every=10, **changes):
    """The course after measurements, given by name or of the goal alone."""
    course, options = Course(), settings(**{"steps": 1000, "warmup_steps": 0, "patience": 2, **changes})
    for number, found in enumerate(values, 1):
        named = found if isinstance(found, dict) else {goal.name: found}
        course = course.measured(Evaluation(step=every * number, values=named), goal, options)
    return course, options


ERROR, RETURN = Goal("error"), Goal("return", higher=True)


@pytest.mark.parametrize(
    ("goal", "values", "waited", "best"),
    [
        (ERROR, (5.0, 4.99, 4.98, 4.94), 0, 40),  # slow but steady: 1 % below the value last counted from
        (ERROR, (5.0, 4.99, 4.98), 2, 30),
        (ERROR, (5.0, 4.0, 4.5, 4.1), 2, 20),
        (RETURN, (-1.0, -0.5, -0.6), 1, 20),
        (RETURN, (0.0, 0.1, 0.2), 0, 30),
        (ERROR, (5.0, {}, {}, {}), 0, 10),  # nothing measured is no measurement
    ],
)
def test_progress_is_a_share_of_the_value_it_is_counted_from(settings, goal, values, waited, best):
    course, options = followed(settings, goal, *values, patience=9)
    assert (course.waited, course.kept.step) == (waited, best)
    assert course.stopped(options) == "steps"


def test_another_head_that_still_learns_is_progress(settings):
    goal = Goal("policy", others=("reward",))
    learns = [{"policy": 1.0, "reward": reward} for reward in (0.3, 0.2, 0.1)]
    assert followed(settings, goal, *learns)[0].waited == 0
    # 30 % less of next to nothing, for ever
    vanishes = [{"policy": 1.0, "reward": 1e-4 * 0.7**number} for number in range(3)]
    assert followed(settings, goal, *vanishes)[0].waited == 2


def test_too_early_to_say(settings):
    """Before the policy learns at all, and while the learning rate still rises."""
    late = Goal("return", higher=True, after=30)
    course, _ = followed(settings, late, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert (course.waited, course.kept.step) == (1, 40)
    assert followed(settings, ERROR, 1.0, 1.0, 1.0, 1.0, warmup_steps=30)[0].waited == 1


def test_a_plateau_in_the_decay_changes_nothing(settings):
    """Nor does one where wsd decays from the first step on."""
    flat = (5.0,) * 9
    course, options = followed(settings, ERROR, *flat, every=100, patience=8)
    assert (course.end, course.total(options), course.stopped(options)) == (None, 1000, "steps")
    course, options = followed(settings, ERROR, *flat, decay_fraction=1.0)
    assert course.total(options) == 1000
    raised = options.model_copy(update={"steps": 5})
    assert Course(end=8).total(raised) == 5
    assert math.isclose(learning_rate(8, settings(steps=60, decay_fraction=0.4, warmup_steps=0), 14), 0.01)
