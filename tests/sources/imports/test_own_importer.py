"""The README's importer of one's own: the very text there is run; its faults are its own."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ahriuwu_cli.cli.main import run
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.episodes.video import RATE, write_video

README = Path(__file__).parents[3] / "README.md"


@pytest.fixture
def letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with letters.py and recordings, where the command is started."""
    section = README.read_text(encoding="utf-8").partition("### Your own recordings")[2]
    code = re.search(r"```python\n# letters\.py\n(.*?)```", section, re.DOTALL)
    assert code is not None
    (tmp_path / "letters.py").write_text(code[1])
    (tmp_path / "plays").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        write_video(tmp_path / "plays" / f"{number}.mp4", [rng.integers(0, 255, (12, 32, 32, 3), np.uint8)], 32, 32)
        (tmp_path / "plays" / f"{number}.txt").write_text("LLRR..LR.LR.")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("letters", None)


ARGUMENTS = ["data", "import", "letters:Letters", "plays", "--out", "episodes", "--json"]


def test_the_importer_of_the_readme(letters: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (letters / "plays" / "1.txt").write_text("LLRRxx")
    assert run(ARGUMENTS) == 3
    [defect] = json.loads(capfd.readouterr().out)["import"]["defects"]
    assert (defect["file"], defect["row"]) == ("1.txt", None)
    store = EpisodeStore.open(letters / "episodes")
    assert [record.origin.name for record in store.episodes if record.origin] == ["0", "2"]
    assert store.frame_spec.fps == RATE
    assert store.tracks("000000").actions[:, 0].tolist() == ["LR.".index(letter) for letter in "LLRR..LR.LR"]
    (letters / "plays" / "1.txt").write_text("LLRR..LR.LR.")
    assert run(ARGUMENTS) == 0
    assert EpisodeStore.open(letters / "episodes").num_episodes == 3


@pytest.mark.parametrize("method", ["detect", "open_source", "read"])
def test_its_faults_are_its_own(letters: Path, capfd: pytest.CaptureFixture[str], method: str) -> None:
    code = (letters / "letters.py").read_text()
    head = next(line for line in code.splitlines() if line.strip().startswith(f"def {method}("))
    (letters / "letters.py").write_text(code.replace(head, f"{head}\n        raise RuntimeError('no idea')"))
    assert run(ARGUMENTS) == 1
    said = capfd.readouterr().err
    assert "letters:Letters failed in" in said
    assert "no idea" in said
    assert "letters.py" in said
    assert "fault in ahriuwu" not in said


@pytest.mark.parametrize(("kind", "reason"), [("letters:Words", "no class 'Words'"), ("words:Letters", "no module")])
def test_what_is_not_there(letters: Path, capfd: pytest.CaptureFixture[str], kind: str, reason: str) -> None:
    assert run(["data", "import", kind, "plays", "--out", "episodes"]) == 2
    assert reason in capfd.readouterr().err
