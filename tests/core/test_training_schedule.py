"""The learning-rate schedule: values worked out by hand, and bounds for any settings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.core.training.config import TrainSettings
from ahriuwu_cli.core.training.schedule import learning_rate


def make(schedule: str, **changes) -> TrainSettings:
    values = {"steps": 100, "batch_size": 1, "learning_rate": 0.8, "warmup_steps": 10, "decay_fraction": 0.2}
    return TrainSettings(**{**values, "schedule": schedule, **changes})


@pytest.mark.parametrize("schedule", ["constant", "cosine", "wsd"])
def test_warmup_is_linear_and_reaches_the_peak(schedule):
    assert [learning_rate(step, make(schedule)) for step in (0, 4, 9)] == pytest.approx([0.08, 0.4, 0.8])


def test_constant_stays():
    assert [learning_rate(step, make("constant")) for step in (10, 50, 99)] == [0.8, 0.8, 0.8]


def test_cosine_falls_through_half_to_zero():
    settings = make("cosine")
    assert learning_rate(10, settings) == pytest.approx(0.8)
    assert learning_rate(55, settings) == pytest.approx(0.4)  # half way between 10 and 100
    assert learning_rate(100, settings) == 0.0


def test_wsd_is_stable_then_linear():
    settings = make("wsd")
    assert [learning_rate(step, settings) for step in (10, 79, 80)] == [0.8, 0.8, 0.8]
    assert learning_rate(90, settings) == pytest.approx(0.4)
    assert learning_rate(99, settings) == pytest.approx(0.04)
    assert learning_rate(100, settings) == 0.0


@given(
    schedule=st.sampled_from(["constant", "cosine", "wsd"]),
    steps=st.integers(1, 500),
    warmup=st.integers(0, 600),
    decay=st.floats(0.01, 1),
    data=st.data(),
)
def test_never_zero_and_never_above_the_peak(schedule, steps, warmup, decay, data):
    settings = make(schedule, steps=steps, warmup_steps=warmup, decay_fraction=decay)
    step = data.draw(st.integers(0, steps - 1))
    assert 0 < learning_rate(step, settings) <= settings.learning_rate
