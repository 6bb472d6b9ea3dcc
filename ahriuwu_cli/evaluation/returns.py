"""Compare the returns of several agents, one training of each, over seeded episodes: a table, tests, JSON data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ahriuwu_cli.core.report import Report
from ahriuwu_cli.evaluation.statistics import Interval, mean_interval, paired_test, ratio_of_means, unpaired_test

BASELINE = "bc"
"""The agent that ratios of means refer to."""
MAX_NOTED = 6
"""Comparisons that are all written below the table; of more, those of neighbours and with the baseline."""
EXPERT = "expert"
"""The agent towards which the way from the baseline is measured."""


def compare(
    returns: Mapping[str, ArrayLike],
    order: Sequence[str],
    confidence: float,
    seed: int,
    *,
    lengths: Mapping[str, ArrayLike] | None = None,
    paired: bool = True,
) -> tuple[Report, dict[str, Any]]:
    """Summarise each agent's returns and test each agent against every agent before it.

    Intervals and p-values are over these episodes of these trainings; over_seeds.py says what more trainings say.

    Args:
        returns: by agent, the return (sum of rewards) of each episode (N,); entry i of every agent
            is the episode with the same seed.
        order: the agents from baseline to latest; each is compared with all before it.
        confidence: level of the intervals, in (0, 1).
        seed: seed of the resampling.
        lengths: by agent, the number of steps of each episode (N,); adds a column.
        paired: entry i is the same episode for every agent; else agents are compared as separate samples.

    Returns:
        The report (one row per agent, one note per comparison) and its `data`, ready for JSON:
        `confidence`, `seed`, `episodes`, `paired`, `agents` (by name `mean low high median min max episodes
        returns`, with lengths also `mean_length lengths`), `comparisons` (`agent baseline
        difference low high p_value n`; difference is agent minus baseline), `ratios` (where `bc` played, by
        name: mean return over that of `bc`, `ratio low high`) and `covered` (where `bc` and `expert` played, by
        name of those after `bc`: the share of the way from bc to expert, `share low high`). What the episodes
        cannot tell is null.

    Raises:
        ValueError: no agent, an order that does not name each agent once, or arrays that are
            empty, not finite or of different lengths.
    """
    if not order or sorted(order) != sorted(returns):
        raise ValueError(f"order names {list(order)}; expected each of {sorted(returns)} once")
    episodes = {name: np.asarray(returns[name], dtype=np.float64) for name in order}
    steps = None if lengths is None else _lengths(lengths, episodes)
    _check_pairs(episodes)
    agents = {name: _summary(values, confidence, seed) for name, values in episodes.items()}
    for name, counts in (steps or {}).items():
        agents[name] |= {"mean_length": float(counts.mean()), "lengths": counts.tolist()}
    comparisons = [
        _comparison(agent, baseline, episodes, confidence, seed, paired=paired)
        for position, agent in enumerate(order)
        for baseline in order[:position]
    ]
    data: dict[str, Any] = {
        "confidence": confidence,
        "seed": seed,
        "episodes": len(episodes[order[0]]),
        "paired": paired,
        "agents": agents,
        "comparisons": comparisons,
        "ratios": _ratios(episodes, confidence, seed, paired=paired),
        "covered": _covered(episodes, confidence, seed) if paired else {},
    }
    columns = ["agent", "mean return", f"{100 * confidence:g} % interval", "median", "min", "max", "episodes"]
    report = Report(
        title="Return per episode in the real environment",
        columns=[
            *columns,
            *([f"times {BASELINE}"] if data["ratios"] else []),
            *(["mean length"] if steps else []),
        ],
        rows=[_row(name, agent, data["ratios"]) for name, agent in agents.items()],
        data=data,
        notes=[*_notes(comparisons, order, paired=paired), *_covered_notes(data["covered"])],
    )
    return report, data


def _check_pairs(episodes: Mapping[str, NDArray[np.float64]]) -> None:
    shapes = {name: values.shape for name, values in episodes.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"agents have returns of shapes {shapes}; paired episodes need one shape (N,)")


def _lengths(
    lengths: Mapping[str, ArrayLike], episodes: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.int64]]:
    steps = {name: np.asarray(lengths[name], dtype=np.int64) for name in episodes if name in lengths}
    for name, values in episodes.items():
        if name not in steps or steps[name].shape != values.shape:
            found = steps[name].shape if name in steps else "no lengths"
            raise ValueError(f"agent {name!r} has {found}; expected lengths of shape {values.shape}")
    return steps


def _summary(values: NDArray[np.float64], confidence: float, seed: int) -> dict[str, Any]:
    interval = mean_interval(values, confidence, seed)
    return {
        "mean": interval.mean,
        "low": finite_or_none(interval.low),
        "high": finite_or_none(interval.high),
        "median": float(np.median(values)),
        "min": float(values.min()),
        "max": float(values.max()),
        "episodes": len(values),
        "returns": values.tolist(),
    }


def _comparison(
    agent: str,
    baseline: str,
    episodes: Mapping[str, NDArray[np.float64]],
    confidence: float,
    seed: int,
    *,
    paired: bool,
) -> dict[str, Any]:
    test = paired_test if paired else unpaired_test
    result = test(episodes[agent], episodes[baseline], seed, confidence=confidence)
    return {
        "agent": agent,
        "baseline": baseline,
        "difference": result.difference,
        "low": finite_or_none(result.low),
        "high": finite_or_none(result.high),
        "p_value": result.p_value,
        "n": result.n,
    }


def compared_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """(agent, baseline) of each agent with the one before it and of each with `bc`, once a pair, the later first."""
    place = {name: index for index, name in enumerate(names)}
    pairs = {(later, earlier) for earlier, later in pairwise(names)}
    for name in names:
        if BASELINE in place and name != BASELINE:
            pairs.add((name, BASELINE) if place[name] > place[BASELINE] else (BASELINE, name))
    return sorted(pairs, key=lambda pair: (place[pair[0]], place[pair[1]]))


def _ratios(
    episodes: Mapping[str, NDArray[np.float64]], confidence: float, seed: int, *, paired: bool
) -> dict[str, Any]:
    """Mean return of each agent over that of the baseline."""
    if BASELINE not in episodes:
        return {}
    return {
        name: _entry("ratio", ratio_of_means(values, episodes[BASELINE], seed, confidence=confidence, paired=paired))
        for name, values in episodes.items()
    }


def _covered(episodes: Mapping[str, NDArray[np.float64]], confidence: float, seed: int) -> dict[str, Any]:
    """The share (x - bc) / (expert - bc) of the way from the baseline to the expert, over paired episodes."""
    if not {BASELINE, EXPERT} <= set(episodes):
        return {}
    start, way = episodes[BASELINE], episodes[EXPERT] - episodes[BASELINE]
    names = list(episodes)
    later = [name for name in names[names.index(BASELINE) + 1 :] if name != EXPERT]
    return {
        name: _entry("share", ratio_of_means(episodes[name] - start, way, seed, confidence=confidence))
        for name in later
    }


def _entry(key: str, interval: Interval) -> dict[str, float | None]:
    return {
        key: finite_or_none(interval.mean),
        "low": finite_or_none(interval.low),
        "high": finite_or_none(interval.high),
    }


def finite_or_none(value: float) -> float | None:
    """`value`, or None (null in JSON) for one that is not finite."""
    return value if math.isfinite(value) else None


def _row(name: str, agent: Mapping[str, Any], ratios: Mapping[str, Mapping[str, Any]]) -> list[str]:
    numbers = [f"{agent[key]:.2f}" for key in ("median", "min", "max")]
    row = [name, f"{agent['mean']:.2f}", _range(agent), *numbers, str(agent["episodes"])]
    if name in ratios:
        row.append(_times(ratios[name]))
    if "mean_length" in agent:
        row.append(f"{agent['mean_length']:.1f}")
    return row


def _times(ratio: Mapping[str, float | None]) -> str:
    """A ratio and its interval as one cell."""
    if ratio["ratio"] is None:
        return "unknown"
    open_ended = ratio["low"] is None or ratio["high"] is None or ratio["low"] == ratio["high"]
    return f"{ratio['ratio']:.2f}" + ("" if open_ended else f" ({ratio['low']:.2f} to {ratio['high']:.2f})")


def _range(entry: Mapping[str, Any], sign: str = "") -> str:
    if entry["low"] is None or entry["high"] is None:
        return "unknown (one episode)"
    return f"{entry['low']:{sign}.2f} to {entry['high']:{sign}.2f}"


def _notes(comparisons: Sequence[Mapping[str, Any]], order: Sequence[str], *, paired: bool) -> list[str]:
    kind = "paired episodes" if paired else "episodes each, unpaired"
    pairs = compared_pairs(order) if len(comparisons) > MAX_NOTED else None
    notes = [
        f"{entry['agent']} minus {entry['baseline']}: {entry['difference']:+.2f} ({_range(entry, '+')}), "
        f"p = {entry['p_value']:.2g} over {entry['n']} {kind}"
        for entry in comparisons
        if pairs is None or (entry["agent"], entry["baseline"]) in pairs
    ]
    if pairs is not None:
        notes.append(f"{len(comparisons) - len(notes)} further comparisons are in the JSON data")
    if comparisons:
        corrected = f", not corrected for the {len(comparisons)} comparisons" if len(comparisons) > 1 else ""
        notes.append(
            f"p-values are two-sided and intervals over these episodes of this one training{corrected}; "
            "`ahriuwu study run` compares over training seeds"
        )
    return notes


def _covered_notes(covered: Mapping[str, Mapping[str, Any]]) -> list[str]:
    notes = []
    for name, entry in covered.items():
        if entry["share"] is None:
            notes.append(f"{name}: no share of the way, since {EXPERT} is not better than {BASELINE}")
        else:
            interval = "" if entry["low"] is None else f" ({_range(entry)})"
            notes.append(f"{name} covers {entry['share']:.2f}{interval} of the way from {BASELINE} to {EXPERT}")
    return notes
