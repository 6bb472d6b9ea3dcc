"""Bootstrap intervals and paired permutation tests: coverage, error rates, degenerate input, determinism."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ahriuwu_cli.evaluation import statistics
from ahriuwu_cli.evaluation.statistics import mean_interval, paired_test, ratio_of_means, unpaired_test

FEW_RESAMPLES = 999


def test_interval_covers_the_truth_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "NUM_RESAMPLES", FEW_RESAMPLES)
    rng = np.random.default_rng(0)
    for confidence, fewest, most in ((0.95, 182, 198), (0.6, 100, 140)):
        covered = 0
        for trial in range(200):
            interval = mean_interval(rng.exponential(2.0, 60), confidence, trial)  # skewed, mean 2
            covered += interval.low <= 2.0 <= interval.high
        assert fewest <= covered <= most


def test_interval_of_many_normal_values_is_the_textbook_one() -> None:
    values = np.random.default_rng(0).normal(5, 3, 400)
    mean, low, high = mean_interval(values, 0.95, 0)
    half = 1.96 * values.std() / 20
    assert mean == pytest.approx(values.mean())
    assert (low, high) == (pytest.approx(mean - half, abs=0.05), pytest.approx(mean + half, abs=0.05))


def test_a_higher_level_gives_a_wider_interval() -> None:
    values = np.random.default_rng(0).poisson(4, 50)
    narrow, wide = mean_interval(values, 0.8, 0), mean_interval(values, 0.99, 0)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_seed_decides_everything() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 40))
    assert mean_interval(a, 0.95, 3) == mean_interval(a, 0.95, 3)
    assert mean_interval(a, 0.95, 3) != mean_interval(a, 0.95, 4)
    assert paired_test(a, b, 3) == paired_test(a, b, 3)
    assert paired_test(a, b, 3) != paired_test(a, b, 4)
    before = np.random.get_state()[1].copy()
    paired_test(a, b, 3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_constant_values_have_an_interval_without_width() -> None:
    assert mean_interval([0.1] * 7, 0.95, 0) == (0.1, 0.1, 0.1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[0, 0, 0, 1], [0, 1], [1.0] * 30 + [1.0 + 2.3e-16], [0.0, 5e-324, 5e-324]])
def test_nearly_constant_values_have_a_finite_interval(values: list[float]) -> None:
    _, low, high = mean_interval(values, 0.95, 0)
    assert min(values) <= low <= high <= max(values)


def test_percentiles_step_in_where_bca_is_undefined() -> None:
    values = np.array([1.0] * 30 + [1.0 + 2.3e-16])
    assert np.isnan(statistics._bootstrap((values,), np.mean, "BCa", 0.95, 0)).all()
    assert mean_interval(values, 0.95, 0)[1:] == statistics._bootstrap((values,), np.mean, "percentile", 0.95, 0)


def test_one_value_has_no_interval() -> None:
    mean, low, high = mean_interval([3.0], 0.95, 0)
    assert mean == 3.0
    assert np.isnan([low, high]).all()
    result = paired_test([3.0], [1.0], 0)
    assert (result.difference, result.p_value, result.n) == (2.0, 1.0, 1)
    assert np.isnan([result.low, result.high]).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12), st.integers(0, 1000))
def test_interval_lies_within_the_values(values: list[float], seed: int) -> None:
    _, low, high = mean_interval(values, 0.95, seed)
    slack = 1e-9 * max(1.0, *map(abs, values))
    assert min(values) - slack <= low <= high <= max(values) + slack


def test_p_values_are_uniform_when_nothing_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "NUM_RESAMPLES", FEW_RESAMPLES)
    rng = np.random.default_rng(1)
    differences = rng.normal(size=(200, 25))
    p_values = [statistics.sign_flip_p_value(row, trial) for trial, row in enumerate(differences)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert 2 <= sum(p < 0.05 for p in p_values) <= 20


def test_p_value_is_small_under_a_shift_and_pairing_helps() -> None:
    rng = np.random.default_rng(2)
    level = rng.normal(0, 10, 60)  # how hard each seed is
    better, worse = level + 1 + rng.normal(0, 1, 60), level + rng.normal(0, 1, 60)
    paired = paired_test(better, worse, 0)
    assert paired.p_value < 0.001
    assert 0 < paired.low < paired.difference < paired.high
    assert paired_test(better, rng.permutation(worse), 0).p_value > 0.05


def test_p_value_of_few_pairs_is_exact() -> None:
    a, b = np.array([3.0, 5.0, 4.0, 7.0, 1.0]), np.array([1.0, 2.0, 5.0, 2.0, 1.5])
    seen = abs((a - b).mean())
    flips = [abs(np.mean((a - b) * signs)) for signs in itertools.product([1, -1], repeat=5)]
    expected = np.mean([flip >= seen - 1e-12 for flip in flips])
    assert paired_test(a, b, 0).p_value == pytest.approx(expected)


def test_swapping_the_sides_turns_the_sign_only() -> None:
    a, b = np.random.default_rng(3).poisson(3, (2, 12)).astype(float)
    forward, backward = paired_test(a, b, 0), paired_test(b, a, 0)
    assert forward.difference == -backward.difference == pytest.approx(a.mean() - b.mean())
    assert forward.p_value == pytest.approx(backward.p_value)


def test_equal_values_differ_by_nothing() -> None:
    values = np.random.default_rng(4).normal(size=20)
    assert paired_test(values, values, 0) == (0.0, 0.0, 0.0, 1.0, 20)


def test_the_same_difference_everywhere_is_significant() -> None:
    result = paired_test(np.full(10, 3.0), np.full(10, 1.0), 0)
    assert result[:3] == (2.0, 2.0, 2.0)
    assert result.p_value == pytest.approx(2 / 1024)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0, 2.0], [1.0], "2 values and b has 1"),
        ([], [], "at least one"),
        ([[1.0, 2.0]], [[1.0, 2.0]], "expected .N,."),
        ([1.0, np.nan], [1.0, 2.0], "a has 1 values that are not finite"),
        ([1.0, 2.0], [np.inf, 2.0], "b has 1 values that are not finite"),
    ],
)
def test_values_that_cannot_be_paired_are_refused(a, b, message) -> None:
    with pytest.raises(ValueError, match=message):
        paired_test(a, b, 0)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        mean_interval([1.0, 2.0], confidence, 0)


# ---------------------------------------------------------------- ratios


def test_ratio_by_hand() -> None:
    """(2 + 4 + 6) / 3 over (1 + 2 + 3) / 3; b is half of a in every pair, so every resample says 2."""
    assert ratio_of_means([2, 4, 6], [1, 2, 3], 0) == pytest.approx((2.0, 2.0, 2.0))
    ratio, low, high = ratio_of_means([4, 1, 1], [1, 2, 3], 0)  # resamples reach from 1 / 3 to 4
    assert ratio == 1.0
    assert 1 / 3 <= low < 1.0 < high <= 4.0


def test_ratio_interval_is_over_pairs() -> None:
    """What both share (luck of the seed) does not widen the interval, as it would if they were drawn apart."""
    rng = np.random.default_rng(0)
    luck = rng.exponential(10, 60)
    a, b = 1.5 * luck + rng.normal(0, 0.1, 60), luck
    _, low, high = ratio_of_means(a, b, 0)
    _, apart_low, apart_high = ratio_of_means(rng.permutation(a), b, 0)
    assert 1.45 < low < 1.5 < high < 1.55
    assert apart_high - apart_low > 5 * (high - low)


def test_ratio_interval_covers_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "NUM_RESAMPLES", FEW_RESAMPLES)
    rng, covered = np.random.default_rng(1), 0
    for trial in range(200):
        _, low, high = ratio_of_means(rng.poisson(6, 50), rng.poisson(4, 50), trial)
        covered += low <= 1.5 <= high
    assert 182 <= covered <= 198


def test_ratio_to_what_is_not_positive_is_open() -> None:
    assert np.isnan(ratio_of_means([1, 2], [0, 0], 0)).all()
    assert np.isnan(ratio_of_means([1, 2], [-1, -2], 0)).all()
    ratio, low, high = ratio_of_means([1, 2, 3], [0, 0, 4], 0)  # a resample may be zeros alone
    assert ratio == 1.5
    assert np.isnan([low, high]).all()
    ratio, low, high = ratio_of_means([3], [2], 0)
    assert ratio == 1.5
    assert np.isnan([low, high]).all()


PAIRS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS, factor=st.sampled_from([0.5, 2.0, 4.0]), seed=st.integers(0, 9))
def test_ratio_scales_with_its_numerator(pairs: list[tuple[int, int]], factor: float, seed: int) -> None:
    a, b = np.array(pairs, dtype=np.float64).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "NUM_RESAMPLES", 99)
        one, scaled = ratio_of_means(a, b, seed), ratio_of_means(factor * a, b, seed)
    np.testing.assert_allclose(scaled, factor * np.array(one), rtol=1e-9)
    assert one.mean == pytest.approx(a.sum() / b.sum())
    if np.isfinite(one.low):
        assert (a / b).min() - 1e-9 <= one.low <= one.high <= (a / b).max() + 1e-9


def test_ratio_refuses_what_is_no_pair() -> None:
    with pytest.raises(ValueError, match="equal lengths"):
        ratio_of_means([1, 2], [1], 0)
    with pytest.raises(ValueError, match="not finite"):
        ratio_of_means([1, float("nan")], [1, 1], 0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        ratio_of_means([1, 2], [1, 1], 0, confidence=1.0)


# ---------------------------------------------------------------- without pairs


def test_an_unpaired_test_is_welch_like_and_ignores_order() -> None:
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 3, 60)
    a, b = luck + 0.5, luck
    assert paired_test(a, b, 0).p_value < 0.001
    apart = unpaired_test(a, b, 0)
    assert apart.p_value == pytest.approx(stats.ttest_ind(a, b).pvalue, abs=0.03)
    assert apart.low < 0 < apart.difference < apart.high
    shuffled = unpaired_test(rng.permutation(a), b, 0)
    assert shuffled.difference == pytest.approx(apart.difference)
    assert shuffled.p_value == pytest.approx(apart.p_value, abs=0.03)


def test_unpaired_values_by_hand() -> None:
    """Of the six ways to label (1, 2, 3, 4) two are as far apart as (3, 4) and (1, 2)."""
    result = unpaired_test([3.0, 4.0], [1.0, 2.0], 0)
    assert (result.difference, result.p_value, result.n) == (2.0, pytest.approx(2 / 6), 2)
    assert unpaired_test([2.0, 2.0], [2.0, 2.0], 0) == (0.0, 0.0, 0.0, 1.0, 2)
    assert unpaired_test([3.0] * 4, [1.0] * 4, 0)[:3] == (2.0, 2.0, 2.0)
    one = unpaired_test([3.0], [1.0], 0)
    assert (one.difference, one.p_value) == (2.0, 1.0) and np.isnan(one.low)
    ratio, low, high = ratio_of_means([2, 4, 6], [1, 2, 3], 0, paired=False)
    assert ratio == 2.0 and low < 2.0 < high
