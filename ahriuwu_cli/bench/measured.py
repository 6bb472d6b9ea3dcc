"""One measured item, and the report that several of them make."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ahriuwu_cli.bench.config import BenchConfig
from ahriuwu_cli.bench.machine import Machine
from ahriuwu_cli.bench.profile import Profile
from ahriuwu_cli.bench.timing import Spread
from ahriuwu_cli.core.report import Report

COLUMNS = ("work", "s", "quartiles", "frames/s", "GFLOP", "GFLOP/s", "of peak", "peak MiB", "parameters")


@dataclass(frozen=True)
class Item:
    """One kind of work, done many times.

    Attributes:
        name: what it is.
        seconds: of one repeat.
        frames: frames that one repeat goes through.
        flops: operations of one repeat (see flops.py); None where they are not the point.
        peak_bytes: memory above what was in use before the item was set up, at the highest; None where the
            system does not tell.
        parameters: of the modules at work.
        usual_flops: operations counted as papers do (6 x parameters x tokens plus attention); None where that is
            no matter.
        more: further facts for `--json`.
    """

    name: str
    seconds: Spread
    frames: int
    flops: int | None = None
    peak_bytes: int | None = None
    parameters: int | None = None
    usual_flops: int | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def data(self, machine: Machine) -> dict[str, Any]:
        """For `--json`: seconds, bytes, operations, and shares as fractions."""
        rate, usual = self._rate(self.flops), self._rate(self.usual_flops)
        return {
            "name": self.name,
            "seconds": self.seconds.median,
            "seconds_quartiles": [self.seconds.first, self.seconds.third],
            "frames": self.frames,
            "frames_per_second": self.frames / self.seconds.median,
            "flops": self.flops,
            "flops_per_second": rate,
            "share_of_peak": None if rate is None else rate / machine.peak,
            "peak_memory_bytes": self.peak_bytes,
            "parameters": self.parameters,
            "usual_flops": self.usual_flops,
            "usual_share_of_peak": None if usual is None else usual / machine.peak,
        } | self.more

    def _rate(self, flops: int | None) -> float | None:
        return None if flops is None else flops / self.seconds.median

    def usual(self, machine: Machine) -> list[str]:
        """A note with the usual count, where there is one."""
        if self.usual_flops is None:
            return []
        rate = self.usual_flops / self.seconds.median
        return [
            f"{self.name}: counted as 6 x parameters x tokens plus attention, whatever is left out, "
            f"{self.usual_flops / 1e9:,.2f} GFLOP and {rate / machine.peak:.1%} of the peak"
        ]

    def row(self, machine: Machine) -> tuple[str, ...]:
        """For the table."""
        facts = self.data(machine)
        return (
            self.name,
            f"{self.seconds.median:.4g}",
            f"{self.seconds.first:.4g} - {self.seconds.third:.4g}",
            f"{facts['frames_per_second']:,.1f}",
            _cell(self.flops, lambda value: f"{value / 1e9:,.2f}"),
            _cell(facts["flops_per_second"], lambda value: f"{value / 1e9:,.1f}"),
            _cell(facts["share_of_peak"], lambda value: f"{value:.1%}"),
            _cell(self.peak_bytes, lambda value: f"{value / 2**20:,.0f}"),
            _cell(self.parameters, lambda value: f"{value:,}"),
        )


def _cell(value: float | None, show: Callable[[float], str]) -> str:
    return "-" if value is None else show(value)


@dataclass
class Findings:
    """What one bench has found so far.

    Attributes:
        items: rows of the table.
        notes: lines below it.
        profiles: where the time goes, where that was asked for.
    """

    items: list[Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)

    def report(self, what: str, config: BenchConfig, sections: Iterable[str], machine: Machine) -> Report:
        """All of it.

        Args:
            what: `dynamics`, `sampler`, ...
            config: the work.
            sections: the parts of `config` that this bench reads beside run and timing; they go into the data.
            machine: visited.
        """
        data = {
            "bench": what,
            "work": config.model_dump(mode="json", include={"run", "timing", *sections}),
            "machine": machine.data(),
            "items": [item.data(machine) for item in self.items],
            "profiles": [profile.data() for profile in self.profiles],
            "notes": self.notes,
        }
        rows = [item.row(machine) for item in self.items]
        usual = [line for item in self.items for line in item.usual(machine)]
        profiles = [line for profile in self.profiles for line in profile.lines()]
        lines = [*machine.lines(), *usual, *self.notes, *profiles]
        return Report(f"bench {what}: {config.run.name}", COLUMNS, rows, data, lines)
