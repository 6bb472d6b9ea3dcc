"""How losses went near the end: kept in few points, resumable, and in the header of every artifact."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.errors import TrainingInterrupted
from ahriuwu_cli.core.training.loop import train
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.core.training.stage import Goal
from ahriuwu_cli.core.training.trend import MOST_POINTS, Curve, followed, looked_at, trends


def curve(values, every=1, **options) -> Curve:
    made = Curve()
    for number, value in enumerate(values, 1):
        made = made.measured(every * number, value, **options)
    return made


# ---------------------------------------------------------------- curves


@given(st.integers(1, 5 * MOST_POINTS), st.integers(1, 50), st.integers(0, 9))
def test_a_curve_keeps_means_in_few_points(number, every, seed):
    values = np.random.default_rng(seed).uniform(-100, 100, number).tolist()
    made = curve(values, every)
    assert len(made.points) <= MOST_POINTS
    counts = [count for *_, count in made.points]
    assert sum(counts) == len(values) and set(counts[:-1]) <= {made.each} and counts[-1] <= made.each
    stops = np.cumsum(counts)
    for (step, value, _), start, stop in zip(made.points, [0, *stops], stops, strict=False):
        assert step == pytest.approx(every * (start + 1 + stop) / 2)
        assert value == pytest.approx(np.mean(values[start:stop]), abs=1e-9)
    assert made.best == (every * (int(np.argmin(values)) + 1), min(values))
    assert made.last == (every * len(values), values[-1])
    assert curve(values, every, higher=True).best[1] == max(values)


def test_the_trend_is_the_line_through_what_lies_there():
    """By hand: 2.0 at step 40, 0.01 a step less up to step 60."""
    line = [9.0 if step < 40 else 2.0 - 0.01 * (step - 40) if step <= 60 else -5.0 for step in range(1, 101)]
    found = curve(line).trend(40, 60)
    assert found == pytest.approx(
        {"change": -0.1, "error": 0, "from": 40, "to": 60, "last": -5.0, "best": -5.0, "best_step": 61}, abs=1e-9
    )


def test_the_error_is_that_of_the_slope():
    """Residuals (1, -2, 1) / 6 of one degree of freedom, steps (-1, 0, 1): by hand, around a negative value."""
    found = curve([-1.0, -1.5, -1.0]).trend(1, 3)
    assert found is not None
    level = 7 / 6
    assert (found["change"], found["error"]) == (0, pytest.approx(math.sqrt(6 / 36 / 2) * 2 / level))
    rising = curve([-1.0, -0.75, -0.5]).trend(1, 3)
    assert rising is not None and rising["change"] == pytest.approx(0.5)


def test_few_measurements_are_taken_from_just_beyond():
    """Held-out losses at 30, 60 and 90: the line from 60 to 90 says how it went from 70 to 88."""
    few = curve([1.0, 0.8, 0.5], 30)
    found = few.trend(70, 88)
    assert found is not None
    assert (found["change"], found["error"]) == (pytest.approx(-0.01 * 18 / 0.7), 0)
    assert few.trend(20, 40) is None  # nothing as early as that
    assert few.trend(90, 100) is None  # a point makes no line
    assert curve([0.0] * 9).trend(3, 7) is None  # no share of nothing


def test_noise_is_told_from_a_fall():
    rng = np.random.default_rng(0)
    flat, falling = (
        curve([1 + 0.1 * rng.standard_normal() - slope * step for step in range(200)]).trend(100, 140)
        for slope in (0.0, 0.004)
    )
    assert flat and falling
    assert abs(flat["change"]) < 2 * flat["error"]
    assert -falling["change"] > 2 * falling["error"]
    # the error is that of a straight line's slope: sqrt(12) x noise / (level x sqrt(points))
    assert flat["error"] == pytest.approx(math.sqrt(12) * 0.1 / math.sqrt(41), rel=0.3)


def test_only_numbers_make_a_curve():
    made: dict[str, Curve] = {}
    for step, value in ((1, 1.0), (2, math.nan), (3, 3.0)):
        metrics = {"error": value, "return": value, "other": value}
        made = followed(made, step, metrics, ("error", "return", "absent"), ("return",))
    assert {name: one.best for name, one in made.items()} == {"error": (1, 1.0), "return": (3, 3.0)}
    assert len(made["error"].points) == 2


# ---------------------------------------------------------------- what is looked at


@pytest.mark.parametrize(
    ("changes", "step", "total", "expected"),
    [
        ({"schedule": "constant"}, 100, 100, (80, 100)),
        ({"schedule": "cosine"}, 100, 100, (80, 100)),
        ({"schedule": "wsd", "decay_fraction": 0.3}, 100, 100, (50, 70)),
        ({"schedule": "wsd", "decay_fraction": 0.3}, 60, 60, (30, 42)),  # a plateau ended it earlier
        ({"schedule": "wsd", "decay_fraction": 0.3}, 50, 100, (40, 50)),  # stopped before the decay
        ({"schedule": "wsd", "decay_fraction": 0.9}, 100, 100, (80, 100)),  # there is next to nothing before it
    ],
)
def test_the_last_fifth_is_that_at_the_full_rate(settings, changes, step, total, expected):
    assert looked_at(step, total, settings(**changes)) == expected


def test_nothing_is_said_of_too_few_steps(settings):
    assert trends({"error": curve([1.0, 2.0])}, 2, 2, settings()) == {}
    assert trends({}, 100, 100, settings()) == {}


# ---------------------------------------------------------------- in a training


def test_the_header_says_how_the_losses_went(tmp_path, judged_toy, settings, cpu):
    """By the lines of metrics.jsonl, recomputed here; a metric that is no loss of the stage is none of it."""
    options = settings(steps=40, log_every=2, heldout_every=4, schedule="constant")
    result = train(judged_toy(), options, cpu, tmp_path, resume=False, seed=3)
    found = result.header.info["trend"]
    assert found.keys() == {"error", "heldout_error"}
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "warning" not in line]
    for name, trend in found.items():
        points = [(line["step"], line[name]) for line in lines if name in line and 32 <= line["step"] <= 40]
        slope, level = np.polyfit(*np.transpose(points), 1)
        assert trend["change"] == pytest.approx(slope * 8 / (level + slope * 32))
        assert (trend["from"], trend["to"], trend["last"]) == (32, 40, points[-1][1])


def test_more_is_better_of_a_return(tmp_path, judged_toy, settings, cpu):
    stage = judged_toy((1.0, 3.0, 2.0, 2.5), goal=Goal("heldout_error", higher=True))
    result = train(stage, settings(steps=16, heldout_every=4), cpu, tmp_path, resume=False, seed=3)
    assert result.header.info["trend"]["heldout_error"]["best"] == 3.0


@pytest.mark.parametrize("stop", [3, 17])
def test_a_break_changes_nothing(tmp_path, judged_toy, settings, cpu, stop):
    """Pitfall 14: the fingerprint is over the header, trend and all."""
    options = settings(steps=20, log_every=3, heldout_every=4)
    whole = train(judged_toy(), options, cpu, tmp_path / "whole", resume=False, seed=3)
    with pytest.raises(TrainingInterrupted):
        train(judged_toy(stop_at=stop), options, cpu, tmp_path / "broken", resume=False, seed=3)
    (tmp_path / "broken" / "metrics.jsonl").unlink()  # it is the state that remembers
    again = train(judged_toy(), options, cpu, tmp_path / "broken", resume=True, seed=3)
    assert whole.header.info["trend"] == again.header.info["trend"] != {}
    assert whole.header.fingerprint == again.header.fingerprint


def test_a_state_without_curves_is_gone_on_with(tmp_path, toy, settings, cpu):
    """Of an earlier version: what came before is not known, and no trend is made up from the rest."""
    from ahriuwu_cli.core.artifact import read_weights, write_weights

    with pytest.raises(TrainingInterrupted):
        train(toy(stop_at=9), settings(schedule="constant"), cpu, tmp_path, resume=False, seed=3)
    path = tmp_path / "dynamics.state.safetensors"
    header, tensors = read_weights(path, "state")
    info = {name: value for name, value in header.info.items() if name != "curves"}
    write_weights(path, "state", tensors, config=header.config, specs=header.specs, parents=header.parents, info=info)
    train(toy(), settings(schedule="constant"), cpu, tmp_path, resume=True, seed=3)
    assert read_header(tmp_path / "dynamics.safetensors", "dynamics").info["trend"] == {}
