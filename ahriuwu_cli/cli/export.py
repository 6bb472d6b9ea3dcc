"""`ahriuwu export`: an episode store in a format of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ahriuwu_cli.cli.options import AsJson
from ahriuwu_cli.cli.output import render


def export(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of an episode store.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, which appears whole or not at all.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="lerobot, minari or video.")],
    as_json: AsJson = False,
) -> None:
    """Write an episode store in a format of others: nothing is locked in.

    `data import` of the kind of that name brings it back; the command for it, and what of this store
    the format cannot hold, are told at the end.
    """
    from ahriuwu_cli.sources.exports.export import export_store

    render(export_store(store, to, folder), as_json)
