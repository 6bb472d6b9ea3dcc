"""Which frames are kept and what was done between them, against a slow reading of the same rules."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.core.specs import ActionComponent
from ahriuwu_cli.sources.imports import clock
from ahriuwu_cli.sources.imports.protocol import Happenings, Rows, Switch, Switches

FINE = settings(max_examples=150, deadline=None)


def component(kind: str, rule: str, dim: int = 1) -> ActionComponent:
    extra = {"categorical": {"num_classes": 9}, "continuous": {"low": -1e6, "high": 1e6}, "binary": {}}[kind]
    return ActionComponent(name="a", type=kind, dim=dim, aggregate=rule, **extra)


# ---------------------------------------------------------------- frames


def test_a_steady_video_at_its_own_rate_keeps_every_frame() -> None:
    times = 100 + np.arange(50) / 20
    kept = clock.keep(times, 20)
    assert kept.numbers.tolist() == list(range(50))
    assert np.array_equal(kept.times, times)
    assert (kept.repeated, kept.dropped, kept.late) == (0, 0, 0)


@pytest.mark.parametrize(("source", "run", "expected"), [(60, 20, 3), (30, 10, 3), (60, 15, 4), (20, 10, 2)])
def test_a_slower_run_takes_frames_by_time(source: int, run: int, expected: int) -> None:
    kept = clock.keep(np.arange(121) / source, run)
    assert set(np.diff(kept.numbers)) == {expected}
    assert kept.dropped == 0


def test_rates_that_do_not_divide() -> None:
    """25 to 20: every fifth frame goes; the mean rate is the run's, no frame is more than half a step off."""
    times = np.arange(501) / 25
    kept = clock.keep(times, 20)
    ticks = np.arange(len(kept.numbers)) / 20
    assert np.abs(kept.times - ticks).max() <= 0.5 / 25 + 1e-9
    assert len(kept.numbers) == 401


def test_a_frame_that_does_not_come_is_shown_again_and_counted() -> None:
    times = np.delete(np.arange(40) / 20, [10, 11, 25])
    kept = clock.keep(times, 20)
    assert len(kept.numbers) == 40
    assert kept.repeated == 3
    assert (np.diff(kept.times) > 0).all()
    assert kept.numbers[10] == kept.numbers[9] == kept.numbers[11]


def test_a_burst_is_thinned_and_counted() -> None:
    times = np.sort(np.append(np.arange(40) / 20, [0.501, 0.502]))
    kept = clock.keep(times, 20)
    assert len(kept.numbers) == 40
    assert kept.dropped == 2


def test_milliseconds_of_containers_do_no_harm() -> None:
    """Matroska rounds to milliseconds: 60 fps comes as 0, 17, 33, 50."""
    times = np.round(np.arange(600) / 60, 3)
    for fps, stride in ((60, 1), (20, 3), (30, 2)):
        assert set(np.diff(clock.keep(times, fps).numbers)) == {stride}


@FINE
@given(
    gaps=st.lists(st.floats(0.001, 0.3), min_size=1, max_size=60),
    fps=st.floats(2, 60),
    last=st.booleans(),
)
def test_kept_frames_are_the_newest_in_time(gaps: list[float], fps: float, last: bool) -> None:
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    kept = clock.keep(times, fps, keep_last=last)
    slack = 0.5 * min(1 / fps, clock.usual_interval(times))
    assert (np.diff(kept.times) > 0).all()
    assert kept.numbers[0] == 0
    ticks = np.arange(len(kept.numbers) - bool(last and kept.numbers[-1] == len(times) - 1)) / fps
    for tick, number in zip(ticks[1:], kept.numbers[1:], strict=False):
        assert times[number] <= tick + slack + 1e-9
        assert number == len(times) - 1 or times[number + 1] > tick + slack - 1e-9
    assert not last or kept.numbers[-1] == len(times) - 1


@FINE
@given(gaps=st.lists(st.sampled_from([0.05, 0.05, 0.05, 2.0, -1.0, 0.0]), min_size=1, max_size=40))
def test_pieces_have_no_gap_and_nothing_is_lost(gaps: list[float]) -> None:
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    found = list(clock.pieces(times, 1.0))
    assert [n for piece in found for n in piece] == list(range(len(times)))
    for piece in found:
        steps = np.diff(times[piece.start : piece.stop])
        assert ((steps > 0) & (steps <= 1.0)).all()
    for left, right in itertools.pairwise(found):
        step = times[right.start] - times[left.stop - 1]
        assert step > 1.0 or step <= 0


# ---------------------------------------------------------------- actions


