"""Results of `eval agent` over several training seeds, pooled: means, paired differences, ratios of means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ahriuwu_cli.evaluation.returns import compared_pairs, finite_or_none
from ahriuwu_cli.evaluation.statistics import mean_interval, paired_test, ratio_of_means


def pool_returns(facts: Sequence[Mapping[str, Any]], confidence: float, seed: int) -> dict[str, Any]:
    """Pool the facts of several agents.json, one per training seed.

    A pair is one agent and another on the same episode of the same training seed; all pairs count alike.
    Decision: intervals and p-values are over episodes and speak of these trainings; how much the trainings
    differ is shown by `per_seed`.

    Args:
        facts: what agents.json holds, one per training seed; `agents` by name with their `returns`.
        confidence: level of the intervals, in (0, 1).
        seed: of the resampling.

    Returns:
        Ready for JSON. `agents`: by name, for the agents that all `facts` have, in the order of the first,
        `mean low high per_seed episodes` (per_seed: the mean of each training seed). `comparisons`: of each
        agent with the one before it, and of each with `bc`, once a pair, the later agent with the earlier,
        `agent baseline difference low high p_value ratio ratio_low ratio_high n per_seed` (difference is
        agent minus baseline, ratio is mean of agent / mean of baseline, per_seed the difference of each
        training seed). What cannot be told is null.

    Raises:
        ValueError: no facts, no agent that all have, or agents of one training seed with different numbers of
            episodes.
    """
    if not facts:
        raise ValueError("there are no results to pool; expected those of at least one training seed")
    names = [name for name in facts[0]["agents"] if all(name in results["agents"] for results in facts)]
    if not names:
        found = [sorted(results["agents"]) for results in facts]
        raise ValueError(f"no agent is in all of the results; they have {found}")
    _check_pairs(facts, names)
    returns = {name: [_returns(results, name) for results in facts] for name in names}  # name -> seeds x (N,)
    return {
        "agents": {name: _agent(values, confidence, seed) for name, values in returns.items()},
        "comparisons": [
            _comparison(agent, baseline, returns, confidence, seed) for agent, baseline in compared_pairs(names)
        ],
    }


def _returns(results: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    return np.asarray(results["agents"][name]["returns"], dtype=np.float64)  # (N,)


def _check_pairs(facts: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    for place, results in enumerate(facts):
        counts = {name: len(_returns(results, name)) for name in names}
        if len(set(counts.values())) > 1:
            raise ValueError(f"results {place} have {counts} episodes; paired episodes need one number")


def _agent(values: Sequence[NDArray[np.float64]], confidence: float, seed: int) -> dict[str, Any]:
    pooled = np.concatenate(values)
    interval = mean_interval(pooled, confidence, seed)
    return {
        "mean": interval.mean,
        "low": finite_or_none(interval.low),
        "high": finite_or_none(interval.high),
        "per_seed": [float(returns.mean()) for returns in values],
        "episodes": len(pooled),
    }


def _comparison(
    agent: str, baseline: str, returns: Mapping[str, Sequence[NDArray[np.float64]]], confidence: float, seed: int
) -> dict[str, Any]:
    first, second = np.concatenate(returns[agent]), np.concatenate(returns[baseline])
    test = paired_test(first, second, seed, confidence=confidence)
    ratio = ratio_of_means(first, second, seed, confidence=confidence)
    pairs = zip(returns[agent], returns[baseline], strict=True)
    return {
        "agent": agent,
        "baseline": baseline,
        "difference": test.difference,
        "low": finite_or_none(test.low),
        "high": finite_or_none(test.high),
        "p_value": test.p_value,
        "ratio": finite_or_none(ratio.mean),
        "ratio_low": finite_or_none(ratio.low),
        "ratio_high": finite_or_none(ratio.high),
        "n": test.n,
        "per_seed": [float((one - other).mean()) for one, other in pairs],
    }
