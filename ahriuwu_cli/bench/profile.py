"""Which operators the time goes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from ahriuwu_cli.bench.timing import synchronise

REPEATS = 3
SHOWN = 15


@dataclass(frozen=True)
class Operator:
    """One operator: its share of all time, and for each repeat of the work its own seconds and its calls."""

    name: str
    share: float
    seconds: float
    calls: float


@dataclass(frozen=True)
class Profile:
    """The operators with most time of their own in some work, the first being the most expensive."""

    work: str
    operators: Sequence[Operator]

    def data(self) -> dict[str, object]:
        """For `--json`."""
        return {"work": self.work, "operators": [asdict(operator) for operator in self.operators]}

    def lines(self) -> list[str]:
        """For people."""
        head = f"profile of {self.work}: share, seconds and calls in one repeat"
        return [
            head,
            *(f"  {one.share:6.1%} {one.seconds:10.5f} s {one.calls:8,.0f} x  {one.name}" for one in self.operators),
        ]


def profile_work(name: str, work: Callable[[], object], device: torch.device) -> Profile:
    """Where the time of a few calls of warmed-up work goes: on the CPU, or on the GPU where there is one."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as seen:
        for _ in range(REPEATS):
            work()
        synchronise(device)
    field = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    own = {event.key: (float(getattr(event, field)), event.count) for event in seen.key_averages()}
    total = sum(microseconds for microseconds, _ in own.values()) or 1.0
    operators = [
        Operator(key, microseconds / total, microseconds / 1e6 / REPEATS, count / REPEATS)
        for key, (microseconds, count) in sorted(own.items(), key=lambda entry: -entry[1][0])
    ]
    return Profile(name, operators[:SHOWN])
