"""Bootstrap interval of a mean and paired permutation test, both by SciPy and deterministic given a seed."""

from __future__ import annotations

import warnings
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
    sample = _sample("values", values)
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}; expected a level between 0 and 1")
    mean = float(sample.mean())
    if len(sample) == 1:
        return Interval(mean, float("nan"), float("nan"))
    if np.ptp(sample) == 0.0:
        value = float(sample[0])
        return Interval(value, value, value)
    low, high = _bootstrap(sample, "BCa", confidence, seed)
    if not (np.isfinite(low) and np.isfinite(high)):
        low, high = _bootstrap(sample, "percentile", confidence, seed)
    return Interval(mean, low, high)


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
    first, second = _sample("a", a), _sample("b", b)
    if len(first) != len(second):
        raise ValueError(f"a has {len(first)} values and b has {len(second)}; paired values need equal lengths")
    differences = first - second
    interval = mean_interval(differences, confidence, seed)
    return PairedResult(*interval, _p_value(differences, seed), len(differences))


def _sample(name: str, values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) == 0:
        raise ValueError(f"{name} has shape {sample.shape}; expected (N,) with at least one value")
    if not np.isfinite(sample).all():
        raise ValueError(f"{name} has {int((~np.isfinite(sample)).sum())} values that are not finite")
    return sample


def _bootstrap(sample: NDArray[np.float64], method: Any, confidence: float, seed: int) -> tuple[float, float]:
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        interval = bootstrap(
            (sample,),
            np.mean,
            n_resamples=NUM_RESAMPLES,
            batch=max(1, BATCH_VALUES // len(sample)),
            confidence_level=confidence,
            method=method,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(interval.low), float(interval.high)


def _p_value(differences: NDArray[np.float64], seed: int) -> float:
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
