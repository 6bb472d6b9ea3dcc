"""The work behind a study: the shared world, then each seed's agents trained and played, unless that is done."""

from __future__ import annotations

import math
from typing import Any

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.files import write_json, write_text
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.evaluation.agents import require_all_played
from ahriuwu_cli.evaluation.seal import seal_fault
from ahriuwu_cli.experiments.plans import (
    Training,
    agent_training,
    data_minutes,
    dynamics_training,
    imagination_training,
    prepare_data,
    read_json,
    say,
    scratch_training,
    tokenizer_training,
)
from ahriuwu_cli.experiments.study.plan import Item, Plan
from ahriuwu_cli.games.seeds import Stream
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.config import CONFIG_NAME, Run
from ahriuwu_cli.pipeline.players import offers_expert, played_environment
from ahriuwu_cli.pipeline.template import render_config

# ---------------------------------------------------------------- the world


def prepare_world(plan: Plan, run: Run, name: str = "") -> None:
    """Record, encode and learn the dynamics in `run`, as far as that is not done and some agent needs it."""
    _write_config(plan, run)
    prepare_data(run, name)
    if _needs_world(plan):
        dynamics_training(run, f"{name}dynamics").finish()


def world_of(plan: Plan, item: Item) -> Run:
    """The run whose world a seed's agents live in."""
    return item.run if plan.settings.whole_roads else plan.base


def world_trainings(plan: Plan, run: Run) -> dict[str, Training]:
    """The trainings of the world in `run`, by kind."""
    trainings = {"tokenizer": tokenizer_training(run)}
    return trainings | ({"dynamics": dynamics_training(run)} if _needs_world(plan) else {})


def _needs_world(plan: Plan) -> bool:
    return bool({"bc", "imagination"} & set(plan.agents))


# ---------------------------------------------------------------- one seed


def work_on(plan: Plan, item: Item) -> None:
    """Train a seed's agents and let all agents play, as far as that is not done."""
    if plan.settings.whole_roads:
        prepare_world(plan, item.run, f"{item}: ")
    for training in agent_trainings(plan, item).values():
        training.finish()
    if read_result(plan, item) is None:
        say(f"{item}: playing")
        report = stages.evaluate_agent(item.run, _playing(plan, item), stream=Stream.TEST)
        require_all_played(report)
        write_json(item.result, {"asked": _asked(plan, item), "facts": report.data})


def _playing(plan: Plan, item: Item) -> list[str]:
    """Who plays: all of the plan, but no expert that the environment does not offer."""
    game = played_environment(item.run, EpisodeStore.open(item.run.episodes))
    if "expert" not in plan.agents or offers_expert(game):
        return plan.agents
    say(f"{item}: {game.env} offers no expert, who is left out")
    return [name for name in plan.agents if name != "expert"]


def agent_trainings(plan: Plan, item: Item, said: str = "") -> dict[str, Training]:
    """The trainings of a seed's agents, by the agents' names, in the order they are made; `said` before the name."""
    said = said or f"{item}: "
    trainings = {
        "scratch": scratch_training(item.baseline, f"{said}scratch"),
        "bc": agent_training(item.run, f"{said}bc"),
        "imagination": imagination_training(item.run, f"{said}imagination"),
    }
    wanted = {*plan.agents, *(["bc"] if "imagination" in plan.agents else [])}
    return {name: training for name, training in trainings.items() if name in wanted}


def _write_config(plan: Plan, run: Run) -> None:
    """A world is a run like any other: its folder says how it was made, unless the study's own config lies there."""
    text, path = render_config(run.config), run.folder / CONFIG_NAME
    if path.exists() and path.samefile(plan.path.parent / plan.settings.run):
        return
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


# ---------------------------------------------------------------- results


def read_result(plan: Plan, item: Item) -> dict[str, Any] | None:
    """What a seed's agents reached, as agents.json has it; None unless it is whole, and of what is asked now."""
    trainings = [*world_trainings(plan, world_of(plan, item)).values(), *agent_trainings(plan, item).values()]
    if not item.run.episodes.exists() or not all(training.is_done() for training in trainings):
        return None
    result = read_json(item.result)
    facts: dict[str, Any] = result.get("facts", {})
    return facts if result.get("asked") == _asked(plan, item) and seal_fault(facts) is None else None


def _asked(plan: Plan, item: Item) -> dict[str, Any]:
    """What a result answers; another answer is needed when any of it changes."""
    run, settings = item.run, item.run.config.eval
    played = {"scratch": run.scratch, "bc": run.agent, "imagination": run.imagination}
    return {
        "agents": plan.agents,
        "stream": Stream.TEST.name.lower(),
        "fingerprints": {
            name: read_header(path, ("agent", "imagination")).fingerprint
            for name, path in played.items()
            if name in plan.agents
        },
        "recorded": read_header(run.episodes, "episodes").fingerprint,
        "episodes": settings.episodes,
        "temperature": settings.temperature,
        "confidence": settings.confidence,
        "max_episode_steps": run.config.data.max_episode_steps,
        "seed": item.seed,
    } | ({"game": settings.game} if settings.game else {})


def world_minutes(plan: Plan, run: Run) -> dict[str, float | None]:
    """Processor minutes of everything that the world in `run` took."""
    return data_minutes(run) | cpu_minutes(world_trainings(plan, run))


def cpu_minutes(trainings: dict[str, Training]) -> dict[str, float | None]:
    """Processor minutes of each training, None where they were not counted."""
    minutes = {name: training.cpu_seconds() / 60 for name, training in trainings.items()}
    return {name: value if math.isfinite(value) else None for name, value in minutes.items()}
