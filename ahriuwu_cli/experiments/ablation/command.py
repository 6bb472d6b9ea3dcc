"""`ablate`: do what is left of a plan, then make the table of what there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.errors import InputError, TrainingInterrupted
from ahriuwu_cli.core.files import write_json, write_text
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.experiments.ablation.plan import Item, Plan, load_plan
from ahriuwu_cli.experiments.ablation.table import make_table
from ahriuwu_cli.experiments.ablation.work import read_result, work_on
from ahriuwu_cli.experiments.plans import as_markdown, prepare_data


@dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        config: the ablation.toml.
        folder: where artifacts go, None for `runs/ablation-NAME`.
        out: where results.json and table.md go, None for beside the config.
        overrides: laid over the base run.
        only: names of variants; all that are not optional when empty.
        seeds: all of the plan when empty.
        base_only: only what the variants share.
        table_only: only the table.
    """

    config: Path
    folder: Path | None = None
    out: Path | None = None
    overrides: Sequence[str] = ()
    only: Sequence[str] = ()
    seeds: Sequence[int] = ()
    base_only: bool = False
    table_only: bool = False


def run_ablation(request: Request) -> Report:
    """Train and judge what is asked for and not done, then write the table; see `Request`.

    Several processes may work on one plan at once once its base is there, each on its own variants or
    seeds: every item has a folder of its own, and the table is made from whatever results there are.

    Raises:
        InputError, ConfigError: see `load_plan`; a variant or seed that the plan does not have.
        TrainingInterrupted: Ctrl-C or SIGTERM; what is done is kept.
    """
    plan = load_plan(request.config, request.folder, request.overrides)
    chosen = _choose(plan, request)
    try:
        if not request.table_only:
            prepare_data(plan.base)
        if not (request.table_only or request.base_only):
            for item in chosen:
                work_on(item, plan.base.config.run.seed)
    except TrainingInterrupted as stop:
        raise TrainingInterrupted(stop.message, hint="run the same command again to go on") from stop
    return _write_table(plan, request)


def _choose(plan: Plan, request: Request) -> list[Item]:
    """The items that the command line names, in the order of the plan.

    Raises:
        InputError: a name or a seed is not the plan's.
    """
    names = [variant.name for variant in plan.variants]
    for found, known, flag in ((request.only, names, "--only"), (request.seeds, plan.settings.seeds, "--seed")):
        strange = [value for value in found if value not in known]
        if strange:
            raise InputError(
                f"{flag} {strange[0]} is not in {plan.path}; it has {', '.join(map(str, known))}",
                hint="give one of these, or add it there",
            )
    return [
        item
        for item in plan.items
        if (item.variant.name in request.only if request.only else not item.variant.optional)
        and (not request.seeds or item.seed in request.seeds)
    ]


def _write_table(plan: Plan, request: Request) -> Report:
    results: dict[tuple[str, int], dict[str, Any]] = {}
    for item in plan.items:
        result = read_result(item, plan.base.config.run.seed)
        if result is not None:
            results[item.variant.name, item.seed] = result
    report = make_table(plan, results)
    out = request.out or plan.path.parent
    if results:
        changes = "".join(f" -s {override}" for override in request.overrides)
        write_json(out / "results.json", report.data)
        write_text(out / "table.md", as_markdown(report, f"ahriuwu ablate --config {plan.path}{changes}"))
    return report
