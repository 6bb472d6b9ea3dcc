"""Results of `eval agent` over several training seeds, pooled: means, differences, ratios, verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ahriuwu_cli.evaluation.over_seeds import (
    METHOD,
    MIN_SEEDS,
    TEST,
    Returns,
    resampled_means,
    seed_interval,
    seed_means,
    seed_test,
    verdict,
)
from ahriuwu_cli.evaluation.returns import finite_or_none
from ahriuwu_cli.evaluation.statistics import Interval, check_confidence

RECORDED, EXPERT = "dataset", "expert"
"""The ends of the way: the recorded player, and the script without its random actions."""

LEARNED = ("scratch", "bc", "imagination")


def pool_returns(
    facts: Sequence[Mapping[str, Any]],
    confidence: float,
    seed: int,
    *,
    paired: bool = True,
    best: float | None = None,
) -> dict[str, Any]:
    """Pool the facts of several agents.json, one per training seed.

    The unit is the training seed (see over_seeds.py): a mean is that of the seeds' means, an interval comes from the
    hierarchical bootstrap, a p-value from the seeds' mean differences.

    Args:
        facts: what agents.json holds, one per training seed; `agents` by name with their `returns`.
        confidence: level of the intervals, in (0, 1).
        seed: of the resampling.
        paired: agents of one training seed played the same episodes.
        best: best known return, the end of the way where the expert did not play.

    Returns:
        Ready for JSON. `method`: `interval test min_seeds paired`. `agents`: by name, for the agents that all `facts`
        have, in the order of the first, `mean low high per_seed num_seeds episodes` (per_seed: the mean of each
        training seed). `comparisons`: of each agent with each before it, `agent baseline difference low high p_value
        t_p_value num_seeds ratio ratio_low ratio_high per_seed verdict` (difference is agent minus baseline, ratio
        is mean of agent / mean of baseline, per_seed the difference of each training seed). `way`: by learned agent,
        the share of the way from the recorded player to the expert or to `best`, `share low high of target`; empty
        where an end is missing. What cannot be told is null.

    Raises:
        ValueError: no facts, no agent that all have, or agents of one training seed with different numbers of
            episodes.
    """
    check_confidence(confidence)
    if not facts:
        raise ValueError("there are no results to pool; expected those of at least one training seed")
    names = [name for name in facts[0]["agents"] if all(name in results["agents"] for results in facts)]
    if not names:
        found = [sorted(results["agents"]) for results in facts]
        raise ValueError(f"no agent is in all of the results; they have {found}")
    returns = {name: [_returns(results, name) for results in facts] for name in names}  # name -> seeds x (N,)
    draws = resampled_means(returns, seed, paired=paired)
    pool = _Pool(returns, draws, len(facts), confidence, seed)
    return {
        "method": {"interval": METHOD, "test": TEST, "min_seeds": MIN_SEEDS, "paired": paired},
        "agents": {name: pool.agent(name) for name in names},
        "comparisons": [pool.comparison(agent, baseline) for baseline, agent in combinations(names, 2)],
        "way": pool.way(best),
    }


def _returns(results: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    return np.asarray(results["agents"][name]["returns"], dtype=np.float64)  # (N,)


class _Pool:
    """Returns of all agents and their resampled means (B,), drawn together."""

    def __init__(
        self,
        returns: Mapping[str, Returns],
        draws: Mapping[str, NDArray[np.float64]],
        num_seeds: int,
        confidence: float,
        seed: int,
    ) -> None:
        self._returns = returns
        self._means = {name: seed_means(values) for name, values in returns.items()}  # (S,)
        self._draws = draws
        self._num_seeds = num_seeds
        self._confidence = confidence
        self._seed = seed

    def agent(self, name: str) -> dict[str, Any]:
        means = self._means[name]
        return {
            **_ends("mean", self._interval(float(means.mean()), self._draws[name])),
            "per_seed": means.tolist(),
            "num_seeds": self._num_seeds,
            "episodes": sum(map(len, self._returns[name])),
        }

    def comparison(self, agent: str, baseline: str) -> dict[str, Any]:
        differences = self._means[agent] - self._means[baseline]
        test = seed_test(differences, self._seed)
        ends = _ends("difference", self._interval(test.difference, self._draws[agent] - self._draws[baseline]))
        means = float(self._means[agent].mean()), float(self._means[baseline].mean())
        ratio = self._ratio(*means, self._draws[agent], self._draws[baseline])
        return {
            "agent": agent,
            "baseline": baseline,
            **ends,
            "p_value": test.p_value,
            "t_p_value": finite_or_none(test.t_p_value),
            "num_seeds": test.num_seeds,
            "ratio": finite_or_none(ratio.mean),
            "ratio_low": finite_or_none(ratio.low),
            "ratio_high": finite_or_none(ratio.high),
            "per_seed": differences.tolist(),
            "verdict": verdict(ends["low"], ends["high"], test.p_value, test.num_seeds, self._confidence),
        }

    def way(self, best: float | None) -> dict[str, Any]:
        """(x - recorded player) / (expert - recorded player) of every learned agent."""
        if RECORDED not in self._means:
            return {}
        start, start_draws = float(self._means[RECORDED].mean()), self._draws[RECORDED]
        if EXPERT in self._means:
            target, target_draws, of = float(self._means[EXPERT].mean()), self._draws[EXPERT], EXPERT
        elif best is not None:
            target, target_draws, of = best, np.full_like(start_draws, best), "best known return"
        else:
            return {}
        found = {}
        for name in LEARNED:
            if name in self._means:
                gone, way = self._draws[name] - start_draws, target_draws - start_draws
                share = self._ratio(float(self._means[name].mean()) - start, target - start, gone, way)
                found[name] = {**_ends("share", share), "of": of, "target": target}
        return found

    def _ratio(
        self, above: float, below: float, above_draws: NDArray[np.float64], below_draws: NDArray[np.float64]
    ) -> Interval:
        """A ratio of two means. Decision: one to a mean that is not positive has no meaning and is NaN."""
        if below <= 0.0:
            return Interval(float("nan"), float("nan"), float("nan"))
        safe = np.where(below_draws > 0.0, below_draws, np.nan)
        return self._interval(above / below, above_draws / safe)

    def _interval(self, value: float, draws: NDArray[np.float64]) -> Interval:
        return seed_interval(value, draws, self._num_seeds, self._confidence)


def _ends(key: str, interval: Interval) -> dict[str, float | None]:
    return {
        key: finite_or_none(interval.mean),
        "low": finite_or_none(interval.low),
        "high": finite_or_none(interval.high),
    }
