"""The evaluation that ends a round: its agents in the real game, on the same seeded episodes as those before them."""

from __future__ import annotations

from typing import Any

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.device import apply_threads, resolve_runtime
from ahriuwu_cli.core.files import write_json
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.evaluation.agents import require_all_played
from ahriuwu_cli.experiments.improve.plan import Plan
from ahriuwu_cli.experiments.plans import read_json, say
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.players import checkpoint_player


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
    report = stages.compare_players(run, store, players)
    require_all_played(report)
    agents: dict[str, Any] = report.data["agents"]
    mine = f"imagination-{number}"
    others = [name for name in agents if name in ("bc-0", f"imagination-{number - 1}")]
    facts = {
        "asked": _asked(plan, number),
        "agents": {name: {key: agent[key] for key in ("mean", "low", "high")} for name, agent in agents.items()},
        "over": {name: _difference(report.data["comparisons"], mine, name) for name in others},
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
    } | ({"game": config.eval.game} if config.eval.game else {})


def _difference(comparisons: list[dict[str, Any]], agent: str, baseline: str) -> dict[str, Any]:
    """Agent minus baseline over the paired episodes."""
    [found] = [entry for entry in comparisons if (entry["agent"], entry["baseline"]) == (agent, baseline)]
    return {key: found[key] for key in ("difference", "low", "high", "p_value", "n")}
