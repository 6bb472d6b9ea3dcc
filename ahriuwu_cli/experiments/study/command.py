"""`study run`: do what is left of a plan, then make the table of what there is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ahriuwu_cli.core.errors import BusyError, InputError, TrainingInterrupted
from ahriuwu_cli.core.files import write_json, write_text
from ahriuwu_cli.core.lock import exclusive
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.experiments.plans import as_markdown, say
from ahriuwu_cli.experiments.study.frozen import freeze
from ahriuwu_cli.experiments.study.plan import Item, Plan, load_plan
from ahriuwu_cli.experiments.study.results import gather
from ahriuwu_cli.experiments.study.search import search, searched
from ahriuwu_cli.experiments.study.table import make_table
from ahriuwu_cli.experiments.study.work import prepare_world, work_on
from ahriuwu_cli.pipeline.players import require_game


@dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        config: the study.toml.
        folder: where artifacts go, None for `runs/study-NAME`.
        overrides: laid over the run.
        seeds: all of the plan when empty.
        base_only: only the world that the seeds share.
        table_only: only the table.
        thaw: go on with other settings than those that were frozen; the table says so.
    """

    config: Path
    folder: Path | None = None
    overrides: Sequence[str] = ()
    seeds: Sequence[int] = ()
    base_only: bool = False
    table_only: bool = False
    thaw: bool = False


def run_study(request: Request) -> Report:
    """Train and play what is asked for and not done, then write results.json and table.md beside the config.

    Several processes may work on one plan at once: every seed has a folder of its own, and one that another process
    is at is passed over. What the seeds share must be there first.

    Raises:
        InputError, ConfigError: see `load_plan`; a seed that the plan does not have; nothing shared to make; settings
            that were changed after the first seed had started.
        PlayError: an agent failed in the real game.
        TrainingInterrupted: Ctrl-C or SIGTERM; what is done is kept.
    """
    plan = load_plan(request.config, request.folder, request.overrides)
    _check(plan, request)
    try:
        plan = searched(plan) if request.table_only else _work(plan, request)
    except TrainingInterrupted as stop:
        raise TrainingInterrupted(stop.message, hint="run the same command again to go on") from stop
    results = gather(plan)
    report = make_table(results)
    if results["seeds"]:
        changes = "".join(f" -s {override}" for override in request.overrides)
        write_json(plan.path.parent / "results.json", results)
        write_text(
            plan.path.parent / "table.md", as_markdown(report, f"ahriuwu study run --config {plan.path}{changes}")
        )
    return report


def _work(plan: Plan, request: Request) -> Plan:
    """Do what is asked for; the plan with what its search chose."""
    require_game(plan.base)
    if not plan.settings.whole_roads:
        prepare_world(plan, plan.base)
    plan = search(plan)
    if request.base_only:
        return plan
    freeze(plan, thaw=request.thaw)
    for item in plan.items:
        if not request.seeds or item.seed in request.seeds:
            _work_alone(plan, item)
    return plan


def _work_alone(plan: Plan, item: Item) -> None:
    """Work on a seed, unless another process does."""
    with ExitStack() as held:
        try:
            held.enter_context(exclusive(item.place))
        except BusyError as busy:
            say(f"{item} is passed over: {busy.message}")
            return
        work_on(plan, item)


def _check(plan: Plan, request: Request) -> None:
    """Refuse what the plan does not have.

    Raises:
        InputError: a seed is not the plan's, or there is nothing that seeds share.
    """
    strange = [seed for seed in request.seeds if seed not in plan.settings.seeds]
    if strange:
        raise InputError(
            f"--seed {strange[0]} is not in {plan.path}; it has {', '.join(map(str, plan.settings.seeds))}",
            hint="give one of these, or add it there",
        )
    if request.base_only and plan.settings.whole_roads and not plan.settings.search.learning_rates:
        raise InputError(
            f"--base-only: with whole_roads the seeds of {plan.path} share nothing", hint="leave --base-only out"
        )
