"""The README's environment of one's own: the very text there is run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import gymnasium
import pytest

from ahriuwu_cli.cli.main import run

README = Path(__file__).parents[2] / "README.md"


def test_the_environment_of_the_readme_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    section = README.read_text(encoding="utf-8").partition("### Your own environment")[2]
    code = re.search(r"```python\n# catch\.py\n(.*?)```", section, re.DOTALL)
    assert code is not None
    (tmp_path / "catch.py").write_text(code[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = ["--out", "episodes", "--episodes", "3", "-s", "data.noise=0.0", "--json"]
    try:
        assert run(["data", "record", "--env", "catch:Catch-v0", *arguments]) == 0
    finally:
        sys.modules.pop("catch", None)
        gymnasium.registry.pop("Catch-v0", None)
    facts = json.loads(capfd.readouterr().out)
    assert facts["action"]["components"][0]["labels"] == ["stay", "left", "right"]
    assert facts["frame"] == {"height": 32, "width": 32, "fps": 10.0}
    assert facts["groups"]["all"] == facts["groups"]["by noisy-expert(0)"]
    assert facts["groups"]["all"]["min_return"] == 1.0, "its expert catches every ball"
