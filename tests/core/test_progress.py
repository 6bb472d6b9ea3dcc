"""How far a long command is: lines in a log where there is no terminal."""

from __future__ import annotations

import pytest

from ahriuwu_cli.core import progress
from ahriuwu_cli.core.progress import counted, tracked


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with counted("record", 600, "episodes") as show:
        for second in range(65):
            now[0] = 1000.0 + second
            show(2 * second, f"{second} steps")
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "record: 60/600 episodes  30 steps  0:00:30 so far  left 0:04:30",
        "record: 120/600 episodes  60 steps  0:01:00 so far  left 0:04:00",
    ]


def test_nothing_done_yet_and_all_items(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", -1.0)
    assert list(tracked("latents", ["a", "b"], "episodes")) == ["a", "b"]
    first, second = capfd.readouterr().err.splitlines()
    assert first.startswith("latents: 0/2 episodes") and first.endswith("left -")
    assert second.startswith("latents: 1/2 episodes")
