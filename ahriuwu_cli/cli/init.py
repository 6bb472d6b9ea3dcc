"""`ahriuwu init`: write a run.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ahriuwu_cli.cli.options import AsJson
from ahriuwu_cli.cli.output import render


def complete_preset(incomplete: str) -> list[str]:
    """Preset names for shell completion."""
    from ahriuwu_cli.pipeline.config import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]


def complete_tokenizer(incomplete: str) -> list[str]:
    """Names of tokenizer presets for shell completion."""
    from ahriuwu_cli.pipeline.config import tokenizer_preset_names

    return [name for name in tokenizer_preset_names() if name.startswith(incomplete)]


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the new run; made when missing.")],
    preset: Annotated[
        str, typer.Option(help="tiny, small, medium, large or paper.", autocompletion=complete_preset)
    ] = "tiny",
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Tokenizer model instead of the preset's: cnn- or transformer- and tiny, small, medium or large.",
            autocompletion=complete_tokenizer,
        ),
    ] = None,
    env: Annotated[str | None, typer.Option(help="Gymnasium environment id instead of the preset's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a commented run.toml: every value of a whole run, from a preset."""
    from ahriuwu_cli.pipeline import template

    render(template.init(folder, preset, env, tokenizer=tokenizer), as_json)
