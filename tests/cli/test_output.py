"""How reports are printed."""

from __future__ import annotations

import json
import os
import pty
import select
import sys
from dataclasses import replace

import pytest

from ahriuwu_cli.cli.output import render
from ahriuwu_cli.core.report import Report, Table

LONG = "/a/very/long/path" * 20
REPORT = Report(
    title="Title [bold]",
    columns=("name", "value [dB]"),
    rows=(("[dynamics]", LONG), ("two\nlines", "")),
    data={"a": [1.5, float("inf"), {"b": float("nan")}], "c": (1, None, "ü", True)},
    notes=(f"see {LONG} [red]",),
)


def test_table_off_a_terminal_keeps_every_cell_whole(capsys: pytest.CaptureFixture[str]) -> None:
    render(REPORT, as_json=False)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].rstrip() == "Title [bold]"
    assert "\x1b" not in out
    assert any("[dynamics]" in line and LONG in line for line in lines)
    assert any("value [dB]" in line for line in lines)
    assert lines[-1] == f"see {LONG} [red]"


def test_further_tables_stand_below_the_first_whole(capsys: pytest.CaptureFixture[str]) -> None:
    wide = Table(("what", "where"), (("[agent]", LONG * 2), ("second", "row")))
    render(replace(REPORT, tables=(wide, Table(("last",), (("one",),)))), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    places = [next(at for at, line in enumerate(lines) if text in line) for text in ("[dynamics]", "[agent]", "one")]
    assert places == sorted(places)
    assert LONG * 2 in lines[places[1]]
    assert lines[-1] == f"see {LONG} [red]"


def test_colour_is_not_forced_into_a_pipe(capsys, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    render(REPORT, as_json=False)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert LONG in out


def test_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    render(REPORT, as_json=True)
    out = capsys.readouterr().out
    assert json.loads(out, parse_constant=pytest.fail) == {"a": [1.5, None, {"b": None}], "c": [1, None, "ü", True]}


def test_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    render(Report(title="Nothing", columns=("a", "b"), rows=()), as_json=False)
    assert "Nothing" in capsys.readouterr().out
    render(Report(title="Nothing", columns=(), rows=()), as_json=False)
    assert capsys.readouterr().out == "Nothing\n"


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_narrow_terminal_folds_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        render(Report(title="T", columns=("a",), rows=((LONG,),)), as_json=False)
        terminal.flush()
        monkeypatch.undo()
        shown = b""
        while LONG not in "".join(shown.decode().split()):  # a terminal hands over what it has in pieces
            assert select.select([ours], [], [], 10)[0], shown
            shown += os.read(ours, 65536)
    os.close(ours)
