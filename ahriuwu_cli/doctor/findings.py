"""What the doctor finds: one finding per look, gathered by area; faults become findings, never tracebacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ahriuwu_cli.core.errors import AhriuwuError
from ahriuwu_cli.core.report import Report

Status = Literal["ok", "note", "PROBLEM"]

NUM_NAMED = 3
"""How many of several like faults are named; the rest are counted."""


@dataclass(frozen=True)
class Finding:
    """One check: where, what, how it came out, and what to do: always for a problem, where it helps for a note."""

    area: str
    check: str
    status: Status
    found: str
    hint: str = ""


@dataclass
class Area:
    """The findings about one thing (the machine, an artifact).

    Attributes:
        name: shown in the first column.
        remedy: hint for faults that bring none of their own; a check may have another one (see `guard`).
    """

    name: str
    remedy: str
    findings: list[Finding] = field(default_factory=list)

    def ok(self, check: str, found: str) -> None:
        """All is well."""
        self._add(check, "ok", found)

    def note(self, check: str, found: str, hint: str = "") -> None:
        """Worth knowing, nothing wrong; the hint says what would change it."""
        self._add(check, "note", found, hint)

    def problem(self, check: str, found: str, hint: str = "") -> None:
        """Something is wrong; without a hint the area's remedy is given."""
        self._add(check, "PROBLEM", found, hint or self.remedy)

    def judge(self, check: str, faults: Sequence[str], fine: str, hint: str = "") -> None:
        """A problem that names the first few `faults`, or `fine` when there is none."""
        if faults:
            self.problem(check, first_few(faults, "; "), hint)
        else:
            self.ok(check, fine)

    @contextmanager
    def guard(self, check: str, remedy: str = "") -> Iterator[None]:
        """Turn whatever is raised inside into a problem of `check`: a damaged file must not stop the rest.

        Args:
            check: name of the check.
            remedy: hint for faults inside that bring none of their own; empty for that of the area.
        """
        usual, self.remedy = self.remedy, remedy or self.remedy
        try:
            yield
        except AhriuwuError as error:
            self.problem(check, error.message, error.hint)
        except Exception as error:
            self.problem(check, f"cannot be checked: {reason(error)}")
        finally:
            self.remedy = usual

    def _add(self, check: str, status: Status, found: str, hint: str = "") -> None:
        self.findings.append(Finding(self.name, check, status, _line(found), _line(hint)))


class Fault(Exception):
    """What a check finds wrong with one of many files; its text is the finding."""


def reason(error: Exception) -> str:
    """An exception on one line; one of ours without its type."""
    text = _line(str(error))[:300]
    return text if isinstance(error, AhriuwuError | Fault) else f"{type(error).__name__}: {text}"


def fault_of(file: str, error: Exception) -> str:
    """What is wrong with a file, its name said once."""
    text = reason(error)
    return text if file in text else f"{file}: {text}"


def first_few(items: Sequence[str], separator: str = ", ") -> str:
    """The first few items, and how many more there are."""
    more = len(items) - NUM_NAMED
    return separator.join([*items[:NUM_NAMED], *([f"and {more} more"] if more > 0 else [])])


def counted(number: int, noun: str) -> str:
    """`1 episode`, `2 episodes`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def to_report(title: str, findings: Sequence[Finding], facts: dict[str, Any]) -> Report:
    """All findings as a table, the hints below it, and everything as data.

    Returns:
        Rows (area, check, status, found); `data` is `facts` with `counts` by status, `problems` and
        `checks`, both lists of {area, check, status, found, hint}.
    """
    problems = [finding for finding in findings if finding.status == "PROBLEM"]
    counts = Counter(finding.status for finding in findings)
    told = [*(finding for finding in findings if finding.status == "note" and finding.hint), *problems]
    notes = [f"hint for {finding.area}, {finding.check}: {finding.hint}" for finding in told]
    verdict = f"{len(problems)} PROBLEM{'S' * (len(problems) > 1)}" if problems else "no problem"
    notes.append(f"{len(findings)} checks: {counts['ok']} ok, {counts['note']} to note, {verdict}")
    return Report(
        title=title,
        columns=("area", "check", "status", "found"),
        rows=[(finding.area, finding.check, finding.status, finding.found) for finding in findings],
        data={
            **facts,
            "counts": {status: counts[status] for status in ("ok", "note", "PROBLEM")},
            "problems": [asdict(finding) for finding in problems],
            "checks": [asdict(finding) for finding in findings],
        },
        notes=notes,
    )


def _line(text: str) -> str:
    return " ".join(text.split())
