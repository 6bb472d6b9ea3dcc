"""One process at a time in an artifact folder: who is refused, who is named, which locks are stale."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ahriuwu_cli.core import lock
from ahriuwu_cli.core.errors import EXIT_FAILED, BusyError, InputError
from ahriuwu_cli.core.files import TEMPORARY_SUFFIX
from ahriuwu_cli.core.lock import LOCK_NAME, contents, exclusive, in_turn
from ahriuwu_cli.core.training.loop import train

posix = pytest.mark.skipif(os.name != "posix", reason="kernel locks and signals of POSIX")
HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom ahriuwu_cli.core.lock import exclusive\n"
    "with exclusive(Path(sys.argv[1])):\n    print('mine', flush=True)\n    time.sleep(60)\n"
)


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has `folder`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "mine\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def left_behind(folder: Path, **changes: object) -> None:
    """A lock file as a holder leaves it that never came to remove it."""
    folder.mkdir(exist_ok=True)
    holder = dataclasses.replace(lock._this_process(), **changes)
    (folder / LOCK_NAME).write_text(json.dumps(dataclasses.asdict(holder)))


def is_free(folder: Path) -> bool:
    try:
        with exclusive(folder):
            return True
    except BusyError:
        return False


@posix
def test_one_of_two_processes_is_refused_and_told_who_it_is(tmp_path: Path) -> None:
    """Pitfall 41: two processes in one folder."""
    folder = tmp_path / "run" / "episodes"
    with held(folder) as process:
        with pytest.raises(BusyError) as caught, exclusive(folder):
            pass
        for part in (str(folder), f"process {process.pid}", "`ahriuwu", "since 2", "UTC"):
            assert part in caught.value.message
        assert f"kill {process.pid}" in caught.value.hint
        assert caught.value.exit_code == EXIT_FAILED
        link = tmp_path / "link"
        link.symlink_to(folder)
        assert not is_free(link)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (folder / LOCK_NAME).exists()
        assert is_free(folder)
    assert not (tmp_path / "run").exists() or list(folder.iterdir()) == []


@posix
def test_whoever_waits_for_its_turn_is_told_once_who_has_it(tmp_path: Path) -> None:
    told: list[str] = []
    with in_turn(tmp_path / "free", told.append):
        assert lock.is_ours(tmp_path / "free")
    assert not told
    with held(tmp_path / "taken") as process:

        def wait(message: str) -> None:
            told.append(message)
            threading.Timer(3 * lock.TURN_SECONDS, process.kill).start()  # it asks again and again before that

        with in_turn(tmp_path / "taken", wait):
            assert process.wait() and lock.is_ours(tmp_path / "taken")
        assert len(told) == 1 and f"process {process.pid}" in told[0]


def test_a_process_may_come_again(tmp_path: Path) -> None:
    """`study`, `improve` and --overwrite call stages that lock the same folder."""
    with exclusive(tmp_path / "a"), exclusive(tmp_path / "a"), exclusive(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").touch()
    assert [path.name for path in (tmp_path / "a").rglob("*")] == ["b", "file"]


def test_the_lock_is_no_content_and_leaves_nothing(tmp_path: Path) -> None:
    with exclusive(tmp_path / "new" / "er"):
        assert (tmp_path / "new" / "er" / LOCK_NAME).exists()
        assert contents(tmp_path / "new" / "er") == []
    assert not (tmp_path / "new").exists(), "made, empty, removed"
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / "mine"):
        raise ZeroDivisionError
    assert list((tmp_path / "mine").iterdir()) == [], "what was there stays"


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    for name in (f".a.bin.x1{TEMPORARY_SUFFIX}", ".keep.tmp", "a.bin"):
        (tmp_path / name).touch()
    clips = tmp_path / f".clips.x{TEMPORARY_SUFFIX}"
    clips.mkdir()
    (clips / "one").touch()
    with exclusive(tmp_path):
        assert sorted(path.name for path in contents(tmp_path)) == [".keep.tmp", "a.bin"]
        assert not clips.exists()


@posix
@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({}, True),  # the kernel's lock is free, so whoever it was has ended
        ({"boot": "before"}, True),  # this machine was started again since
        ({"host": "elsewhere", "boot": "other", "machine": "other"}, False),
        ({"host": "container-2", "machine": ""}, True),  # same kernel under another name
    ],
)
def test_stale_locks_where_the_kernel_knows(tmp_path: Path, changes: dict[str, object], free: bool) -> None:
    left_behind(tmp_path, **changes)
    assert is_free(tmp_path) == free


@posix
@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({}, False),  # this very process lives
        ({"started": "1"}, True),  # its number was given to another since
        ({"pid": 2**22 + 1}, True),
        ({"boot": "before"}, True),
        ({"host": "elsewhere"}, False),
    ],
)
def test_stale_locks_on_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], free: bool
) -> None:
    monkeypatch.setattr(lock, "_lock", lambda descriptor: None)
    left_behind(tmp_path, **changes)
    assert is_free(tmp_path) == free
    assert (tmp_path / LOCK_NAME).exists() != free


def test_another_machine_is_never_presumed_dead(tmp_path: Path) -> None:
    left_behind(tmp_path, host="elsewhere", boot="other", machine="other", pid=1)
    with pytest.raises(BusyError, match="process 1 on elsewhere") as caught, exclusive(tmp_path):
        pass
    assert f"remove {tmp_path / LOCK_NAME}" in caught.value.hint
    (tmp_path / LOCK_NAME).unlink()
    assert is_free(tmp_path)


def test_a_training_is_refused_before_it_touches_anything(tmp_path: Path, toy, settings, cpu) -> None:
    """Pitfall 41: `train --overwrite` twice in one folder lost a result silently."""
    train(toy(), settings(), cpu, tmp_path, resume=False, seed=0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    left_behind(tmp_path, host="elsewhere", boot="other", machine="other")
    for options in ({"resume": False, "overwrite": True}, {"resume": True}):
        with pytest.raises(BusyError, match="on elsewhere"):
            train(toy(), settings(), cpu, tmp_path, seed=1, **options)
    (tmp_path / LOCK_NAME).unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@posix
def test_a_text_cut_short_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text('{"pid": 1')
    assert is_free(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written to"), exclusive(tmp_path / "file"):
        pass

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match="cannot be written to: Permission denied"), exclusive(tmp_path):
        pass
