"""`ahriuwu demo`: the whole road on the built-in game."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ahriuwu_cli.cli.output import render


def demo(
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Folder of the demo's run.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
) -> None:
    """Record, train, dream and play on the built-in game, from nothing, in minutes on a laptop CPU.

    Stages that are finished already are skipped, so an interrupted demo goes on where it stopped.
    """
    from ahriuwu_cli.pipeline.demo import run_demo

    run_demo(folder, seed, partial(render, as_json=False))