def test_one_row_a_frame_stays_what_it_is() -> None:
    edges = np.arange(11) / 30
    values = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
    for rule in ("last", "mean", "sum"):
        found, valid = clock.actions(Rows(edges, values), component("continuous", rule, 3), edges)
        assert np.array_equal(found, values[:10])
        assert valid.all()


def test_rows_of_another_clock_in_milliseconds() -> None:
    edges = np.arange(11) / 30
    values = np.arange(11, dtype=np.float32)[:, None] % 9
    found, _ = clock.actions(Rows(np.round(edges, 3), values), component("categorical", "mode"), edges)
    assert np.array_equal(found, values[:10])


@FINE
@given(data=st.data(), rule=st.sampled_from(["mode", "last"]))
def test_classes_that_hold(data: st.DataObject, rule: str) -> None:
    """Against a reading of what holds at every millisecond."""
    starts = sorted(data.draw(st.sets(st.integers(0, 999), min_size=1, max_size=12)))
    classes = data.draw(st.lists(st.integers(0, 8), min_size=len(starts), max_size=len(starts)))
    track = Rows(np.array(starts) / 1000 + 0.0, np.array(classes, np.float32)[:, None])
    edges = np.arange(0, 1001, 100) / 1000
    snapped = (clock.snapped(track.times, edges) * 1000).round().astype(int)
    if len(set(snapped)) < len(snapped):
        return
    found, valid = clock.actions(track, component("categorical", rule), edges)
    held = np.full(1000, -1)
    for start, value in zip(snapped, classes, strict=True):
        held[start:] = value
    for step in range(10):
        part = held[100 * step : 100 * step + 100]
        assert valid[step] == (part[0] >= 0)
        if not valid[step]:
            continue
        if rule == "last":
            assert found[step, 0] == part[-1]
        else:
            assert (part == found[step, 0]).sum() == max((part == value).sum() for value in set(part))


@FINE
@given(data=st.data(), rule=st.sampled_from(["any", "mode", "last"]))
def test_keys_that_are_held(data: st.DataObject, rule: str) -> None:
    changes = sorted(data.draw(st.lists(st.integers(-50, 1050), max_size=14)))
    down = np.array(data.draw(st.lists(st.booleans(), min_size=len(changes), max_size=len(changes))), bool)
    before = data.draw(st.booleans())
    edges = np.arange(0, 1001, 100) / 1000
    times = clock.snapped(np.array(changes) / 1000, edges)
    track = Switches((Switch(np.array(changes) / 1000, down, before),))
    found, valid = clock.actions(track, component("binary", rule), edges)
    assert valid.all()
    state = np.full(1000, before)
    pressed = np.zeros(10, bool)
    for time, value in zip((times * 1000).round().astype(int), down, strict=True):
        if time < 1000:
            state[max(time, 0) :] = value
        if value and 0 <= time < 1000:
            pressed[time // 100] = True
    for step in range(10):
        part = state[100 * step : 100 * step + 100]
        wanted = {"any": part.any() or pressed[step], "last": part[-1], "mode": part.mean() >= 0.5}[rule]
        assert bool(found[step, 0]) == bool(wanted), (step, rule)


@FINE
@given(data=st.data())
def test_deltas_add_up_and_none_is_counted_twice(data: st.DataObject) -> None:
    times = np.array(sorted(data.draw(st.lists(st.integers(0, 999), max_size=30)))) / 1000
    values = np.array(data.draw(st.lists(st.integers(-50, 50), min_size=len(times), max_size=len(times))), np.float32)
    edges = np.arange(0, 1001, 100) / 1000
    found, _ = clock.actions(Happenings(times, values[:, None]), component("continuous", "sum"), edges)
    late = clock.snapped(times, edges) >= 1.0
    assert found.sum() == values[~late].sum()


def test_rewards_come_with_the_frame_that_ends_their_step() -> None:
    edges = np.array([0.0, 0.1, 0.2, 0.3])
    rewards = Happenings(
        np.array([0.0, 0.05, 0.1, 0.11, 0.2, 0.3, 0.35]), np.array([[1], [2], [4], [8], [16], [32], [64]])
    )
    assert clock.arrived(rewards, edges).tolist() == [6.0, 24.0, 32.0]


def test_a_step_that_is_partly_unknown_is_unknown() -> None:
    edges = np.arange(6) / 10
    track = Rows(np.array([0.1, 0.25, 0.3]), np.zeros((3, 1), np.float32), np.array([True, False, True]))
    _, valid = clock.actions(track, component("categorical", "mode"), edges)
    assert valid.tolist() == [False, True, False, True, True]
    assert clock.known([(0.15, 0.2), (0.45, 9)], edges).tolist() == [True, False, True, True, False]
