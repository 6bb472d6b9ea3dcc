"""`ahriuwu agent finetune`: behaviour cloning and reward heads."""

from __future__ import annotations

from typing import Annotated

import typer

from ahriuwu_cli.cli.options import RUN_TOML, AsJson, ConfigPath, Overrides, Overwrite, Resume
from ahriuwu_cli.cli.output import render

app = typer.Typer(help="The agent inside the world model.")


@app.command()
def finetune(
    config: ConfigPath = RUN_TOML,
    overrides: Overrides = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Clone without a world model, into RUN/scratch: the baseline.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Teach the world model to act: policy, reward and continue heads on agent tokens."""
    from ahriuwu_cli.pipeline.config import load_run

    run = load_run(config, overrides or ())

    from ahriuwu_cli.pipeline import stages

    train = stages.train_scratch if from_scratch else stages.finetune_agent
    render(train(run, resume=resume, overwrite=overwrite), as_json)
