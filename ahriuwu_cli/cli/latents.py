"""`ahriuwu latents ...`: encode recorded frames and pack the latents for training."""

from __future__ import annotations

import typer

from ahriuwu_cli.cli.options import RUN_TOML, AsJson, ConfigPath, Overrides
from ahriuwu_cli.cli.output import render

app = typer.Typer(help="Recorded frames as latents.")


@app.command()
def build(config: ConfigPath = RUN_TOML, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Encode every recorded frame with the trained tokenizer."""
    from ahriuwu_cli.pipeline.config import load_run

    run = load_run(config, overrides or ())

    from ahriuwu_cli.pipeline import stages

    render(stages.build_latents(run), as_json)


@app.command()
def pack(config: ConfigPath = RUN_TOML, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Pack latents, actions and rewards into shards that training reads windows from."""
    from ahriuwu_cli.pipeline.config import load_run

    run = load_run(config, overrides or ())

    from ahriuwu_cli.pipeline import stages

    render(stages.pack_latents(run), as_json)
