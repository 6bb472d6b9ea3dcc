"""`ahriuwu improve`: record, finetune and imagine, again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ahriuwu_cli.cli.options import AsJson, Overrides
from ahriuwu_cli.cli.output import render


def improve(
    config: Annotated[Path, typer.Option("--config", "-c", help="The plan: base run, rounds, episodes.")] = Path(
        "improve.toml"
    ),
    overrides: Overrides = None,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Folder of everything made.", show_default="runs/improve-NAME"),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Rounds after round 0.", min=1, show_default="as the plan says")
    ] = None,
    table_only: Annotated[bool, typer.Option("--table-only", help="Only make the table of what there is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let the agent gather new play, finetune on all of it, imagine again, and compare, round by round.

    Round 0 is the base run's own road. Each later round records with the policy of the round before it. What is
    done and unchanged is skipped, so an interrupted call goes on where it stopped; the base run is left as it is.
    """
    from ahriuwu_cli.experiments.improve import Request, run_improvement

    request = Request(config, folder, rounds, overrides or (), table_only)
    render(run_improvement(request), as_json)
