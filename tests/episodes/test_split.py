"""The split: drawn for each episode by its number, close to the fraction at every length, never empty."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.episodes.manifest import SplitRule
from ahriuwu_cli.episodes.split import divide, split_of

rules = st.builds(SplitRule, fraction=st.floats(0.001, 0.999), seed=st.integers(0, 1000))


@settings(deadline=None, max_examples=60)
@given(rules, st.integers(0, 60))
def test_an_episode_has_its_split_whatever_else_is_there(rule: SplitRule, count: int) -> None:
    """Pitfall 7: whole episodes, the same split through every append, both splits of two or more."""
    whole = divide(range(100), rule)
    assert divide(range(count), rule) == whole[:count] == [split_of(number, rule) for number in range(count)]
    if count >= 2:
        assert set(whole[:count]) == {"train", "heldout"}
    held = whole[:count].count("heldout")
    assert abs(held - rule.fraction * count) < 2


@settings(deadline=None, max_examples=60)
@given(rules, st.sets(st.integers(0, 60), min_size=1))
def test_both_splits_where_some_episodes_are_missing(rule: SplitRule, numbers: set[int]) -> None:
    there = sorted(numbers)
    splits = divide(there, rule)
    if len(there) >= 2:
        assert set(splits) == {"train", "heldout"}
    drawn = [split_of(number, rule) for number in there]
    assert sum(a != b for a, b in zip(splits, drawn, strict=True)) <= (1 if len(set(drawn)) == 1 else 0)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.3, 0.5, 0.9, 1e-9, 1 - 1e-9])
def test_fractions(fraction: float) -> None:
    splits = divide(range(1000), SplitRule(fraction=fraction, seed=3))
    assert splits.count("heldout") == pytest.approx(min(max(1000 * fraction, 1), 999), abs=1)


def test_seeds_divide_differently_and_not_by_a_period() -> None:
    splits = {seed: divide(range(400), SplitRule(fraction=0.1, seed=seed)) for seed in range(5)}
    assert len({tuple(split) for split in splits.values()}) == 5
    held = [number for number, split in enumerate(splits[0]) if split == "heldout"]
    assert len({number % 10 for number in held}) > 5
