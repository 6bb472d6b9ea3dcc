"""Distributions: few values exactly, many within a small share of their ranks, whatever they come in."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.sources.distribution import LIMIT, NUM_BINS, Distribution

SHARES = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)


def of(*pieces: object) -> Distribution:
    found = Distribution()
    for piece in pieces:
        found.add(np.asarray(piece, np.float32))
    return found


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(-5, 5), max_size=9), min_size=1, max_size=5))
def test_few_values_are_counted_exactly(pieces: list[list[int]]) -> None:
    numbers = [value for piece in pieces for value in piece]
    found = of(*pieces)
    assert found.count == len(numbers)
    if not numbers:
        assert found.quantiles(SHARES) == [None] * len(SHARES)
        assert found.facts()["mean"] is None
        return
    assert found.quantiles(SHARES) == np.quantile(numbers, SHARES, method="inverted_cdf").tolist()
    assert found.facts()["mean"] == pytest.approx(np.mean(numbers))
    values, counts = np.unique(numbers, return_counts=True)
    assert found.histogram() == [
        {"low": value, "high": value, "count": count} for value, count in zip(values, counts, strict=True)
    ]


@pytest.mark.parametrize("order", ["random", "rising", "falling", "atom"])
def test_many_values_are_close_in_rank_and_few_are_kept(order: str) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.lognormal(0, 2, 60_000).astype(np.float32)
    if order == "atom":  # as rewards are: zero but for some
        numbers[rng.random(len(numbers)) < 0.8] = 0
    numbers = np.sort(numbers) if order == "rising" else np.sort(numbers)[::-1] if order == "falling" else numbers
    found = of(*np.array_split(numbers, 40))
    assert len(found._values) <= LIMIT
    assert found.count == len(numbers)
    ranked = np.sort(numbers)
    for share, value in zip(SHARES, found.quantiles(SHARES), strict=True):
        low, high = (np.searchsorted(ranked, value, side) / len(ranked) for side in ("left", "right"))
        assert low - 0.005 <= share <= high + 0.005
    assert found.quantiles((0, 1)) == [numbers.min(), numbers.max()]
    assert found.facts()["mean"] == pytest.approx(numbers.mean(dtype=np.float64))
    if order == "atom":
        assert found.quantiles([0.5]) == [0]
    bins = found.histogram()
    assert len(bins) == NUM_BINS
    assert sum(entry["count"] for entry in bins) == pytest.approx(len(numbers), abs=NUM_BINS)
    assert json.loads(json.dumps(bins, allow_nan=False)) == bins
