"""Which formats a store can be exported to: a module for each, which is an Exporter (protocol.py)."""

from __future__ import annotations

from typing import cast

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.registry import Registry
from ahriuwu_cli.sources.exports.protocol import Exporter

HERE = "ahriuwu_cli.sources.exports"
FORMATS = Registry(
    "exporters",
    {
        "lerobot": f"{HERE}.lerobot:LeRobotExporter",
        "minari": f"{HERE}.minari:MinariExporter",
        "video": f"{HERE}.video:VideoExporter",
    },
    what="format",
)
"""By name. Other packages add to them by entry points of the group `ahriuwu.exporters`."""


def exporter(name: str) -> Exporter:
    """The exporter of a format.

    Raises:
        InputError: there is none of that name.
    """
    try:
        found = FORMATS.load(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise InputError(str(error), hint="see `ahriuwu export --help`") from error
    return cast("Exporter", found())
