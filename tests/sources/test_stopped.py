"""Whatever ends a recording: all that had ended is stored, and going on makes the store of an unbroken one."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_game import GAME, ToyGame, behave, raising, settings

from ahriuwu_cli.cli.main import run
from ahriuwu_cli.core import artifact
from ahriuwu_cli.core.errors import BusyError, DataError, ForeignError, StorageError, TrainingInterrupted
from ahriuwu_cli.episodes import files
from ahriuwu_cli.episodes.journal import JOURNAL_NAME
from ahriuwu_cli.episodes.recording import FOLD_EPISODES, Recording
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.games import runner
from ahriuwu_cli.sources.record import record
from ahriuwu_cli.sources.summary import info
from ahriuwu_cli.sources.writer import RecordingWriter

LONG = {0: 60, 7: 25}
"""The first episode ends long after all the others."""


def manifest(folder: Path) -> dict[str, Any]:
    """All that a manifest says, but for what it has grown from and when it was written."""
    header = artifact.read_header(folder, "episodes")
    facts = header.model_dump(exclude={"provenance"})
    facts["info"].pop("grown_from")
    return facts


def unbroken(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    behave(LONG)
    record(tmp_path / "unbroken", settings(**changes), 0)
    return manifest(tmp_path / "unbroken")


def places(folder: Path) -> list[int]:
    return [int(item.id) for item in EpisodeStore.open(folder).episodes]


@pytest.mark.parametrize("stop_at", [0, 1, 2, 5, 11])
@pytest.mark.parametrize("num_envs", [1, 4])
def test_a_recording_stopped_and_gone_on_with_is_the_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int, num_envs: int
) -> None:
    """Pitfall 42: order, ids, splits, hashes and fingerprint do not depend on where it stopped."""
    whole = unbroken(tmp_path)
    add, added = RecordingWriter.add, []

    def interrupt(self: RecordingWriter, index: int, episode: Any) -> None:
        if len(added) == stop_at:
            raise KeyboardInterrupt
        added.append(index)
        add(self, index, episode)

    with monkeypatch.context() as patch:
        patch.setattr(RecordingWriter, "add", interrupt)
        with pytest.raises(TrainingInterrupted, match=f"{stop_at} of 12") as caught:
            record(tmp_path / "e", settings(num_envs=num_envs), 0)
    assert f"`--append --episodes {12 - stop_at}`" in caught.value.hint
    if stop_at:
        store = EpisodeStore.open(tmp_path / "e")
        assert places(tmp_path / "e") == sorted(added)
        assert {int(item.id) for item in store.unfinished} == set(range(max(added))) - set(added)
        assert stop_at < 2 or (store.ids("train") and store.ids("heldout"))
    else:
        assert not (tmp_path / "e").exists()
    record(tmp_path / "e", settings(episodes=12 - stop_at, num_envs=num_envs), 0, append=True)
    assert manifest(tmp_path / "e") == whole


def test_an_interrupt_in_the_middle_of_a_write_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = unbroken(tmp_path)
    write, calls = files.write_atomically, []

    def interrupt(path: Path, *arguments: Any) -> None:
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        write(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", interrupt)
        with pytest.raises(TrainingInterrupted, match="4 of 12"):
            record(tmp_path / "e", settings(), 0)
    record(tmp_path / "e", settings(episodes=8), 0, append=True)
    assert manifest(tmp_path / "e") == whole


def test_a_long_episode_holds_back_nobody(tmp_path: Path) -> None:
    """Pitfall 42: the other eleven are on disk while the first one is still played, and when the game dies."""
    seen: list[int] = []

    def look() -> float:
        seen.append(len(list((tmp_path / "e").glob("*.safetensors"))))
        raise RuntimeError("the game died")

    behave(LONG, {0: look})
    with pytest.raises(ForeignError, match=r"failed in step \d+: RuntimeError: the game died") as caught:
        record(tmp_path / "e", settings(), 0)
    assert seen == [11]
    assert places(tmp_path / "e") == list(range(1, 12))
    assert "11 of 12 episodes are stored" in caught.value.message
    assert "--append --episodes 1`" in caught.value.hint
    whole = unbroken(tmp_path)
    record(tmp_path / "e", settings(episodes=1), 0, append=True)
    assert manifest(tmp_path / "e") == whole


def test_another_policy_leaves_the_unfinished_places_free(tmp_path: Path) -> None:
    whole = unbroken(tmp_path)
    behave(LONG, {0: raising(RuntimeError())})
    with pytest.raises(ForeignError):
        record(tmp_path / "e", settings(), 0)
    behave(LONG)
    record(tmp_path / "e", settings(task="play", policy="random", episodes=2), 1, append=True)
    assert places(tmp_path / "e") == [*range(1, 14)]
    record(tmp_path / "e", settings(episodes=1), 0, append=True)
    store = EpisodeStore.open(tmp_path / "e")
    assert store.unfinished == []
    assert [item.sha256 for item in store.episodes[:12]] == [item["sha256"] for item in whole["info"]["episodes"]]


@pytest.mark.parametrize("bad", [{5: lambda: math.nan}, {0: lambda: math.inf, 11: raising(DataError("odd", hint="x"))}])
def test_a_bad_episode_is_skipped_and_counted(tmp_path: Path, bad: dict[int, Callable[[], float]]) -> None:
    """Pitfall 42: a reward that is not a number in one episode cost all the others."""
    behave(LONG, bad)
    report = record(tmp_path / "whole", settings(), 0)
    assert report.data["skipped"] == len(bad)
    assert any(f"{len(bad)} of 12 episodes could not be stored" in note for note in report.notes)
    assert places(tmp_path / "whole") == [place for place in range(12) if place not in bad]
    store = EpisodeStore.open(tmp_path / "whole")
    assert [int(item.id) for item in store.skipped] == sorted(bad)
    assert store.ids("train") and store.ids("heldout")
    record(tmp_path / "parts", settings(episodes=7), 0)
    record(tmp_path / "parts", settings(episodes=5), 0, append=True)  # what was skipped is not played again
    assert manifest(tmp_path / "parts")["info"] == manifest(tmp_path / "whole")["info"]


def test_a_recording_of_nothing_but_bad_episodes_gives_up(tmp_path: Path) -> None:
    behave(last=dict.fromkeys(range(100), lambda: math.nan))
    with pytest.raises(DataError, match=r"none of 16 episodes could be stored: .*reward nan"):
        record(tmp_path / "e", settings(episodes=100), 0)
    with pytest.raises(DataError, match="none of 3 episodes"):
        record(tmp_path / "e", settings(episodes=3), 0)
    assert not (tmp_path / "e").exists()


def test_going_on_is_never_stuck_at_a_bad_episode(tmp_path: Path) -> None:
    behave(last={3: lambda: math.nan})
    record(tmp_path / "e", settings(episodes=3), 0)
    with pytest.raises(DataError, match="none of 1 episodes"):
        record(tmp_path / "e", settings(episodes=1), 0, append=True)
    record(tmp_path / "e", settings(episodes=1), 0, append=True)
    assert places(tmp_path / "e") == [0, 1, 2, 4]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EEXIST])
def test_what_the_disk_refuses_is_told_with_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    whole = unbroken(tmp_path)
    full, replace = [False], Path.replace

    def refuse(self: Path, target: Path) -> Path:
        full[0] |= target.name == "000009.safetensors"
        if full[0]:
            raise OSError(code, os.strerror(code), str(self))
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(StorageError) as caught:
            record(tmp_path / "e", settings(), 0)
    assert os.strerror(code) in caught.value.message
    stored = len(list((tmp_path / "e").glob("*.safetensors")))
    assert 0 < stored < 12
    assert f"{stored} of 12 episodes are stored in {tmp_path / 'e'}" in caught.value.message
    assert (tmp_path / "e" / JOURNAL_NAME).exists(), "the manifest could not be written either"
    record(tmp_path / "e", settings(episodes=12 - stored), 0, append=True)
    assert manifest(tmp_path / "e") == whole


def test_too_little_memory_is_told_with_what_is_kept(tmp_path: Path) -> None:
    behave(LONG, {0: raising(MemoryError())})
    with pytest.raises(StorageError, match="out of memory while recording; 11 of 12 episodes are stored") as caught:
        record(tmp_path / "e", settings(), 0)
    assert "data.num_envs" in caught.value.hint


def test_a_game_of_which_one_may_run(tmp_path: Path) -> None:
    behave()
    record(tmp_path / "e", settings(num_envs=1, policy="auto"), 0)
    assert (ToyGame.alive, ToyGame.most_alive) == (0, 1)
    assert {item.policy for item in EpisodeStore.open(tmp_path / "e").episodes} == {"random"}
    assert EpisodeStore.open(tmp_path / "e").header.config["data"]["policy"] == "random"


def test_a_game_without_an_end_is_cut_and_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ahriuwu_cli.episodes.config.LONGEST_EPISODE", 30)
    monkeypatch.setattr(runner, "HELD_BYTES", 5 * 8 * 8 * 3)  # frames go to a file meanwhile
    behave({2: 10**9})
    report = record(tmp_path / "e", settings(), 0)
    [note] = [note for note in report.notes if "1 episodes were cut after 30 steps" in note]
    assert "data.max_episode_steps" in note
    episode = EpisodeStore.open(tmp_path / "e").read("000002")
    assert episode.num_steps == 30 and episode.truncations[-1] and not episode.terminals.any()
    assert settings(height=512, width=512).step_limit * 512 * 512 * 3 <= 1 << 30
    monkeypatch.undo()
    record(tmp_path / "memory", settings(max_episode_steps=30), 0)
    assert np.array_equal(EpisodeStore.open(tmp_path / "memory").read("000002").frames, episode.frames)
    assert sorted(path.suffix for path in (tmp_path / "e").iterdir()) == [".json", *[".safetensors"] * 12]


def test_many_episodes_do_not_cost_as_many_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    behave()
    write, sizes = artifact.write_manifest, []

    def count(*arguments: Any, info: dict[str, Any], **named: Any) -> Any:
        sizes.append(len(info["episodes"]))
        return write(*arguments, info=info, **named)

    monkeypatch.setattr(artifact, "write_manifest", count)
    record(tmp_path / "e", settings(episodes=200, num_envs=16), 0)
    assert sizes[:3] == [0, FOLD_EPISODES, 2 * FOLD_EPISODES]
    assert sizes[-1] == 200
    assert sum(sizes) <= 4 * 200


def test_lines_cut_short_are_left_out(tmp_path: Path) -> None:
    behave()
    record(tmp_path / "e", settings(), 0)
    before = manifest(tmp_path / "e")
    store = EpisodeStore.open(tmp_path / "e")
    head = json.dumps({"head": {"of": store.fingerprint, "policy": "random"}})
    (tmp_path / "e" / JOURNAL_NAME).write_text("\n".join((head, '{"episode": {"id": "00', "[", "")))
    assert manifest(tmp_path / "e") == before
    assert len(EpisodeStore.open(tmp_path / "e").episodes) == 12
    assert not (tmp_path / "e" / JOURNAL_NAME).exists()


def test_what_is_only_looked_at_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    behave(LONG, {0: raising(RuntimeError())})
    with monkeypatch.context() as patch:  # as a kill leaves it
        patch.setattr(Recording, "close", lambda self: None)
        with pytest.raises(ForeignError):
            record(tmp_path / "e", settings(), 0)
    before = {path.name: path.read_bytes() for path in (tmp_path / "e").iterdir()}
    looked = EpisodeStore.open(tmp_path / "e", settle=False)
    assert (looked.num_episodes, looked.num_in_journal) == (0, 11)
    assert {path.name: path.read_bytes() for path in (tmp_path / "e").iterdir()} == before
    assert info(tmp_path / "e").data["groups"]["all"]["episodes"] == 11
    assert any("1 further episodes are unfinished" in note for note in info(tmp_path / "e").notes)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_two_processes_and_sigterm(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Pitfall 41: one records, the other is told who does; the first is stopped, and the other goes on."""
    folder, command = tmp_path / "e", ["data", "record", "--env", "ahriuwu/Bricks-v0", "--out"]
    code = "from ahriuwu_cli.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command, str(folder), "--episodes", "2000"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.safetensors"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.02)
    for other in ([*command, str(folder), "--append"], ["data", "split", str(folder)]):
        assert run(other) == 1
        assert f"process {process.pid} on" in capfd.readouterr().err
    assert len(EpisodeStore.open(folder).episodes) >= FOLD_EPISODES, "others may read meanwhile"
    with pytest.raises(BusyError):
        EpisodeStore.open(folder).set_split(0.5, 1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.startswith("stopped: recording stopped: ") and len(said.splitlines()) == 2
    store = EpisodeStore.open(folder)
    assert len(store.episodes) == len(list(folder.glob("*.safetensors")))
    for item in store.episodes:
        store.read(item.id)
    assert run([*command, str(folder), "--append", "--episodes", "1"]) == 0
    assert len(EpisodeStore.open(folder).episodes) == len(store.episodes) + 1


def test_the_command_exits_with_3_when_an_episode_was_skipped(tmp_path: Path) -> None:
    behave(last={1: lambda: math.nan})
    command = ["data", "record", "--env", GAME, "--out", str(tmp_path / "e"), "-s", "data.height=8"]
    assert run([*command, "-s", "data.width=8", "--episodes", "3"]) == 3
    assert places(tmp_path / "e") == [0, 2]
