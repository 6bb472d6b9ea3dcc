"""`ahriuwu ablate`: variants of the dynamics as one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ahriuwu_cli.cli.options import AsJson, Overrides
from ahriuwu_cli.cli.output import render


def ablate(
    config: Annotated[Path, typer.Option("--config", "-c", help="The ablation: base run, seeds, variants.")] = Path(
        "ablation.toml"
    ),
    overrides: Overrides = None,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Folder of all artifacts.", show_default="runs/ablation-NAME"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for results.json and table.md.", show_default="beside the config"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this variant, optional ones too. Repeatable.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only this seed. Repeatable.")] = None,
    base_only: Annotated[
        bool, typer.Option("--base-only", help="Only make the data and the tokenizer that all variants share.")
    ] = False,
    table_only: Annotated[bool, typer.Option("--table-only", help="Only make the table of what there is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train variants of the world model on equal data, judge their dreams, and make one table.

    What is done and unchanged is skipped, so an interrupted call goes on where it stopped. Several processes
    can share the work once --base-only is done: give each other variants or seeds.
    """
    from ahriuwu_cli.experiments.ablation import Request, run_ablation

    report = run_ablation(
        Request(
            config=config,
            folder=folder,
            out=out,
            overrides=overrides or (),
            only=only or (),
            seeds=seed or (),
            base_only=base_only,
            table_only=table_only,
        )
    )
    render(report, as_json)
