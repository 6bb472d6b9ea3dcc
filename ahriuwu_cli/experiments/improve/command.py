"""`improve`: do what is left of a plan, round by round, then make the table of what there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ahriuwu_cli.core.errors import TrainingInterrupted
from ahriuwu_cli.core.files import write_json, write_text
from ahriuwu_cli.core.lock import exclusive
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.experiments.improve.base import bring_base, write_config
from ahriuwu_cli.experiments.improve.judging import judge, read_result
from ahriuwu_cli.experiments.improve.plan import Plan, load_plan
from ahriuwu_cli.experiments.improve.table import make_table
from ahriuwu_cli.experiments.improve.work import read_data, work_on
from ahriuwu_cli.experiments.plans import as_markdown
from ahriuwu_cli.pipeline.players import require_game


@dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        config: the improve.toml.
        folder: where everything goes, None for `runs/improve-NAME`.
        rounds: instead of the file's.
        overrides: laid over the base run.
        table_only: only the table.
    """

    config: Path
    folder: Path | None = None
    rounds: int | None = None
    overrides: Sequence[str] = ()
    table_only: bool = False


def run_improvement(request: Request) -> Report:
    """Do the rounds that are not done, then write the table; see `Request`.

    The base run is read and left as it is. What is done and unchanged is skipped, stage by stage.

    Raises:
        BusyError: another process does.
        InputError, ConfigError: see `load_plan` and `work_on`.
        TrainingInterrupted: Ctrl-C or SIGTERM; what is done is kept.
    """
    plan = load_plan(request.config, request.folder, request.rounds, request.overrides)
    if request.table_only:
        return _write_table(plan, request)
    try:
        require_game(plan.base, recorded=True)
        with exclusive(plan.folder):
            bring_base(plan)
            for this in plan.rounds:
                work_on(plan, this.number)
                write_config(plan)
                judge(plan, this.number)
                report = _write_table(plan, request)
    except TrainingInterrupted as stop:
        raise TrainingInterrupted(stop.message, hint="run the same command again to go on") from stop
    return report


def _write_table(plan: Plan, request: Request) -> Report:
    results = [read_result(plan, this.number) for this in plan.rounds]
    report = make_table(plan, [read_data(this) for this in plan.rounds], results)
    if any(results):
        changes = "".join(f" -s {override}" for override in request.overrides)
        rounds = "" if request.rounds is None else f" --rounds {request.rounds}"
        _write(plan.folder, report, f"ahriuwu improve --config {plan.path}{rounds}{changes}")
    return report


def _write(folder: Path, report: Report, command: str) -> None:
    write_json(folder / "results.json", report.data)
    write_text(folder / "table.md", as_markdown(report, command))
