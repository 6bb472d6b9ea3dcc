"""Statistics over training seeds: hierarchical bootstrap intervals, a seed-level test, and the verdict that follows.

A claim about a method is a claim about trainings, so the unit is the training seed: episodes of one training tell how
well that training plays, not how well the next one will (pitfall 37).

Shapes: S training seeds, N episodes of one of them, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ahriuwu_cli.evaluation import statistics
from ahriuwu_cli.evaluation.statistics import Interval, check_confidence, finite_sample, sign_flip_p_value

MIN_SEEDS = 8
"""Decision: fewer training seeds carry no claim. All of 8 agreeing give p = 2 / 2**8 = 0.0078, all of 7 give 0.016."""
METHOD = "hierarchical bootstrap (training seeds, then episodes of each), ends widened for the number of seeds"
TEST = "two-sided exact sign-flip test over the mean differences of the training seeds"

ABOVE, SAME, WORSE, FEW = "above", "no difference shown", "worse", "not enough seeds"
"""What can be said of an agent beside another; see `verdict`."""

ROUNDING = 1e-9
"""Seeds that differ by a smaller share of their values differ by nothing."""

Returns = Sequence[NDArray[np.float64]]
"""By training seed, the return of each episode (N,)."""


class SeedTest(NamedTuple):
    """Mean difference over training seeds and how likely chance is to give one as large.

    Attributes:
        difference: mean of the seeds' mean differences.
        p_value: of the sign-flip test.
        t_p_value: of the paired t-test; NaN for one seed, or when all differ by the same.
        num_seeds: S.
    """

    difference: float
    p_value: float
    t_p_value: float
    num_seeds: int


def seed_means(returns: Returns) -> NDArray[np.float64]:
    """(S,) the mean return of each training seed."""
    return np.array([episodes.mean() for episodes in returns])


def resampled_means(
    returns: Mapping[str, Returns], seed: int, *, paired: bool = True
) -> dict[str, NDArray[np.float64]]:
    """Hierarchical bootstrap: draw training seeds with replacement, then episodes of each drawn seed.

    All agents are drawn together, the same seeds for all and, where episodes are paired, the same episodes, so that
    any difference or ratio of what comes back has its own distribution.

    Decision: each drawn seed counts alike, however many episodes it has. Means of seeds already vary with their
    episodes, and episodes are drawn on top: intervals come out a little too wide, most where trainings are alike.

    Args:
        returns: by agent, the returns by training seed; all agents have the same S, and where `paired` the same N
            for each seed.
        seed: of the resampling.
        paired: episode i of a seed is the same episode for every agent.

    Returns:
        By agent, (B,) resampled means.
    """
    counts = {name: [len(episodes) for episodes in values] for name, values in returns.items()}
    shapes = [tuple(found) if paired else len(found) for found in counts.values()]
    if len(set(shapes)) > 1:
        raise ValueError(f"agents have {counts} episodes by training seed; paired ones need equal numbers")
    rng = np.random.default_rng(seed)
    num_seeds, num_resamples = len(next(iter(counts.values()))), statistics.NUM_RESAMPLES
    drawn = rng.integers(0, num_seeds, (num_resamples, num_seeds))  # (B, S)
    means = {name: np.empty(drawn.shape) for name in returns}
    for place in range(num_seeds):
        rows = np.nonzero(drawn == place)  # M draws of this seed
        groups = [list(returns)] if paired else [[name] for name in returns]
        for group in groups:
            _fill(means, rows, {name: returns[name][place] for name in group}, rng)
    return {name: found.mean(axis=1) for name, found in means.items()}


def _fill(
    means: Mapping[str, NDArray[np.float64]],
    rows: tuple[NDArray[np.intp], ...],
    episodes: Mapping[str, NDArray[np.float64]],
    rng: np.random.Generator,
) -> None:
    """Put the means of freshly drawn episodes into `rows`, the same draws for all of `episodes`, a batch at a time."""
    count, num_rows = len(next(iter(episodes.values()))), len(rows[0])
    step = max(1, statistics.BATCH_VALUES // count)
    for start in range(0, num_rows, step):
        some = tuple(part[start : start + step] for part in rows)
        chosen = rng.integers(0, count, (len(some[0]), count))  # (M, N)
        for name, values in episodes.items():
            means[name][some] = values[chosen].mean(axis=1)


def seed_interval(value: float, resampled: ArrayLike, num_seeds: int, confidence: float) -> Interval:
    """The interval of a statistic from its resampled values (B,).

    The percentiles of a bootstrap over few units are too near to each other, by the root of (S-1)/S and for want of
    Student's t. Decision: the expanded percentile interval (Hesterberg, "What Teachers Should Know About the
    Bootstrap", 2015) takes those percentiles that would be right for the mean of S normal values.

    Returns:
        The value and the ends; NaN ends for one seed, and where a resample leaves the statistic undefined.
    """
    check_confidence(confidence)
    values = np.asarray(resampled, np.float64)
    if num_seeds < 2 or not np.isfinite(values).all():
        return Interval(value, math.nan, math.nan)
    quantile = stats.t.ppf((1 - confidence) / 2, num_seeds - 1) * math.sqrt(num_seeds / (num_seeds - 1))
    tail = float(stats.norm.cdf(quantile))
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def seed_test(differences: ArrayLike, seed: int) -> SeedTest:
    """Test that an agent is as good as another, from the mean difference of each training seed.

    Decision: the p-value that counts is that of the sign-flip test. It asks only that a seed's difference be as likely
    to have either sign when nothing differs, and is exact for few seeds (up to 13 all flips are tried). The t-test
    asks for normal differences and stands beside it.

    Args:
        differences: (S,) mean difference of each training seed.
        seed: of the flips where there are too many to try all.
    """
    values = finite_sample("differences", differences)
    spread = len(values) > 1 and float(np.ptp(values)) > ROUNDING * float(np.abs(values).max())
    t_p_value = float(stats.ttest_1samp(values, 0.0).pvalue) if spread else math.nan
    return SeedTest(float(values.mean()), sign_flip_p_value(values, seed), t_p_value, len(values))


def verdict(low: float | None, high: float | None, p_value: float, num_seeds: int, confidence: float) -> str:
    """The one place where numbers become words: `ABOVE`, `SAME`, `WORSE` or `FEW`.

    Args:
        low: lower end of the difference's interval; None or NaN when unknown.
        high: upper end.
        p_value: of the seed-level test.
        num_seeds: training seeds behind it.
        confidence: level of the interval; p must be below what is left of it.
    """
    if num_seeds < MIN_SEEDS:
        return FEW
    if low is None or high is None or p_value >= 1 - confidence:
        return SAME
    return ABOVE if low > 0 else WORSE if high < 0 else SAME
