"""Progress on stderr: a Rich bar on a terminal, one plain line now and then elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_INTERVAL = 10.0  # seconds between plain lines


class ProgressDisplay:
    """Shows stage, step, loss, speed and the time left."""

    def __init__(self, name: str, step: int, total: int, interval: float = PLAIN_INTERVAL) -> None:
        self._name = name
        self._first = self._step = step
        self._total = total
        self._interval = interval
        self._loss = "-"  # until the first log point
        self._console = Console(stderr=True)
        self._started = time.monotonic()
        self._printed = self._started
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}"),
                TextColumn("{task.fields[speed]} steps/s"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task(name, completed=step, total=total, loss="-", speed="-")
            self._bar.start()

    def update(self, step: int) -> None:
        """Show that `step` steps are done."""
        self._step = step
        if self._bar is not None:
            self._bar.update(self._task, completed=step)
        elif time.monotonic() - self._printed >= self._interval:
            self._line()

    def plan(self, total: int, why: str) -> None:
        """Take another number of steps, and say why."""
        self._total = total
        if self._bar is not None:
            self._bar.update(self._task, total=total)
        self.say(why)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._print(f"{self._name}: {text}")

    def measured(self, loss: float) -> None:
        """Take the averaged loss of a log point."""
        self._loss = f"{loss:.4g}"
        if self._bar is not None:
            self._bar.update(self._task, loss=self._loss, speed=f"{self._speed():.3g}")

    def warn(self, text: str) -> None:
        """Print a warning above the bar."""
        self._console.print(
            f"warning: {self._name}: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True
        )

    def close(self) -> None:
        """Stop the bar, or print the last line."""
        if self._bar is not None:
            self._bar.stop()
        else:
            self._line()

    def _speed(self) -> float:
        return (self._step - self._first) / max(1e-9, time.monotonic() - self._started)

    def _line(self) -> None:
        self._printed = time.monotonic()
        speed = self._speed()
        left = timedelta(seconds=round((self._total - self._step) / speed)) if speed > 0 else "-"
        self._print(
            f"{self._name}: step {self._step}/{self._total}  loss {self._loss}  {speed:.3g} steps/s  left {left}"
        )

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
