"""How a report reaches stdout: a table for people, JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.report import Table as Rows


def render(report: Report, as_json: bool) -> None:
    """Print `report` on stdout.

    On a terminal a cell that is too wide folds onto further lines; elsewhere the table is as wide as it
    needs to be and carries no colours. JSON has no number for what is not finite: it becomes null.
    """
    if as_json:
        sys.stdout.write(json.dumps(_finite(report.data), indent=2, allow_nan=False) + "\n")
    else:
        _print_table(report)


def _print_table(report: Report) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    said: list[Report | Rows] = [report, *report.tables]
    parts = [part for part in said if part.columns]
    if sys.stdout.isatty():
        console = Console(file=sys.stdout, highlight=False)
    else:
        width = max(map(_natural_width, parts), default=1)
        console = Console(file=sys.stdout, highlight=False, force_terminal=False, width=width)
    console.print(Text(report.title, style="bold"), soft_wrap=True)
    for part in parts:
        if part is not parts[0]:
            console.print()
        # Text, because a cell such as "[dynamics]" would be read as markup.
        table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
        for column in part.columns:
            table.add_column(Text(column), overflow="fold")
        for row in part.rows:
            table.add_row(*map(Text, row))
        console.print(table)
    for note in report.notes:
        console.print(Text(note), soft_wrap=True)


def _natural_width(table: Report | Rows) -> int:
    """A width that no line of the table passes."""
    from rich.cells import cell_len

    widths = [
        max(cell_len(line) for cell in cells for line in (cell or " ").split("\n"))
        for cells in zip(table.columns, *table.rows, strict=True)
    ]
    return sum(widths) + 3 * len(widths) + 1


def _finite(value: Any) -> Any:
    """`value` with numbers that are not finite replaced by None, all the way down."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
