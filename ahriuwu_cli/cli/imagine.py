"""`ahriuwu imagine train`: improve the policy in imagination."""

from __future__ import annotations

import typer

from ahriuwu_cli.cli.options import RUN_TOML, AsJson, ConfigPath, Overrides, Overwrite, Resume
from ahriuwu_cli.cli.output import render

app = typer.Typer(help="Reinforcement learning inside the dream.")


@app.command()
def train(
    config: ConfigPath = RUN_TOML,
    overrides: Overrides = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Improve the policy in imagination, with PMPO against the frozen prior."""
    from ahriuwu_cli.pipeline.config import load_run

    run = load_run(config, overrides or ())

    from ahriuwu_cli.pipeline import stages

    render(stages.train_imagination(run, resume=resume, overwrite=overwrite), as_json)
