"""`ahriuwu tune`: config keys searched by a held-out metric."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ahriuwu_cli.cli.options import AsJson, Overrides
from ahriuwu_cli.cli.output import render


def tune(
    config: Annotated[Path, typer.Option("--config", "-c", help="The search: run, stage, keys, trials.")] = Path(
        "tune.toml"
    ),
    overrides: Overrides = None,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Folder of trials and results.", show_default="runs/tune-NAME"),
    ] = None,
    table_only: Annotated[bool, typer.Option("--table-only", help="Only make the table of what there is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search config keys by a held-out metric of one stage (Optuna); the first trial is the run as it is.

    Writes results.json, table.md, tune.png and best.toml into the folder. Finished trials are kept, one that was
    stopped is gone on with, and several processes may run the same call at once: they share the trials.
    """
    from ahriuwu_cli.experiments.tune import Request, run_tune

    report = run_tune(Request(config=config, folder=folder, overrides=overrides or (), table_only=table_only))
    render(report, as_json)
