"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The run's config, as `ahriuwu init` writes it.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE", help="Use another value, as in -s dynamics.train.steps=800. Repeatable."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint, exactly.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run of this command made.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

RUN_TOML = Path("run.toml")
