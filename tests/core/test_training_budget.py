"""Training under a budget of minutes: its end is planned in time for the decay, and breaks do not add to it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.core.artifact import read_header, read_weights
from ahriuwu_cli.core.errors import TrainingInterrupted
from ahriuwu_cli.core.training.budget import SHARES, Budget, Stopwatch
from ahriuwu_cli.core.training.config import TrainSettings
from ahriuwu_cli.core.training.course import LATE, Course
from ahriuwu_cli.core.training.loop import train
from ahriuwu_cli.core.training.schedule import learning_rate
from ahriuwu_cli.core.training.sinks import read_metrics


class Clock:
    """Moves only when a stage says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def timed(judged_toy):
    """A toy whose steps and measurements take as long as it is told, in seconds of its own clock."""

    class Timed(judged_toy):
        def __init__(self, *given, lap=lambda step: 1.0, measuring=0.0, **options):
            super().__init__(*given, **options)
            self.clock, self.lap, self.measuring = Clock(), lap, measuring

        def loss(self, step, batch):
            self.clock.now += self.lap(step)
            return super().loss(step, batch)

        def heldout(self):
            self.clock.now += self.measuring
            return super().heldout()

        def budget(self, seconds):
            return Budget(seconds / 60, self.clock)

    return Timed


def run(stage, settings, cpu, folder, seconds, *, resume=False):
    return train(stage, settings, cpu, folder, resume=resume, seed=3, budget=stage.budget(seconds))


def tensors(folder, name="dynamics.state", kind="state"):
    return read_weights(folder / f"{name}.safetensors", kind)[1]


def differ(left, right):
    assert left.keys() == right.keys()
    return [name for name in left if not torch.equal(left[name], right[name])]


def state_info(folder):
    return read_header(folder / "dynamics.state.safetensors", "state").info


# ---------------------------------------------------------------- where it ends


def test_the_decay_begins_early_enough(tmp_path, timed, settings, cpu, capfd):
    """One second a step, 20 seconds: to the last bit the training whose `steps` had been 20."""
    options = settings(steps=60, decay_fraction=0.4, warmup_steps=2, heldout_every=5)
    stage = timed()
    result = run(stage, options, cpu, tmp_path / "timed", 20)
    assert (result.steps, result.stopped, result.seconds) == (20, "minutes", 20.0)
    found = {name: result.header.info[name] for name in ("steps", "finished", "stopped", "minutes")}
    assert found == {"steps": 20, "finished": True, "stopped": "minutes", "minutes": 20 / 60}
    assert result.header.info["heldout"]  # measured at the end, wherever that is
    told = capfd.readouterr().err
    assert "dynamics: may take 0.333333 minutes (run.minutes)\n" in told
    assert "of its 0.333333 minutes (run.minutes) 0.2 are used at step 12: ends at step 20, not 60" in told
    lines = [line for line in read_metrics(tmp_path / "timed" / "metrics.jsonl") if "warning" not in line]
    assert {line["step"]: line["learning_rate"] for line in lines} == {
        line["step"]: learning_rate(line["step"] - 1, options, 20) for line in lines
    }

    planned = settings(steps=20, decay_fraction=0.4, warmup_steps=2, heldout_every=5)
    train(timed(), planned, cpu, tmp_path / "planned", resume=False, seed=3)
    assert not differ(tensors(tmp_path / "timed"), tensors(tmp_path / "planned"))


def test_a_constant_rate_ends_with_the_last_step_that_fits(tmp_path, timed, settings, cpu):
    result = run(timed(), settings(steps=60, schedule="constant"), cpu, tmp_path, 20.5)
    assert (result.steps, result.stopped, result.header.info["minutes"]) == (20, "minutes", 20.5 / 60)


@pytest.mark.parametrize("schedule", ["wsd", "constant"])
def test_measurements_take_of_it(tmp_path, timed, settings, cpu, schedule):
    """Every fifth step takes two seconds more: 100 seconds do for about 71 steps."""
    stage = timed(measuring=2.0)
    result = run(stage, settings(steps=200, schedule=schedule, heldout_every=5), cpu, tmp_path, 100)
    assert 68 <= result.steps <= 73
    assert result.seconds <= 100 + 1 + 2  # a step, and the measurement that every training ends with


def test_the_stage_learns_where_its_end_is(tmp_path, timed, settings, cpu):
    plans = []

    class Planned(timed):
        def plan(self, total):
            plans.append((len(self.seen), total))

    run(Planned(), settings(steps=60, decay_fraction=0.4), cpu, tmp_path, 20)
    assert plans == [(0, 60), (12, 20)]


def test_what_the_first_step_does_once_is_not_taken_for_its_pace(tmp_path, timed, settings, cpu):
    """Compiling took 10 of 30 seconds: the rest is for 20 more steps, and not for two."""
    stage = timed(lap=lambda step: 11.0 if step == 0 else 1.0)
    result = run(stage, settings(steps=60, decay_fraction=0.4), cpu, tmp_path, 30)
    assert (result.steps, result.seconds) == (20, 30.0)


@pytest.mark.parametrize("schedule", ["wsd", "constant"])
def test_a_budget_that_the_first_step_uses_up(tmp_path, timed, settings, cpu, schedule):
    result = run(timed(), settings(steps=60, schedule=schedule), cpu, tmp_path, 0.001)
    assert (result.steps, result.stopped, result.header.info["finished"]) == (1, "minutes", True)


