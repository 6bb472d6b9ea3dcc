"""How far a long command is, on stderr: a bar on a terminal, and in a log a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LINE_SECONDS = 30.0
"""Between two lines of a log."""

Item = TypeVar("Item")
Show = Callable[..., None]  # (done, note="")


@contextmanager
def counted(name: str, total: int, unit: str) -> Iterator[Show]:
    """Show how many of `total` are done: the context's value is called with that number, as often as one likes.

    Args:
        name: of the command.
        total: how many there are.
        unit: what is counted, in the plural.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(name, total, unit, console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=total, note="")
        yield lambda done, note="": bar.update(task, completed=done, note=note)


def tracked(name: str, items: Sequence[Item], unit: str) -> Iterator[Item]:
    """Go through `items`, showing how many are done."""
    with counted(name, len(items), unit) as show:
        for number, item in enumerate(items):
            show(number)
            yield item


class _Lines:
    """A line every LINE_SECONDS: what is done, what else is to be said, how long the rest will take."""

    def __init__(self, name: str, total: int, unit: str, console: Console) -> None:
        self._name, self._total, self._unit, self._console = name, total, unit, console
        self._started = self._printed = time.monotonic()

    def __call__(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self._printed < LINE_SECONDS:
            return
        self._printed = now
        passed = now - self._started
        left = str(timedelta(seconds=round((self._total - done) * passed / done))) if done else "-"
        parts = [f"{self._name}: {done}/{self._total} {self._unit}", note, f"{timedelta(seconds=round(passed))} so far"]
        line = "  ".join([*filter(None, parts), f"left {left}"])
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
