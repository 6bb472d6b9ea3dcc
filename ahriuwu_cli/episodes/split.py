"""Which episodes are held out: drawn for each episode by its number, whatever else is in the store.

Decision: episodes fall into strata of 1 / fraction consecutive numbers, of each of which one is held out, drawn by the
split's seed. So the share is kept to within one episode however long the store becomes, and an episode's split is known
before it is played: a recording that was stopped and gone on with is divided as one without a break.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from ahriuwu_cli.episodes.manifest import Split, SplitRule

FINEST = 10**6
"""Fractions are taken to this denominator, so that strata are counted in integers."""


def divide(numbers: Sequence[int], rule: SplitRule) -> list[Split]:
    """Give the splits of the episodes with these numbers (rising); of two or more, both splits get at least one."""
    return with_both([split_of(number, rule) for number in numbers])


def split_of(number: int, rule: SplitRule) -> Split:
    """Draw the split of the episode with this number (from 0)."""
    splits: tuple[Split, Split] = ("heldout", "train") if rule.fraction <= 0.5 else ("train", "heldout")
    share = Fraction(min(rule.fraction, 1 - rule.fraction)).limit_denominator(FINEST) or Fraction(1, FINEST)
    stratum = int(number * share)
    start, end = _first(stratum, share), _first(stratum + 1, share)
    # in the first stratum one of the first two, so that two episodes have both splits
    among = min(2, end - start) if stratum == 0 else end - start
    chosen = start + int(np.random.default_rng([rule.seed, stratum]).integers(among))
    return splits[number != chosen]


def with_both(splits: list[Split], changeable: int = 0) -> list[Split]:
    """These splits; where two or more episodes are all in one, the first from place `changeable` on goes to the other.

    That happens while an episode of the first stratum is not there: not finished, or skipped.
    """
    if len(splits) < 2 or len(set(splits)) == 2 or changeable >= len(splits):
        return splits
    other: Split = "train" if splits[0] == "heldout" else "heldout"
    return [*splits[:changeable], other, *splits[changeable + 1 :]]


def _first(stratum: int, share: Fraction) -> int:
    """The lowest number of a stratum: its index over the share, rounded up."""
    return -(-stratum * share.denominator // share.numerator)
