"""`ahriuwu doctor`: check the machine and everything a run has made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ahriuwu_cli.cli.options import AsJson
from ahriuwu_cli.cli.output import render
from ahriuwu_cli.core.errors import EXIT_CHECK


def doctor(
    run_dir: Annotated[Path | None, typer.Argument(metavar="[RUN_DIR]", help="Folder of a run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine and, with RUN_DIR, the config and every artifact of a run.

    Exits with 3 when a check finds a problem; each problem comes with a hint.
    """
    from ahriuwu_cli.core.remembered import nothing_remembered
    from ahriuwu_cli.doctor import examine

    with nothing_remembered():  # whoever asks wants it looked at
        report = examine(run_dir)
    render(report, as_json)
    if report.data["problems"]:
        raise typer.Exit(EXIT_CHECK)
