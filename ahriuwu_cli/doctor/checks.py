"""What a check is: a row that says which kinds of artifact it is for, its name, what it does and what to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ahriuwu_cli.core.artifact import Header, Kind
from ahriuwu_cli.core.training.files import RunFiles
from ahriuwu_cli.doctor.findings import Area
from ahriuwu_cli.pipeline.config import Run, RunConfig


@dataclass(frozen=True)
class Subject:
    """What a check looks at: one artifact, and what lies around it.

    Attributes:
        run: where everything lies.
        name: of the area: the kind of an artifact, `scratch` for the baseline, `evaluation` for results.
        path: the artifact, or the folder of results.
        found: its header; None when it is not there, cannot be read or has none.
        headers: of all artifacts of the road that can be read.
        config: the run's config; None when it cannot be used.
    """

    run: Run
    name: str
    path: Path
    found: Header | None
    headers: Mapping[Kind, Header]
    config: RunConfig | None

    @property
    def header(self) -> Header:
        """The artifact's header, for checks that are only made where there is one."""
        assert self.found is not None, "a row without `headless` is looked at only with a header"
        return self.found

    @property
    def files(self) -> RunFiles:
        """What a training leaves beside its weights."""
        return RunFiles(self.path.parent, "agent" if self.name == "scratch" else self.name)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        names: the areas it is for.
        name: shown for what is raised inside; what it finds may have names of its own.
        look: reports `ok`, `note` or `problem` to the area; what it raises becomes a problem.
        change: what to change when it finds a problem and knows nothing better; empty for the area's remedy.
        headless: it is made without a header too.
    """

    names: tuple[str, ...]
    name: str
    look: Callable[[Area, Subject], None]
    change: str = ""
    headless: bool = False


def run_checks(area: Area, subject: Subject, table: Sequence[Check]) -> None:
    """Make every check of the table that is for this subject, in order; none stops those after it."""
    for check in table:
        if subject.name in check.names and (check.headless or subject.found is not None):
            with area.guard(check.name, check.change):
                check.look(area, subject)
