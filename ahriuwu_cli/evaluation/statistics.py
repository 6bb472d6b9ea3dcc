"""Bootstrap intervals of means and of their ratios, and paired permutation tests, over the episodes of one training.

What several trainings say is in over_seeds.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import DegenerateDataWarning, bootstrap, permutation_test

NUM_RESAMPLES = 9999
BATCH_VALUES = 1 << 22  # values drawn at once, bounds the memory


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval, in the units of the values."""

    mean: float
    low: float
    high: float


class PairedResult(NamedTuple):
    """Mean of the paired differences a - b, its confidence interval, the two-sided p-value, and the pairs."""

    difference: float
    low: float
    high: float
    p_value: float
    n: int


def mean_interval(values: ArrayLike, confidence: float, seed: int) -> Interval:
    """Mean of independent values with its bootstrap interval (BCa, or percentile where BCa is undefined).

    Args:
        values: (N,) finite numbers.
        confidence: level of the interval, in (0, 1).
        seed: seed of the resampling; equal input gives an equal interval.

    Returns:
        The mean and the interval's ends. Constant values give an interval of no width. One value
        alone says nothing of its spread: both ends are NaN.

    Raises:
        ValueError: values are empty, not one-dimensional or not finite, or confidence is out of range.
    """
    sample = finite_sample("values", values)
    check_confidence(confidence)
    mean = float(sample.mean())
    if len(sample) == 1:
        return Interval(mean, float("nan"), float("nan"))
    if np.ptp(sample) == 0.0:
        value = float(sample[0])
        return Interval(value, value, value)
    return Interval(mean, *_interval((sample,), np.mean, confidence, seed))


def paired_test(a: ArrayLike, b: ArrayLike, seed: int, *, confidence: float = 0.95) -> PairedResult:
    """Two-sided paired permutation test of mean(a) = mean(b).

    Under the null hypothesis each difference a_i - b_i has either sign with equal probability; the
    signs are flipped in all ways (exact, few pairs) or in 9,999 random ways, and the p-value is the
    share of flips with a mean difference at least as extreme.

    Args:
        a: (N,) finite numbers.
        b: (N,) finite numbers; b[i] belongs to a[i] (same seed, same context).
        seed: seed of the resampling.
        confidence: level of the difference's bootstrap interval.

    Raises:
        ValueError: lengths differ, or either is empty, not one-dimensional or not finite.
    """
    first, second = _pair(a, b)
    differences = first - second
    interval = mean_interval(differences, confidence, seed)
    return PairedResult(*interval, sign_flip_p_value(differences, seed), len(differences))


def unpaired_test(a: ArrayLike, b: ArrayLike, seed: int, *, confidence: float = 0.95) -> PairedResult:
    """As `paired_test`, for values that do not belong together: labels are exchanged in place of signs.

    Raises:
        ValueError: lengths differ, or either is empty, not one-dimensional or not finite.
    """
    first, second = _pair(a, b)
    check_confidence(confidence)
    difference = float(first.mean() - second.mean())
    if len(first) == 1:
        return PairedResult(difference, float("nan"), float("nan"), 1.0, 1)
    if np.ptp(first) == 0.0 and np.ptp(second) == 0.0:
        low = high = difference
    else:
        low, high = _interval((first, second), _difference, confidence, seed, paired=False)
    p_value = 1.0 if np.ptp(np.concatenate([first, second])) == 0.0 else _exchange_p_value(first, second, seed)
    return PairedResult(difference, low, high, p_value, len(first))


