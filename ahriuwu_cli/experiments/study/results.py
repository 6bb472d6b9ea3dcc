"""results.json of a study: returns and cost of every seed that is done, pooled, and what follows from them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ahriuwu_cli.evaluation.pooled import pool_returns
from ahriuwu_cli.evaluation.returns import finite_or_none
from ahriuwu_cli.evaluation.statistics import ratio_of_means
from ahriuwu_cli.experiments.study.plan import Plan
from ahriuwu_cli.experiments.study.work import agent_trainings, cpu_minutes, read_result, world_of, world_trainings

LADDER = ("random", "dataset", "bc", "imagination")
"""The order that is hoped for: the first below the second, then each no worse than the one before."""

Facts = Mapping[str, Any]
"""What an agents.json holds."""


def gather(plan: Plan) -> dict[str, Any]:
    """All facts of a study, ready for JSON.

    Returns:
        `name game environment whole_roads agents best episodes confidence`, `seeds` (of each done one: `seed`, the
        episodes' seeds, by agent `mean returns`, `cpu_minutes` by training), `world_cpu_minutes` of what the seeds
        share, `missing`, and with at least one seed done `pooled` (see `pool_returns`) and `verdicts`.
    """
    results_of = [(item, read_result(plan, item)) for item in plan.items]
    found = [(item, facts) for item, facts in results_of if facts is not None]
    config, settings = plan.base.config, plan.settings
    whole = settings.whole_roads
    results: dict[str, Any] = {
        "name": config.run.name,
        "game": game_name(config.data.env),
        "environment": {"env": config.data.env, "options": config.data.env_options},
        "whole_roads": whole,
        "agents": plan.agents,
        "best": settings.best,
        "episodes": config.eval.episodes,
        "confidence": config.eval.confidence,
        "seeds": [
            {
                "seed": item.seed,
                "episode_seeds": facts["environment"]["seeds"],
                "agents": {
                    name: {"mean": facts["agents"][name]["mean"], "returns": facts["agents"][name]["returns"]}
                    for name in plan.agents
                },
                "cpu_minutes": cpu_minutes(
                    (world_trainings(plan, world_of(plan, item)) if whole else {}) | agent_trainings(plan, item)
                ),
            }
            for item, facts in found
        ],
        "world_cpu_minutes": None if whole else cpu_minutes(world_trainings(plan, plan.base)),
        "missing": [str(item) for item, facts in results_of if facts is None],
    }
    if found:
        seeds = [{"agents": entry["agents"]} for entry in results["seeds"]]
        results["pooled"] = pool_returns(seeds, config.eval.confidence, config.run.seed)
        results["verdicts"] = judge(results["pooled"], seeds, settings.best, config.eval.confidence, config.run.seed)
    return results


def game_name(env: str) -> str:
    """`ALE/Freeway-v5` -> `Freeway`."""
    return re.sub(r"-v\d+$", "", env.rpartition("/")[2])


def judge(
    pooled: Mapping[str, Any], seeds: Sequence[Facts], best: float | None, confidence: float, seed: int
) -> dict[str, Any]:
    """What the pooled returns say.

    Args:
        pooled: see `pool_returns`.
        seeds: what it was pooled from.
        best: best known return.
        confidence: level of intervals.
        seed: of the resampling.

    Returns:
        `imagination` and `bc`: the comparison with bc and with scratch (None when one of them did not play);
        `covered`: `share low high of`, the share of the way from bc to the expert, or to `best`, that imagination
        goes; `ladder`: `means` of those of LADDER that played and whether they rise as hoped (`holds`, None when one
        is missing).
    """
    agents = pooled["agents"]
    means = {name: agents[name]["mean"] for name in LADDER if name in agents}
    holds = None
    if len(means) == len(LADDER):
        random, dataset, bc, imagination = means.values()
        holds = random < dataset <= bc < imagination
    return {
        "imagination": _comparison(pooled, "imagination", "bc"),
        "bc": _comparison(pooled, "bc", "scratch"),
        "covered": _covered(seeds, best, confidence, seed) if {"bc", "imagination"} <= agents.keys() else None,
        "ladder": {"means": means, "holds": holds},
    }


def _comparison(pooled: Mapping[str, Any], agent: str, baseline: str) -> dict[str, Any] | None:
    pair = (agent, baseline)
    return next((dict(entry) for entry in pooled["comparisons"] if (entry["agent"], entry["baseline"]) == pair), None)


def _covered(seeds: Sequence[Facts], best: float | None, confidence: float, seed: int) -> dict[str, Any] | None:
    """(imagination - bc) / (target - bc) over paired episodes; None where there is no target."""
    start = _pooled_returns(seeds, "bc")  # (N,)
    if all("expert" in facts["agents"] for facts in seeds):
        target, of = _pooled_returns(seeds, "expert"), "expert"
    elif best is not None:
        target, of = np.full_like(start, best), "best known return"
    else:
        return None
    ratio = ratio_of_means(_pooled_returns(seeds, "imagination") - start, target - start, seed, confidence=confidence)
    share, low, high = (finite_or_none(value) for value in ratio)
    return {"share": share, "low": low, "high": high, "of": of, "target": float(target.mean())}


def _pooled_returns(seeds: Sequence[Facts], name: str) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(facts["agents"][name]["returns"], dtype=np.float64) for facts in seeds])
