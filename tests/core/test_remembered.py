"""Hashes are computed once for each file and change; doctor computes them always; the cache may be thrown away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ahriuwu_cli.core import content, remembered
from ahriuwu_cli.core.content import content_hash
from ahriuwu_cli.core.remembered import nothing_remembered, recall, remember


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that are really hashed."""
    found: list[Path] = []
    compute = content.hash_file
    monkeypatch.setattr(content, "hash_file", lambda path: (found.append(path), compute(path))[1])
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    age(path)
    return path


def age(path: Path) -> None:
    """Let it have been written long enough ago."""
    os.utime(path, (1e9, 1e9))


def again(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """As another process would ask."""
    monkeypatch.setattr(content, "_hashes", {})
    return content_hash(path)


def test_once_for_all_processes(cache: Path, file: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = again(file, monkeypatch)
    assert again(file, monkeypatch) == again(file, monkeypatch) == first
    assert hashed == [file]
    code = "import sys; from pathlib import Path; from ahriuwu_cli.core import content\n"
    code += "content.hash_file = None; print(content.content_hash(Path(sys.argv[1])))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [sys.executable, "-c", code, str(file)], env=environment, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == first


def test_a_changed_file_is_hashed_again(
    cache: Path, file: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = again(file, monkeypatch)
    file.write_bytes(b"CONTENT")  # as long as before
    age(file)
    assert again(file, monkeypatch) != first, "the same size and time of change, and yet"
    assert len(hashed) == 2


def test_who_wants_to_know_is_told_the_truth(
    cache: Path, file: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    again(file, monkeypatch)
    with nothing_remembered():
        again(file, monkeypatch)
    assert len(hashed) == 2


def test_it_may_be_thrown_away_or_be_unusable(
    cache: Path, file: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = again(file, monkeypatch)
    shutil.rmtree(cache)
    monkeypatch.setattr(remembered, "_open", {})
    assert again(file, monkeypatch) == first
    shutil.rmtree(cache)
    cache.write_text("in the way")
    monkeypatch.setattr(remembered, "_open", {})
    assert again(file, monkeypatch) == first
    assert len(hashed) == 3


def test_a_damaged_cache_is_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "ahriuwu").mkdir(parents=True)
    (cache / "ahriuwu" / "remembered.sqlite").write_bytes(b"no database at all, but long enough to be one" * 50)
    monkeypatch.setattr(remembered, "_open", {})
    remember("a", "b")
    assert recall("a") is None


def test_it_does_not_grow_for_ever(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "ROOM", 10)
    for number in range(12):
        remember(f"key{number}", "value")
    monkeypatch.setattr(remembered, "_open", {})
    assert recall("key0") is None
    assert recall("key11") == "value"
