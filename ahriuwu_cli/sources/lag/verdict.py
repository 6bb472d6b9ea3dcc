"""Which shift is the right one, and whether that can be told.

Shapes: U units (episodes, or stretches where these are few), S shifts, P parts, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ahriuwu_cli.sources.lag.probe import Scores
from ahriuwu_cli.sources.lag.stretches import FEWEST_UNITS, SHIFTS

RESAMPLES = 4000
CONFIDENCE = 0.95
LEAST_EXPLAINED = 0.02
"""Of the best shift: what is less comes from how people play as easily as from what their actions do."""


@dataclass(frozen=True)
class Measured:
    """What was measured at one shift.

    Attributes:
        shift: steps.
        explained: share of the trivial guess's loss that the probe does without; NaN where no step is known.
        low: end of its interval.
        high: end of its interval.
        accuracy: share of right guesses.
        trivial: that of the trivial guess.
        best: share of resamples in which no other shift explains more.
    """

    shift: int
    explained: float
    low: float
    high: float
    accuracy: float
    trivial: float
    best: float


@dataclass(frozen=True)
class Verdict:
    """All shifts, and the one that is right.

    Attributes:
        shifts: all of them.
        leading: the shift that explains most.
        shift: the same where it can be told, else None.
        reason: why it cannot be told; empty where it can.
    """

    shifts: tuple[Measured, ...]
    leading: int
    shift: int | None
    reason: str


def signed(shift: int) -> str:
    """A shift as text: +3, -2, 0."""
    return f"{shift:+d}" if shift else "0"


def judge(scores: Scores, seed: int) -> Verdict:
    """Name the shift at which actions are told best, where it is beyond chance.

    Units are drawn anew. Decision: it must explain LEAST_EXPLAINED, more than nothing (in all but 0.05 / S of the
    resamples, as the best of S was chosen), and more than each other shift in CONFIDENCE of the resamples.
    """
    loss, base = scores.loss.sum(axis=2), scores.trivial_loss.sum(axis=2)  # (U, S)
    units = len(loss)
    counts = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), RESAMPLES)  # (R, U)
    explained, drawn = _explained(loss.sum(axis=0), base.sum(axis=0)), _explained(counts @ loss, counts @ base)
    ranked = np.where(np.isnan(drawn), -np.inf, drawn)
    wins = np.bincount(ranked.argmax(axis=1), minlength=len(SHIFTS)) / RESAMPLES
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(ranked, ends, axis=0, method="nearest")
    weight = scores.weight.sum(axis=(0, 2))
    right, guessed = (
        values.sum(axis=(0, 2)) / np.where(weight > 0, weight, np.nan)
        for values in (scores.right, scores.trivially_right)
    )
    shifts = tuple(
        Measured(int(SHIFTS[i]), *(float(v[i]) for v in (explained, low, high, right, guessed, wins)))
        for i in range(len(SHIFTS))
    )
    lead = int(np.nanargmax(np.where(np.isnan(explained), -np.inf, explained)))
    above = float(np.quantile(ranked[:, lead], (1 - CONFIDENCE) / len(SHIFTS)))
    reason = _doubt(units, shifts[lead], above, _rival(shifts, lead))
    return Verdict(shifts, shifts[lead].shift, None if reason else shifts[lead].shift, reason)


def _explained(loss: np.ndarray, base: np.ndarray) -> np.ndarray:
    return np.asarray(1 - loss / np.where(base > 0, base, np.nan))


def _rival(shifts: tuple[Measured, ...], lead: int) -> Measured:
    """The other shift that is best most often, or else explains most."""
    others = [each for place, each in enumerate(shifts) if place != lead and not np.isnan(each.explained)]
    return max(others, key=lambda each: (each.best, each.explained), default=shifts[lead])


def _doubt(units: int, lead: Measured, above: float, rival: Measured) -> str:
    """Why the leading shift may not be the right one, in words."""
    if units < FEWEST_UNITS:
        return f"there are only {units} independent pieces of play; expected {FEWEST_UNITS} or more"
    if not (above > 0 and lead.explained >= LEAST_EXPLAINED):
        return (
            f"frames do not tell actions at any shift: the best, {signed(lead.shift)}, explains "
            f"{100 * max(0.0, lead.explained):.1f} % beyond the trivial guess"
        )
    if lead.best < CONFIDENCE:
        return (
            f"shifts {signed(lead.shift)} and {signed(rival.shift)} tell actions about as well: "
            f"{signed(lead.shift)} is best in {100 * lead.best:.0f} % of resamples"
        )
    return ""
