"""The clock of all benches: warm-up, repeats without garbage collection, medians and quartiles, peak memory."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some seconds."""

    first: float
    median: float
    third: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """The spread of at least one sample; quartiles are interpolated."""
        if len(seconds) == 1:
            return cls(*[seconds[0]] * 3)
        return cls(*statistics.quantiles(seconds, n=4, method="inclusive"))


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect garbage now and not inside."""
    gc.collect()
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of wall time that one call takes, what it started on the device included."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def measure(
    work: Callable[[], object],
    repeats: int,
    warmup: int,
    device: torch.device,
    between: Callable[[], object] | None = None,
) -> list[float]:
    """Seconds of each of `repeats` calls, after `warmup` calls that are not counted.

    `between` is called after each of them, outside the clock.
    """
    for _ in range(warmup):
        work()
    seconds = []
    with no_collection():
        for _ in range(repeats):
            seconds.append(seconds_of(work, device))
            if between is not None:
                between()
    return seconds


# ---------------------------------------------------------------- memory


class PeakMemory:
    """High-water mark of memory since this object was made, in bytes above what was in use then.

    CUDA: what torch allocated. CPU: the resident set, where the system tells (Linux); else None.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _give_back()
            _reset_high_water()
        self._start = memory_in_use(device)

    def bytes(self) -> int | None:
        """The mark so far."""
        if self._device.type == "cuda":
            peak: int | None = torch.cuda.max_memory_allocated(self._device)
        else:
            peak = _status("VmHWM") if self._device.type == "cpu" else None
        return None if peak is None or self._start is None else max(0, peak - self._start)


def memory_in_use(device: torch.device) -> int | None:
    """Bytes in use now: allocated on the GPU, resident on the CPU; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status("VmRSS") if device.type == "cpu" else None


def _status(field: str) -> int | None:
    if not STATUS.is_file():
        return None
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def _reset_high_water() -> None:
    """Let the high-water mark fall to what is resident now; Linux has a file for that."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return  # the mark then counts from the start of the process


def _give_back() -> None:
    """Let the C library return freed memory, which would otherwise hide what the next item needs."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