def ratio_of_means(a: ArrayLike, b: ArrayLike, seed: int, *, confidence: float = 0.95, paired: bool = True) -> Interval:
    """mean(a) / mean(b) of paired values, with the bootstrap interval over pairs (BCa, else percentile).

    The share of the way from b to c that a has gone is the ratio of a - b to c - b.

    Args:
        a: (N,) finite numbers.
        b: (N,) finite numbers; b[i] belongs to a[i] (same seed, same context).
        seed: seed of the resampling.
        confidence: level of the interval, in (0, 1).
        paired: b[i] belongs to a[i].

    Returns:
        The ratio, as `mean`, and the interval's ends. Decision: a ratio to a mean that is not positive has no
        meaning and is NaN; the ends are NaN where one pair alone, or a resample of the pairs in which the mean
        of b is not positive, leaves them open.

    Raises:
        ValueError: lengths differ, either is empty, not one-dimensional or not finite, or confidence is out of
            range.
    """
    first, second = _pair(a, b)
    check_confidence(confidence)
    nan = float("nan")
    if second.mean() <= 0.0:
        return Interval(nan, nan, nan)
    ratio = float(first.mean() / second.mean())
    if len(first) == 1:
        return Interval(ratio, nan, nan)
    if np.ptp(first) == 0.0 and np.ptp(second) == 0.0:
        return Interval(ratio, ratio, ratio)
    return Interval(ratio, *_interval((first, second), _ratio, confidence, seed, paired=paired))


def _ratio(a: NDArray[np.float64], b: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    below = b.mean(axis=axis)
    return np.where(below > 0.0, a.mean(axis=axis) / np.where(below > 0.0, below, 1.0), np.nan)


def _difference(a: NDArray[np.float64], b: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    return np.asarray(a.mean(axis=axis) - b.mean(axis=axis))


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = finite_sample("a", a), finite_sample("b", b)
    if len(first) != len(second):
        raise ValueError(f"a has {len(first)} values and b has {len(second)}; paired values need equal lengths")
    return first, second


def check_confidence(confidence: float) -> None:
    """Refuse a level outside (0, 1)."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}; expected a level between 0 and 1")


def finite_sample(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """`values` as (N,) float64; ValueError when empty, of another shape or not finite."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) == 0:
        raise ValueError(f"{name} has shape {sample.shape}; expected (N,) with at least one value")
    if not np.isfinite(sample).all():
        raise ValueError(f"{name} has {int((~np.isfinite(sample)).sum())} values that are not finite")
    return sample


def _interval(
    samples: tuple[NDArray[np.float64], ...],
    statistic: Callable[..., Any],
    confidence: float,
    seed: int,
    *,
    paired: bool = True,
) -> tuple[float, float]:
    """Ends of a statistic's interval over samples: BCa, or percentile where BCa is undefined."""
    low, high = _bootstrap(samples, statistic, "BCa", confidence, seed, paired=paired)
    if not (np.isfinite(low) and np.isfinite(high)):
        low, high = _bootstrap(samples, statistic, "percentile", confidence, seed, paired=paired)
    return low, high


def _bootstrap(
    samples: tuple[NDArray[np.float64], ...],
    statistic: Callable[..., Any],
    method: Any,
    confidence: float,
    seed: int,
    *,
    paired: bool = True,
) -> tuple[float, float]:
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        result = bootstrap(
            samples,
            statistic,
            n_resamples=NUM_RESAMPLES,
            batch=max(1, BATCH_VALUES // len(samples[0])),
            paired=paired,
            vectorized=True,
            confidence_level=confidence,
            method=method,
            rng=np.random.default_rng(seed),
        )
    if not np.isfinite(result.bootstrap_distribution).all():
        return float("nan"), float("nan")
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def sign_flip_p_value(differences: NDArray[np.float64], seed: int) -> float:
    """Two-sided p-value of a mean of zero: all flips of signs for up to 13 differences, else 9,999 random ones."""
    if len(differences) == 1 or not differences.any():
        return 1.0  # every flip of signs is as extreme as what was seen
    result = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        alternative="two-sided",
        n_resamples=NUM_RESAMPLES,
        batch=max(1, BATCH_VALUES // len(differences)),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def _exchange_p_value(a: NDArray[np.float64], b: NDArray[np.float64], seed: int) -> float:
    result = permutation_test(
        (a, b),
        _difference,
        permutation_type="independent",
        alternative="two-sided",
        n_resamples=NUM_RESAMPLES,
        batch=max(1, BATCH_VALUES // (len(a) + len(b))),
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)
