"""`tune`: work on trials until all are done or another process is at them, then make table and picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.errors import InputError, TrainingError, TrainingInterrupted
from ahriuwu_cli.core.files import write_json, write_text
from ahriuwu_cli.core.lock import in_turn
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.experiments.plans import as_markdown
from ahriuwu_cli.experiments.tune.picture import plot_search
from ahriuwu_cli.experiments.tune.plan import Plan, load_plan
from ahriuwu_cli.experiments.tune.results import best_lines, gather, make_table
from ahriuwu_cli.experiments.tune.storage import STORAGE_NAME, Storage, require_optuna
from ahriuwu_cli.experiments.tune.work import prepare, work


@dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        config: the tune.toml.
        folder: where trials and results go, None for `runs/tune-NAME`.
        overrides: laid over the run.
        table_only: only the table of what there is.
    """

    config: Path
    folder: Path | None = None
    overrides: Sequence[str] = ()
    table_only: bool = False


def run_tune(request: Request) -> Report:
    """Do the trials that are left, then write results.json, table.md, tune.png and best.toml into the folder.

    Several processes may run the same call at once: they share the trials, and whoever ends last has all of them in
    its table.

    Raises:
        InputError, ConfigError: see `load_plan`; Optuna is not installed; trials of other settings are in the folder;
            nothing to make a table of.
        TrainingError: every trial has failed.
        TrainingInterrupted: Ctrl-C or SIGTERM; what is done is kept, and what was begun is gone on with.
    """
    plan = load_plan(request.config, request.folder, request.overrides)
    require_optuna()
    if request.table_only:
        if not (plan.folder / STORAGE_NAME).is_file():
            raise InputError(f"{plan.folder} has no trials", hint="run it without --table-only, or give its --dir")
        return _write(plan, Storage(plan), request)
    try:
        storage, base = prepare(plan)
        work(plan, storage, base)
    except TrainingInterrupted as stop:
        raise TrainingInterrupted(stop.message, hint="run the same command again to go on") from stop
    report = _write(plan, storage, request)
    _require_one(plan, report.data)
    return report


def _write(plan: Plan, storage: Storage, request: Request) -> Report:
    changes = "".join(f" -s {override}" for override in request.overrides)
    with in_turn(plan.folder, lambda who: None):  # so that what is written last is what was gathered last
        results = gather(plan, storage)
        report = make_table(results)
        write_json(plan.folder / "results.json", results)
        write_text(plan.folder / "table.md", as_markdown(report, f"ahriuwu tune --config {plan.path}{changes}"))
        if results["best"] is not None:
            plot_search(plan.folder / "tune.png", results)
            write_text(plan.folder / "best.toml", best_lines(plan, results, storage))
    return report


def _require_one(plan: Plan, results: dict[str, Any]) -> None:
    """Raise TrainingError when all trials have failed."""
    rows = results["rows"]
    if rows and all(row["state"] == "failed" for row in rows):
        raise TrainingError(
            f"all {len(rows)} trials have failed, the last one: {rows[-1]['reason']}",
            hint=f"look at {plan.folder / 'table.md'}; give other bounds, and another --dir",
        )
