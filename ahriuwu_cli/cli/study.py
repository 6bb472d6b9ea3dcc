"""`ahriuwu study ...`: who beats whom in the real game, over training seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ahriuwu_cli.cli.options import AsJson, Overrides
from ahriuwu_cli.cli.output import render

app = typer.Typer(help="Who beats whom in the real game, over training seeds.")


@app.command()
def run(
    config: Annotated[Path, typer.Option("--config", "-c", help="The study: run, seeds, agents.")] = Path("study.toml"),
    overrides: Overrides = None,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Folder of all artifacts.", show_default="runs/study-NAME"),
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only this seed. Repeatable.")] = None,
    base_only: Annotated[
        bool, typer.Option("--base-only", help="Only make the data and the world model that the seeds share.")
    ] = False,
    table_only: Annotated[bool, typer.Option("--table-only", help="Only make the table of what there is.")] = False,
    thaw: Annotated[
        bool,
        typer.Option("--thaw", help="Go on with settings that changed after a seed had started; the table says so."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train the agents of every seed, let them play, pool their returns, and say who beats whom.

    Writes results.json and table.md beside the config. What is done and unchanged is skipped, so an interrupted
    call goes on where it stopped. Several processes can share the work once --base-only is done: a seed that
    another one is at is passed over. Settings are frozen when the first seed starts, and its agents play episodes
    that nothing else plays.
    """
    from ahriuwu_cli.experiments.study import Request, run_study

    report = run_study(
        Request(
            config=config,
            folder=folder,
            overrides=overrides or (),
            seeds=seed or (),
            base_only=base_only,
            table_only=table_only,
            thaw=thaw,
        )
    )
    render(report, as_json)


@app.command()
def figure(
    results: Annotated[list[Path], typer.Argument(help="results.json of studies, a panel each.")],
    out: Annotated[Path, typer.Option(metavar="PNG", help="The picture.")] = Path("ladder.png"),
    as_json: AsJson = False,
) -> None:
    """Draw the returns of all agents, a panel for each game, with intervals and training seeds."""
    from ahriuwu_cli.experiments.study import draw_figure

    render(draw_figure(results, out), as_json)


@app.command()
def table(
    results: Annotated[Path, typer.Argument(help="results.json of a study.")],
    as_json: AsJson = False,
) -> None:
    """Show the table of a results.json again, without the artifacts behind it.

    One whose statistics are of an older kind is brought up to date from the returns in it, with the table.md beside it.
    """
    from ahriuwu_cli.experiments.study import redo_table

    render(redo_table(results), as_json)
