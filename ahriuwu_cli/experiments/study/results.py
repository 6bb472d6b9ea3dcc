"""results.json of a study: returns and cost of every seed that is done, and what follows from them alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.errors import ArtifactError, InputError
from ahriuwu_cli.evaluation.over_seeds import METHOD
from ahriuwu_cli.evaluation.pooled import pool_returns
from ahriuwu_cli.evaluation.seal import SEAL, seal_fault, sealed
from ahriuwu_cli.experiments.plans import read_json
from ahriuwu_cli.experiments.study.frozen import frozen_facts
from ahriuwu_cli.experiments.study.plan import Plan
from ahriuwu_cli.experiments.study.search import heldout_of, search_facts
from ahriuwu_cli.experiments.study.work import agent_trainings, cpu_minutes, read_result, world_minutes, world_of
from ahriuwu_cli.games.seeds import Stream

CLAIMS = (("imagination", "bc"), ("imagination", "scratch"), ("imagination", "dataset"), ("bc", "scratch"))
"""The comparisons that a study is made for, the agent before its baseline."""
NEEDED = {"name", "game", "agents", "episodes", "confidence", "seeds", "whole_roads"}


def gather(plan: Plan) -> dict[str, Any]:
    """All facts of a study, ready for JSON.

    Returns:
        `name game environment whole_roads agents best episodes confidence stream paired`, `seeds` (of each done one:
        `seed`, the episodes' seeds, by agent `mean returns`, `heldout` by cloned agent, `cpu_minutes` by training,
        `playing_cpu_minutes` by agent), `world_cpu_minutes` of what the seeds share, `frozen` (see `frozen_facts`),
        `search` (see `search_facts`), `missing`, with at least one seed done what `judged` adds, and the seal.
    """
    results_of = [(item, read_result(plan, item)) for item in plan.items]
    found = [(item, facts) for item, facts in results_of if facts is not None]
    config, settings = plan.base.config, plan.settings
    whole = settings.whole_roads
    agents = [name for name in plan.agents if all(name in facts["agents"] for _, facts in found)]
    results: dict[str, Any] = {
        "name": config.run.name,
        "game": game_name(config.data.env),
        "environment": {"env": config.data.env, "options": config.data.env_options},
        "whole_roads": whole,
        "agents": agents,
        "best": settings.best,
        "episodes": config.eval.episodes,
        "confidence": config.eval.confidence,
        "stream": Stream.TEST.name.lower(),
        "paired": all(facts["environment"]["seeded"] for _, facts in found),
        "seeds": [
            {
                "seed": item.seed,
                "episode_seeds": facts["environment"]["seeds"],
                "agents": {
                    name: {"mean": facts["agents"][name]["mean"], "returns": facts["agents"][name]["returns"]}
                    for name in agents
                },
                "heldout": {name: heldout_of(one.weights) for name, one in agent_trainings(plan, item).items()},
                "cpu_minutes": (world_minutes(plan, world_of(plan, item)) if whole else {})
                | cpu_minutes(agent_trainings(plan, item)),
                "playing_cpu_minutes": facts["cpu_minutes"],
            }
            for item, facts in found
        ],
        "world_cpu_minutes": None if whole else world_minutes(plan, plan.base),
        "frozen": frozen_facts(plan),
        "search": search_facts(plan),
        "missing": [str(item) for item, facts in results_of if facts is None],
    }
    return judged(results)


def game_name(env: str) -> str:
    """`ALE/Freeway-v5` -> `Freeway`."""
    return re.sub(r"-v\d+$", "", env.rpartition("/")[2])


def judged(results: Mapping[str, Any]) -> dict[str, Any]:
    """The results with their statistics, all from the returns in them: `pooled` (see `pool_returns`) and `claims`.

    `claims` are the comparisons of CLAIMS whose agents played. Results without a finished seed have neither. All is
    sealed (see seal.py).
    """
    bare = {key: value for key, value in results.items() if key not in ("pooled", "claims", "verdicts", SEAL)}
    if not bare["seeds"]:
        return sealed(bare)
    pooled = pool_returns(bare["seeds"], bare["confidence"], 0, paired=bare.get("paired", True), best=bare.get("best"))
    by_pair = {(entry["agent"], entry["baseline"]): entry for entry in pooled["comparisons"]}
    return sealed({**bare, "pooled": pooled, "claims": [by_pair[pair] for pair in CLAIMS if pair in by_pair]})


def read_results(path: Path) -> tuple[dict[str, Any], bool]:
    """A results.json, and whether its statistics were made anew because they were of an older kind.

    Raises:
        InputError: nothing is there, it is not the result of a study, or no seed of it is done.
        ArtifactError: it is not as it was written.
    """
    results = read_json(path)
    if not results.keys() >= NEEDED or not results["seeds"]:
        found = "does not exist" if not path.exists() else "is not the result of a study, or no seed of it is done"
        raise InputError(f"{path} {found}", hint="give a results.json that `ahriuwu study run` wrote")
    fault = seal_fault(results) if SEAL in results else None
    if fault:
        raise ArtifactError(
            f"{path} is no result: {fault}", hint="restore it, or make it again with `ahriuwu study run --table-only`"
        )
    older = results.get("pooled", {}).get("method", {}).get("interval") != METHOD
    return (judged(results), True) if older else (results, False)
