"""The learning rate of each cloned agent, chosen by the likelihood of held-out actions with equal tries (pitfall 36).

Decision: imagination is not searched. It leaves the recorded play that held-out likelihood judges, and any other judge
(returns in the real game) is one that the baselines do not have; its settings are those of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.errors import ArtifactError
from ahriuwu_cli.experiments.plans import Training
from ahriuwu_cli.experiments.study.plan import Plan
from ahriuwu_cli.experiments.study.work import agent_trainings, cpu_minutes, prepare_world
from ahriuwu_cli.pipeline.config import Run

JUDGE = "heldout_policy"
"""Mean negative log-likelihood per action of held-out episodes, in nats."""
UNIFORM = "heldout_policy_uniform"
"""The same of a policy that knows nothing."""


@dataclass(frozen=True)
class Try:
    """One agent trained at one learning rate."""

    agent: str
    learning_rate: float
    training: Training


def search(plan: Plan) -> Plan:
    """Train every try that is not done; the plan with the best learning rate of each agent.

    Raises:
        ArtifactError: a training measured nothing on held-out episodes.
    """
    if not plan.settings.search.learning_rates:
        return plan
    if plan.settings.whole_roads:
        prepare_world(plan, _world(plan), "search: ")
    for one in _tries(plan):
        one.training.finish()
    return plan.with_rates(_best(plan))


def searched(plan: Plan) -> Plan:
    """The plan with what a finished search chose; as it is where there is none."""
    if not plan.settings.search.learning_rates or not all(one.training.is_done() for one in _tries(plan)):
        return plan
    return plan.with_rates(_best(plan))


def search_facts(plan: Plan) -> dict[str, Any] | None:
    """`seed judge chosen` and all `tries`, for results.json; None when nothing is searched, or it is not done."""
    if not plan.rates:
        return None
    tries = [
        {
            "agent": one.agent,
            "learning_rate": one.learning_rate,
            **heldout_of(one.training.weights),
            "cpu_minutes": cpu_minutes({"it": one.training})["it"],
        }
        for one in _tries(plan)
    ]
    return {"seed": plan.settings.search.seed, "judge": JUDGE, "chosen": dict(plan.rates), "tries": tries}


def heldout_of(weights: Path) -> dict[str, float]:
    """What a cloned agent's weights reached on held-out episodes: JUDGE, and UNIFORM beside it; empty if unmeasured."""
    found: Mapping[str, float] = read_header(weights, ("agent", "imagination")).info.get("heldout") or {}
    return {name: float(found[name]) for name in (JUDGE, UNIFORM) if name in found}


def _tries(plan: Plan) -> list[Try]:
    search = plan.settings.search
    world = _world(plan) if plan.settings.whole_roads else plan.base
    tries = []
    for agent in search.agents:
        for rate in search.learning_rates:
            place = plan.base.folder / "search" / f"{agent}-{rate:g}"
            item = plan.item(search.seed, place, {agent: rate}, world)
            tries.append(Try(agent, rate, agent_trainings(plan, item, f"search: {rate:g}, ")[agent]))
    return tries


def _world(plan: Plan) -> Run:
    """Where seeds share nothing, the tries share a world of their own."""
    place = plan.base.folder / "search" / "world"
    return plan.item(plan.settings.search.seed, place, {}).run


def _best(plan: Plan) -> dict[str, float]:
    losses: dict[str, dict[float, float]] = {}
    for one in _tries(plan):
        found = heldout_of(one.training.weights)
        if JUDGE not in found:
            raise ArtifactError(
                f"{one.training.weights} has no {JUDGE}: its training measured nothing on held-out episodes",
                hint="hold episodes out (data.heldout_fraction), or train it with this version",
            )
        losses.setdefault(one.agent, {})[one.learning_rate] = found[JUDGE]
    return {agent: min(found, key=lambda rate: found[rate]) for agent, found in losses.items()}