def test_a_decay_that_takes_longer_than_planned_is_cut_short(tmp_path, timed, settings, cpu, capfd):
    """Steps of the decay take twice the time, as when another program runs: without a cut 28 seconds of 20."""
    stage = timed(lap=lambda step: 1.0 if step < 12 else 2.0)
    result = run(stage, settings(steps=60, decay_fraction=0.4, log_every=1), cpu, tmp_path, 20)
    assert 12 < result.steps < 20
    assert result.seconds <= 20 * (1 + LATE) + 2.0  # and one step
    assert "ends at step 20, not 60" in capfd.readouterr().err
    rates = [line["learning_rate"] for line in read_metrics(tmp_path / "metrics.jsonl") if "warning" not in line]
    assert rates[11:] == sorted(rates[11:], reverse=True)  # it only falls
    assert rates[-1] < 0.2 * max(rates)


def test_steps_and_progress_may_come_first(tmp_path, timed, settings, cpu):
    """And then nothing tells of the budget: the artifact is the one without it."""
    options = settings(steps=12)
    free = train(timed(), options, cpu, tmp_path / "free", resume=False, seed=3)
    within = run(timed(), options, cpu, tmp_path / "within", 12)
    assert within.stopped == "steps"
    assert within.header.fingerprint == free.header.fingerprint
    assert state_info(tmp_path / "free")["seconds"] == 0 < state_info(tmp_path / "within")["seconds"]

    flat = settings(steps=60, heldout_every=2, patience=1, schedule="constant")
    result = run(timed((5.0, 4.0, 4.0)), flat, cpu, tmp_path / "flat", 30)
    assert (result.steps, result.stopped) == (6, "progress")
    assert "minutes" not in result.header.info


# ---------------------------------------------------------------- over a break


@pytest.mark.parametrize("stop", [1, 7, 12, 13, 19])
def test_time_before_a_resume_counts(tmp_path, timed, settings, cpu, stop):
    """Pitfall 14: in the same steps it is the run without a break, state and header included."""
    options = settings(steps=60, decay_fraction=0.4, heldout_every=4)
    whole = run(timed(), options, cpu, tmp_path / "whole", 20)
    broken = tmp_path / "broken"
    with pytest.raises(TrainingInterrupted, match=f"step {stop} of {20 if stop >= 12 else 60}"):
        run(timed(stop_at=stop - 1), options, cpu, broken, 20)
    again = run(timed(), options, cpu, broken, 20, resume=True)
    assert again.seconds == whole.seconds == 20.0
    assert again.header.fingerprint == whole.header.fingerprint
    assert not differ(tensors(broken), tensors(tmp_path / "whole"))
    assert state_info(broken) == state_info(tmp_path / "whole")
    finished = run(timed(), options, cpu, broken, 20, resume=True)  # nothing is left to do
    assert (finished.steps, finished.stopped, finished.header) == (20, "minutes", again.header)


def test_a_budget_given_at_a_resume_counts_what_metrics_tell(tmp_path, timed, settings, cpu):
    options = settings(steps=60, schedule="constant", log_every=1)
    stage = timed(stop_at=7)
    with pytest.raises(TrainingInterrupted):
        train(stage, options, cpu, tmp_path, resume=False, seed=3, budget=Budget(0.0, stage.clock))
    assert state_info(tmp_path)["seconds"] == 0
    assert run(timed(), options, cpu, tmp_path, 20, resume=True).steps == 20


def test_more_minutes_go_on_fewer_do_not(tmp_path, timed, settings, cpu):
    options = settings(steps=60, decay_fraction=0.4)
    first = run(timed(), options, cpu, tmp_path, 20)
    assert run(timed(), options, cpu, tmp_path, 10, resume=True).header == first.header
    more = run(timed(), options, cpu, tmp_path, 40, resume=True)
    assert (more.steps, more.seconds, more.header.info["minutes"]) == (40, 40.0, 40 / 60)
    unlimited = train(timed(), options, cpu, tmp_path, resume=True, seed=3)
    assert (unlimited.steps, unlimited.stopped) == (60, "steps")


# ---------------------------------------------------------------- the plan


@given(
    lap=st.floats(0.01, 10),
    minutes=st.floats(0.1, 10),
    fraction=st.floats(0.05, 0.95),
    schedule=st.sampled_from(["wsd", "constant"]),
)
def test_what_is_planned_fits_and_wastes_little(lap, minutes, fraction, schedule):
    """At a steady pace: never late, and no more is left than the steps that a decay one step later would take."""
    options = TrainSettings(
        steps=10**6, batch_size=1, learning_rate=1e-3, schedule=schedule, decay_fraction=fraction, warmup_steps=0
    )
    course, step, moves = Course(), 0, 0
    while step < course.total(options):
        step += 1
        after = course.timed(step, 60 * minutes - step * lap, lap if step > 1 else None, minutes, options)
        moves, course = moves + (after != course), after
    assert moves == 1 and course.stopped(options) == "minutes"
    assert step * lap <= max(60 * minutes, 2 * lap) * (1 + 1e-9)  # what a step takes is known after two
    stable = 1 - fraction if schedule == "wsd" else 1.0
    assert (step + math.ceil(1 / stable) + 1) * lap > 60 * minutes


def test_shares_are_those_of_a_whole():
    assert math.fsum(SHARES.values()) == 1
    assert Budget(60).share("dynamics").minutes == 60 * SHARES["dynamics"]
    assert Budget().share("agent").minutes == 0


def test_a_stopwatch_goes_on_where_another_stopped():
    clock = Clock()
    watch = Stopwatch(clock, before=30.0, step=10)
    assert (watch.seconds, watch.lap(10)) == (30.0, 3.0)
    clock.now += 7
    assert watch.lap(11) == 3.0  # the first step of this process
    clock.now += 2
    assert (watch.seconds, watch.lap(12)) == (39.0, 2.0)
    assert Stopwatch(clock).lap(1) is None
