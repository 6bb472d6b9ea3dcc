"""`ahriuwu dynamics train`: train the world model."""

from __future__ import annotations

import typer

from ahriuwu_cli.cli.options import RUN_TOML, AsJson, ConfigPath, Overrides, Overwrite, Resume
from ahriuwu_cli.cli.output import render

app = typer.Typer(help="The world model.")


@app.command()
def train(
    config: ConfigPath = RUN_TOML,
    overrides: Overrides = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train the world model on packed latents, by shortcut forcing."""
    from ahriuwu_cli.pipeline.config import load_run

    run = load_run(config, overrides or ())

    from ahriuwu_cli.pipeline import stages

    render(stages.train_dynamics(run, resume=resume, overwrite=overwrite), as_json)
