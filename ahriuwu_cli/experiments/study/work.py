"""The work behind a study: the shared world, then each seed's agents trained and played, unless that is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.artifact import Kind, read_header
from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.files import write_json, write_text
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.experiments.plans import Training, prepare_data, read_json, say, tokenizer_training
from ahriuwu_cli.experiments.study.plan import Item, Plan
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.config import CONFIG_NAME, Run
from ahriuwu_cli.pipeline.template import render_config

# ---------------------------------------------------------------- the world


def prepare_world(plan: Plan, run: Run, name: str = "") -> None:
    """Record, encode and learn the dynamics in `run`, as far as that is not done and some agent needs it."""
    prepare_data(run, name)
    if _needs_world(plan):
        _dynamics_training(run, name).finish()


def world_of(plan: Plan, item: Item) -> Run:
    """The run whose world a seed's agents live in."""
    return item.run if plan.settings.whole_roads else plan.base


def world_trainings(plan: Plan, run: Run) -> dict[str, Training]:
    """The trainings of the world in `run`, by kind."""
    trainings = {"tokenizer": tokenizer_training(run)}
    return trainings | ({"dynamics": _dynamics_training(run, "")} if _needs_world(plan) else {})


def _needs_world(plan: Plan) -> bool:
    return bool({"bc", "imagination"} & set(plan.agents))


def _dynamics_training(run: Run, name: str) -> Training:
    sections = {"": run.config.dynamics}
    return _training(run, "dynamics", run.dynamics, sections, stages.train_dynamics, f"{name}dynamics")


# ---------------------------------------------------------------- one seed


def work_on(plan: Plan, item: Item) -> None:
    """Train a seed's agents and let all agents play, as far as that is not done."""
    if plan.settings.whole_roads:
        _write_config(item)
        prepare_world(plan, item.run, f"{item}: ")
    for training in agent_trainings(plan, item).values():
        training.finish()
    if read_result(plan, item) is None:
        say(f"{item}: playing")
        facts = stages.evaluate_agent(item.run, plan.agents).data
        write_json(item.result, {"asked": _asked(plan, item), "facts": facts})


def agent_trainings(plan: Plan, item: Item) -> dict[str, Training]:
    """The trainings of a seed's agents, by the agents' names, in the order they are made."""
    run, baseline = item.run, item.baseline
    dynamics = baseline.config.dynamics
    sizes = {"dynamics.model": dynamics.model, "dynamics.sampler": dynamics.sampler}
    trainings = {
        "scratch": _training(
            baseline, "agent", run.scratch, {"agent": baseline.config.agent, **sizes}, stages.train_scratch,
            f"{item}: scratch",
        ),
        "bc": _training(run, "agent", run.agent, {"agent": run.config.agent}, stages.finetune_agent, f"{item}: bc"),
        "imagination": _training(
            run, "imagination", run.imagination, {"imagine": run.config.imagine}, stages.train_imagination,
            f"{item}: imagination",
        ),
    }  # fmt: skip
    wanted = {*plan.agents, *(["bc"] if "imagination" in plan.agents else [])}
    return {name: training for name, training in trainings.items() if name in wanted}


def _training(
    run: Run, kind: Kind, weights: Path, sections: Mapping[str, Section], stage: Callable[..., Report], name: str
) -> Training:
    """A training whose cost lies beside its weights."""
    return Training(run, kind, weights, sections, stage, name, weights.parent / "cost.json")


def _write_config(item: Item) -> None:
    """A whole road is a run like any other: its folder says how it was made."""
    text, path = render_config(item.run.config), item.place / CONFIG_NAME
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


# ---------------------------------------------------------------- results


def read_result(plan: Plan, item: Item) -> dict[str, Any] | None:
    """What a seed's agents reached, as agents.json has it; None unless it is of the agents and questions of now."""
    trainings = [*world_trainings(plan, world_of(plan, item)).values(), *agent_trainings(plan, item).values()]
    if not item.run.episodes.exists() or not all(training.is_done() for training in trainings):
        return None
    result = read_json(item.result)
    facts: dict[str, Any] | None = result.get("facts")
    return facts if result.get("asked") == _asked(plan, item) else None


def _asked(plan: Plan, item: Item) -> dict[str, Any]:
    """What a result answers; another answer is needed when any of it changes."""
    run, settings = item.run, item.run.config.eval
    played = {"scratch": run.scratch, "bc": run.agent, "imagination": run.imagination}
    return {
        "agents": plan.agents,
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


def cpu_minutes(trainings: dict[str, Training]) -> dict[str, float | None]:
    """Processor minutes of each training, None where they were not counted."""
    minutes = {name: training.cpu_seconds() / 60 for name, training in trainings.items()}
    return {name: value if math.isfinite(value) else None for name, value in minutes.items()}
