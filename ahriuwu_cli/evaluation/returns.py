"""Compare the returns of several agents over the same seeded episodes: a table, paired tests, JSON data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ahriuwu_cli.core.report import Report
from ahriuwu_cli.evaluation.statistics import mean_interval, paired_test


def compare(
    returns: Mapping[str, ArrayLike],
    order: Sequence[str],
    confidence: float,
    seed: int,
    *,
    lengths: Mapping[str, ArrayLike] | None = None,
) -> tuple[Report, dict[str, Any]]:
    """Summarise each agent's returns and test each agent against every agent before it.

    Args:
        returns: by agent, the return (sum of rewards) of each episode (N,); entry i of every agent
            is the episode with the same seed.
        order: the agents from baseline to latest; each is compared with all before it.
        confidence: level of the intervals, in (0, 1).
        seed: seed of the resampling.
        lengths: by agent, the number of steps of each episode (N,); adds a column.

    Returns:
        The report (one row per agent, one note per comparison) and its `data`, ready for JSON:
        `confidence`, `seed`, `episodes`, `agents` (by name `mean low high median min max episodes
        returns`, with lengths also `mean_length lengths`) and `comparisons` (`agent baseline
        difference low high p_value n`; difference is agent minus baseline). Interval ends that one
        episode cannot give are null.

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
        _comparison(agent, baseline, episodes, confidence, seed)
        for position, agent in enumerate(order)
        for baseline in order[:position]
    ]
    data = {
        "confidence": confidence,
        "seed": seed,
        "episodes": len(episodes[order[0]]),
        "agents": agents,
        "comparisons": comparisons,
    }
    columns = ["agent", "mean return", f"{100 * confidence:g} % interval", "median", "min", "max", "episodes"]
    report = Report(
        title="Return per episode in the real environment",
        columns=[*columns, "mean length"] if steps else columns,
        rows=[_row(name, agent) for name, agent in agents.items()],
        data=data,
        notes=_notes(comparisons),
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
        "low": _finite_or_none(interval.low),
        "high": _finite_or_none(interval.high),
        "median": float(np.median(values)),
        "min": float(values.min()),
        "max": float(values.max()),
        "episodes": len(values),
        "returns": values.tolist(),
    }


def _comparison(
    agent: str, baseline: str, episodes: Mapping[str, NDArray[np.float64]], confidence: float, seed: int
) -> dict[str, Any]:
    result = paired_test(episodes[agent], episodes[baseline], seed, confidence=confidence)
    return {
        "agent": agent,
        "baseline": baseline,
        "difference": result.difference,
        "low": _finite_or_none(result.low),
        "high": _finite_or_none(result.high),
        "p_value": result.p_value,
        "n": result.n,
    }


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _row(name: str, agent: Mapping[str, Any]) -> list[str]:
    numbers = [f"{agent[key]:.2f}" for key in ("median", "min", "max")]
    row = [name, f"{agent['mean']:.2f}", _range(agent), *numbers, str(agent["episodes"])]
    if "mean_length" in agent:
        row.append(f"{agent['mean_length']:.1f}")
    return row


def _range(entry: Mapping[str, Any], sign: str = "") -> str:
    if entry["low"] is None or entry["high"] is None:
        return "unknown (one episode)"
    return f"{entry['low']:{sign}.2f} to {entry['high']:{sign}.2f}"


def _notes(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = [
        f"{entry['agent']} minus {entry['baseline']}: {entry['difference']:+.2f} ({_range(entry, '+')}), "
        f"p = {entry['p_value']:.2g} over {entry['n']} paired episodes"
        for entry in comparisons
    ]
    if len(comparisons) > 1:
        notes.append(f"p-values are two-sided and not corrected for the {len(comparisons)} comparisons")
    return notes
