"""Where metrics go: averaged between log points, then to metrics.jsonl, TensorBoard and the progress display."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import torch
from torch import Tensor

from ahriuwu_cli.core.errors import TrainingError
from ahriuwu_cli.core.files import refused, temporary_name, write_text
from ahriuwu_cli.core.training.budget import Stopwatch
from ahriuwu_cli.core.training.progress import ProgressDisplay

BOOKKEEPING = ("step", "seconds", "steps_per_second")  # columns of a line that are not metrics


class Means:
    """Averages of scalar metrics; tensors are detached and stay on their device until `take`.

    NaN means "nothing to measure in this step" and is left out; a metric never measured averages to NaN.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Add one step's metrics; a step may leave out names."""
        for name, given in metrics.items():
            value = torch.as_tensor(given).detach().float()
            assert value.numel() == 1, f"metric {name} has shape {tuple(value.shape)}, expected a scalar"
            value = value.reshape(())
            measured = ~value.isnan()
            zero = torch.zeros_like(value)
            self._sums[name] = self._sums.get(name, zero).to(zero.device) + torch.where(measured, value, zero)
            self._counts[name] = self._counts.get(name, zero).to(zero.device) + measured

    def take(self) -> dict[str, float]:
        """Return the averages since the last call, in order of appearance; synchronises with the device."""
        means = {name: float(total / self._counts[name]) for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means

    def state(self) -> tuple[list[str], Tensor]:
        """What has been added since the last `take`: names, and (number of names, 2) sums and counts."""
        pairs = [torch.stack([total, self._counts[name]]).cpu() for name, total in self._sums.items()]
        return list(self._sums), torch.stack(pairs) if pairs else torch.zeros(0, 2)

    def load_state(self, names: Sequence[str], pairs: Tensor) -> None:
        """Take back what `state` returned; what is added later brings its own device."""
        self._sums = {name: total.clone() for name, total in zip(names, pairs[:, 0], strict=True)}
        self._counts = {name: count.clone() for name, count in zip(names, pairs[:, 1], strict=True)}


class MetricsFile:
    """metrics.jsonl: one object per log point, `{"step": ..., "warning": ...}` for warnings.

    Numbers that are not finite are written as null. Continuing at step k drops the lines of later
    steps and one that a kill cut short, so that no step appears twice. A fresh run writes aside until `settle`
    says that what an earlier run left may go.
    """

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._place = path if step or not path.exists() else temporary_name(path)
        lines = [line for line in read_metrics(path) if line["step"] <= step] if step else []
        write_text(self._place, "".join(_dump(line) for line in lines))
        self._stream = self._place.open("a", encoding="utf-8")

    def settle(self) -> None:
        """Replace an earlier run's file by what was written aside so far, and go on there."""
        if self._place != self._path:
            self._stream.close()  # Windows renames no open file
            self._place.replace(self._path)
            self._place = self._path
            self._stream = self._path.open("a", encoding="utf-8")

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one object and flush it; TrainingError when there is no room."""
        try:
            self._stream.write(_dump(line))
            self._stream.flush()
        except OSError as error:
            found = refused(self._path, error)
            raise TrainingError(
                found.message.partition(";")[0],
                hint=f"{found.hint}, then go on with --resume where there is a state, or start again",
            ) from error

    def close(self) -> None:
        """Close the file; what could not be written has been reported, what never replaced an earlier file goes."""
        with suppress(OSError):
            self._stream.close()
            if self._place != self._path:
                self._place.unlink(missing_ok=True)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a metrics.jsonl up to the first line that a kill cut short; empty when there is no file."""
    lines: list[dict[str, Any]] = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                break
            if not isinstance(line, dict) or not isinstance(line.get("step"), int):
                break
            lines.append(line)
    return lines


def last_metrics(path: Path) -> tuple[float, dict[str, float]]:
    """Read the seconds of training so far and the metrics of the last log point; null comes back as NaN."""
    points = [line for line in read_metrics(path) if "warning" not in line]
    if not points:
        return 0.0, {}
    numbers = {name: math.nan if value is None else float(value) for name, value in points[-1].items()}
    seconds = numbers.get("seconds", 0.0)
    return seconds, {name: value for name, value in numbers.items() if name not in BOOKKEEPING}


def _dump(line: Mapping[str, Any]) -> str:
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in line.items()
    }
    return json.dumps(plain) + "\n"


class Sinks:
    """Everything that shows or keeps the metrics of one training run.

    Args:
        name: stage name shown in the progress display.
        metrics: path of metrics.jsonl.
        tensorboard: folder for TensorBoard events, used when TensorBoard is installed.
        step: steps already done.
        total: steps in all.
        stopwatch: the time that training has taken.
        means: the running averages, those before a resume included.
    """

    def __init__(
        self, name: str, metrics: Path, tensorboard: Path, step: int, total: int, stopwatch: Stopwatch, means: Means
    ) -> None:
        self._file = MetricsFile(metrics, step)
        self._stopwatch, self._logged, self._logged_step = stopwatch, stopwatch.seconds, step
        self._means = means
        self._board = _open_tensorboard(tensorboard, step)
        self._progress = ProgressDisplay(name, step, total)

    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Add a good step's metrics to the running averages."""
        self._means.add(metrics)

    def update(self, step: int) -> None:
        """Show that `step` steps are done."""
        self._progress.update(step)

    def say(self, text: str) -> None:
        """Show a line."""
        self._progress.say(text)

    def plan(self, total: int, why: str) -> None:
        """Show that there will be `total` steps, and why."""
        self._progress.plan(total, why)

    def log(
        self, step: int, learning_rate: float, bad_steps: int, measured: Mapping[str, float] = MappingProxyType({})
    ) -> dict[str, float]:
        """Close the averages at a log point, write them everywhere, with what was measured on held-out data just now.

        Returns the metrics. Without one good step since the last log point the loss is NaN (null in the file).
        """
        metrics = {"loss": math.nan, **self._means.take(), **measured}
        now = self._stopwatch.seconds
        speed = (step - self._logged_step) / max(1e-9, now - self._logged)
        self._logged, self._logged_step = now, step
        metrics = {**metrics, "learning_rate": learning_rate, "bad_steps": float(bad_steps)}
        self._file.write(
            {
                "step": step,
                "seconds": round(now, 3),
                "steps_per_second": round(speed, 3),
                **metrics,
                "bad_steps": bad_steps,
            }
        )
        if self._board is not None:
            for name, value in metrics.items():
                if math.isfinite(value):
                    self._board.add_scalar(name, value, step)
        self._progress.measured(metrics["loss"])
        return metrics

    def warn(self, step: int, text: str | None, *, keep: bool = True) -> None:
        """Show a warning and write it down, unless it is not to be kept; None is no warning."""
        if text is not None:
            self._progress.warn(text)
            if keep:
                self._file.write({"step": step, "warning": text})

    def settle(self) -> None:
        """The first file of this run is whole: its metrics replace those of an earlier run."""
        self._file.settle()

    def __enter__(self) -> Sinks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.close()
        self._file.close()
        if self._board is not None:
            self._board.close()


def _open_tensorboard(folder: Path, step: int) -> Any | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
