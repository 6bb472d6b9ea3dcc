"""Statistics over training seeds: numbers by hand, error rates when trainings have luck, coverage, verdicts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy import stats

from ahriuwu_cli.evaluation import over_seeds, statistics
from ahriuwu_cli.evaluation.over_seeds import (
    ABOVE,
    FEW,
    SAME,
    WORSE,
    resampled_means,
    seed_interval,
    seed_test,
    verdict,
)
from ahriuwu_cli.evaluation.statistics import paired_test

NUM_STUDIES = 300
NUM_SEEDS = 8


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "NUM_RESAMPLES", 999)


# ---------------------------------------------------------------- by hand


def test_eight_seeds_that_agree_are_the_least_that_a_sign_test_can_say() -> None:
    test = seed_test([1.0, 2.0, 3.0, 1.5, 2.5, 0.5, 4.0, 1.2], 0)
    assert test.p_value == pytest.approx(2 / 2**8)
    assert (test.difference, test.num_seeds) == (pytest.approx(1.9625), 8)
    assert test.t_p_value == pytest.approx(0.001977, abs=1e-6)  # t = 4.795 with 7 degrees of freedom


def test_p_values_by_hand() -> None:
    """Of the 8 flips of (2, 1, -1) six have a mean at least as far from zero as 2 / 3; t = 0.756 with 2 degrees."""
    values = [2.0, 1.0, -1.0]
    flips = [abs(np.dot(signs, values)) for signs in product([1, -1], repeat=3)]
    test = seed_test(values, 0)
    assert test.p_value == pytest.approx(sum(flip >= 2 for flip in flips) / 8) == 0.75
    assert test.t_p_value == pytest.approx(2 * stats.t.sf((2 / 3) / np.sqrt(7 / 3 / 3), 2))


def test_one_seed_says_nothing() -> None:
    test = seed_test([5.0], 0)
    assert test.p_value == 1.0 and np.isnan(test.t_p_value)
    assert np.isnan(seed_interval(5.0, np.zeros(999), 1, 0.95)[1:]).all()
    assert np.isnan(seed_test([2.0, 2.0 + 1e-15], 0).t_p_value)


def test_constant_seeds_vary_only_by_the_draw_of_seeds() -> None:
    """Two seeds of constant returns 0 and 4: a resample is 0, 2 or 4, with a quarter, a half and a quarter."""
    draws = resampled_means({"a": [np.zeros(5), np.full(3, 4.0)]}, 0)["a"]
    assert set(draws) == {0.0, 2.0, 4.0}
    assert np.mean(draws == 2.0) == pytest.approx(0.5, abs=0.06)


def test_the_interval_is_students_where_seeds_are_many_draws_of_a_normal() -> None:
    """Pitfall 37: eight normal seed means have the interval that a textbook gives them."""
    means = stats.norm.ppf((np.arange(NUM_SEEDS) + 0.5) / NUM_SEEDS)
    draws = resampled_means({"a": [np.full(1, mean) for mean in means]}, 0)["a"]
    low, high = seed_interval(0.0, draws, NUM_SEEDS, 0.95)[1:]
    half = stats.t.ppf(0.975, NUM_SEEDS - 1) * means.std(ddof=1) / np.sqrt(NUM_SEEDS)
    assert (low, high) == (pytest.approx(-half, rel=0.15), pytest.approx(half, rel=0.15))


def test_pairs_are_drawn_together() -> None:
    """The luck of seed and episode that agents share is not in their difference; without pairs that of episodes is."""
    rng = np.random.default_rng(0)
    luck = [rng.normal(level, 3, 40) for level in rng.normal(0, 5, 6)]
    both = {"a": [values + 1 for values in luck], "b": luck}
    draws = resampled_means(both, 0)
    np.testing.assert_allclose(draws["a"] - draws["b"], 1.0)
    apart = resampled_means(both, 0, paired=False)
    assert 0.1 < (apart["a"] - apart["b"]).std() < 1.0
    with pytest.raises(ValueError, match="equal numbers"):
        resampled_means({"a": [np.ones(2)], "b": [np.ones(3)]}, 0)
    resampled_means({"a": [np.ones(2)], "b": [np.ones(3)]}, 0, paired=False)


def test_a_seed_counts_alike_with_few_episodes_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"a": [np.arange(6.0), np.arange(50.0)]}
    whole = resampled_means(values, 3)["a"]
    assert whole.mean() == pytest.approx((2.5 + 24.5) / 2, abs=1.5)
    monkeypatch.setattr(statistics, "BATCH_VALUES", 100)  # two rows at a time: the same draws in the same order
    np.testing.assert_array_equal(resampled_means(values, 3)["a"], whole)


# ---------------------------------------------------------------- the null


def claimed_over_seeds(a: list[np.ndarray], b: list[np.ndarray], trial: int) -> tuple[bool, bool]:
    """Whether interval, and test, find a difference."""
    draws = resampled_means({"a": a, "b": b}, trial)
    difference = np.array([first.mean() - second.mean() for first, second in zip(a, b, strict=True)])
    interval = seed_interval(float(difference.mean()), draws["a"] - draws["b"], len(a), 0.95)
    return not interval.low <= 0 <= interval.high, seed_test(difference, trial).p_value < 0.05


def claimed_over_episodes(a: list[np.ndarray], b: list[np.ndarray], trial: int) -> tuple[bool, bool]:
    """The defect: all episodes of all trainings as if they were independent."""
    found = paired_test(np.concatenate(a), np.concatenate(b), trial)
    return not found.low <= 0 <= found.high, found.p_value < 0.05


def false_claims(claimed: Callable[..., tuple[bool, bool]]) -> np.ndarray:
    """(interval, test): the share of studies of two equally good methods that find a difference.

    Trainings of either method have their own luck (sd 1), episodes theirs (sd 2, shared by the pair, and 2).
    """
    rng = np.random.default_rng(0)
    found = []
    for trial in range(NUM_STUDIES):
        shared = rng.normal(0, 2, (NUM_SEEDS, 25))
        one, other = (
            list(shared + rng.normal(0, 1, (NUM_SEEDS, 1)) + rng.normal(0, 2, (NUM_SEEDS, 25))) for _ in range(2)
        )
        found.append(claimed(one, other, trial))
    return np.mean(found, axis=0)


def test_equal_methods_are_called_different_about_as_often_as_promised() -> None:
    """Pitfall 37: intervals and p-values over episodes fail this, those over training seeds hold their level."""
    interval, test = false_claims(claimed_over_seeds)
    assert 0.005 <= interval <= 0.08
    assert 0.02 <= test <= 0.08


def test_episodes_only_would_fail_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "NUM_RESAMPLES", 199)
    interval, test = false_claims(claimed_over_episodes)
    assert interval > 0.2 and test > 0.2


@pytest.mark.parametrize("num_seeds", [3, NUM_SEEDS])
def test_intervals_cover_the_truth(num_seeds: int) -> None:
    """Skewed returns of mean 2, trainings that differ: 95 % hold about 95 % of the time, also for few seeds."""
    rng, covered = np.random.default_rng(1), 0
    for trial in range(200):
        levels = rng.gamma(4.0, 0.5, num_seeds)
        episodes = [rng.exponential(level, 20) for level in levels]
        draws = resampled_means({"a": episodes}, trial)["a"]
        mean = float(np.mean([values.mean() for values in episodes]))
        interval = seed_interval(mean, draws, num_seeds, 0.95)
        covered += interval.low <= 2.0 <= interval.high
    assert (170 if num_seeds == 3 else 182) <= covered <= 200


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("low", "high", "p_value", "num_seeds", "word"),
    [
        (0.1, 2.0, 0.0078, 8, ABOVE),
        (-2.0, -0.1, 0.0078, 8, WORSE),
        (-0.1, 2.0, 0.0078, 8, SAME),
        (0.1, 2.0, 0.06, 8, SAME),
        (None, None, 0.0078, 8, SAME),
        (0.1, 2.0, 0.0001, 7, FEW),
        (-2.0, -0.1, 0.0001, 3, FEW),
    ],
)
def test_words_follow_from_numbers(low, high, p_value, num_seeds, word) -> None:
    """Pitfall 37: fewer than eight seeds claim nothing, whatever p is."""
    assert verdict(low, high, p_value, num_seeds, 0.95) == word
    assert over_seeds.MIN_SEEDS == 8
