"""The evaluation that ends a round: its agents in the real game, on the same seeded episodes as those before them."""

from __future__ import annotations

import sys
from typing import Any

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.device import apply_threads, resolve_runtime
from ahriuwu_cli.core.files import write_json
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.evaluation.agents import evaluate_agents
from ahriuwu_cli.evaluation.returns import finite_or_none
from ahriuwu_cli.evaluation.statistics import paired_test
from ahriuwu_cli.pipeline.improve.plan import Plan
from ahriuwu_cli.pipeline.plans import read_json, say
from ahriuwu_cli.pipeline.players import checkpoint_player, played_environment


def judge(plan: Plan, number: int) -> None:
    """Let the agents of a round play beside those they are compared with, unless these results are there.

    Played are, on paired seeds: the agent and the imagination of this round, the imagination of the round before, and
    the agent of round 0, which only cloned the base run's recording.
    """
    if read_result(plan, number) is not None:
        return
    this, run = plan.rounds[number], plan.rounds[number].run
    apply_threads(run.config.run)
    runtime = resolve_runtime(run.config.run)
    store = EpisodeStore.open(run.episodes)
    say(f"{this}: playing")
    players = {
        name: checkpoint_player(run, path, runtime, store.action_spec, store.frame_spec, name)
        for name, path in _checkpoints(plan, number).items()
    }
    settings, seed = run.config.eval, run.config.run.seed
    report = evaluate_agents(
        {name: player.policy for name, player in players.items()},
        played_environment(run, store),
        run.evaluation / "agent",
        settings,
        seed=seed,
        taken={record.seed for record in store.episodes},
        fingerprints={name: player.fingerprint for name, player in players.items() if player.fingerprint},
        on_agent=lambda name: print(f"playing {settings.episodes} episodes: {name}", file=sys.stderr),
    )
    agents: dict[str, Any] = report.data["agents"]
    mine = f"imagination-{number}"
    others = [name for name in agents if name in ("bc-0", f"imagination-{number - 1}")]
    facts = {
        "asked": _asked(plan, number),
        "agents": {name: {key: agent[key] for key in ("mean", "low", "high")} for name, agent in agents.items()},
        "over": {name: _difference(agents[mine], agents[name], seed, settings.confidence) for name in others},
    }
    write_json(this.result, facts)


def read_result(plan: Plan, number: int) -> dict[str, Any] | None:
    """A round's returns; None unless they are of its checkpoints as they are now, and of the present questions."""
    if not all(path.is_file() for path in _checkpoints(plan, number).values()):
        return None
    result = read_json(plan.rounds[number].result)
    return result if result.get("asked") == _asked(plan, number) else None


def _checkpoints(plan: Plan, number: int) -> dict[str, Any]:
    """Who plays, baselines first."""
    rounds = plan.rounds
    found = {"bc-0": rounds[0].run.agent}
    if number:
        found[f"imagination-{number - 1}"] = rounds[number - 1].run.imagination
        found[f"bc-{number}"] = rounds[number].run.agent
    return found | {f"imagination-{number}": rounds[number].run.imagination}


def _asked(plan: Plan, number: int) -> dict[str, Any]:
    """What a result answers; another answer is needed when any of it changes."""
    config = plan.rounds[number].run.config
    checkpoints = _checkpoints(plan, number)
    return {
        "fingerprints": {
            name: read_header(path, ("agent", "imagination")).fingerprint for name, path in checkpoints.items()
        },
        "episodes": config.eval.episodes,
        "temperature": config.eval.temperature,
        "confidence": config.eval.confidence,
        "seed": config.run.seed,
    }


def _difference(agent: dict[str, Any], baseline: dict[str, Any], seed: int, confidence: float) -> dict[str, Any]:
    """Agent minus baseline over the paired episodes."""
    result = paired_test(agent["returns"], baseline["returns"], seed, confidence=confidence)
    return {
        "difference": result.difference,
        "low": finite_or_none(result.low),
        "high": finite_or_none(result.high),
        "p_value": result.p_value,
        "n": result.n,
    }
