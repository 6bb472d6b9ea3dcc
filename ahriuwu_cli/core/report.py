"""What a command has to say: a table for people and the same facts as data for `--json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """One table with a title, closing notes, and the facts behind it as JSON-ready data."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    data: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
