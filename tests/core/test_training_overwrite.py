"""--overwrite replaces what is whole by what is whole, and never leaves less than there was."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ahriuwu_cli.core import tensorfile
from ahriuwu_cli.core.artifact import read_header, read_weights
from ahriuwu_cli.core.errors import InputError, StorageError, TrainingError, TrainingInterrupted
from ahriuwu_cli.core.files import write_text
from ahriuwu_cli.core.training.loop import train
from ahriuwu_cli.core.training.sinks import read_metrics


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def refuse_writes(monkeypatch, after: int, code: int = errno.ENOSPC) -> None:
    """Let `after` tensor files be written; the next ones are refused half way."""
    save, count = tensorfile.save_file, [0]

    def write(tensors, path, metadata):
        count[0] += 1
        save(tensors, path, metadata=metadata)
        if count[0] > after:
            Path(path).write_bytes(Path(path).read_bytes()[:100])
            raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(tensorfile, "save_file", write)


@pytest.fixture
def finished(tmp_path, toy, settings, cpu):
    train(toy(), settings(), cpu, tmp_path, resume=False, seed=3)
    return tmp_path


def test_a_full_disk_leaves_the_earlier_run_and_says_so(finished, toy, settings, cpu, monkeypatch):
    """Pitfall 21: the first checkpoint of an overwriting run does not fit."""
    before = contents(finished)
    with monkeypatch.context() as patch:
        refuse_writes(patch, after=0)
        with pytest.raises(TrainingError, match="No space left on device") as caught:
            train(toy(), settings(), cpu, finished, resume=False, seed=4, overwrite=True)
    assert contents(finished) == before
    assert "of the earlier run, dynamics.state.safetensors and dynamics.safetensors as before" in caught.value.message
    assert "make room" in caught.value.hint
    assert "--resume" not in caught.value.hint
    again = train(toy(), settings(), cpu, finished, resume=True, seed=3)
    assert again.steps == 12


def test_a_crash_before_the_first_checkpoint_leaves_the_earlier_run(finished, toy, settings, cpu):
    before = contents(finished)
    with pytest.raises(RuntimeError, match="crash"):
        train(toy(crash_at=3), settings(), cpu, finished, resume=False, seed=4, overwrite=True)
    assert contents(finished) == before


def test_after_the_first_checkpoint_nothing_of_the_earlier_run_is_left(finished, toy, settings, cpu):
    """The old weights would be taken for the result of the new state."""
    with pytest.raises(RuntimeError, match="crash"):
        train(toy(crash_at=8), settings(), cpu, finished, resume=False, seed=4, overwrite=True)
    assert sorted(contents(finished)) == ["dynamics.state.safetensors", "metrics.jsonl"]
    assert [line["step"] for line in read_metrics(finished / "metrics.jsonl")] == [2, 4, 5, 6, 8]
    resumed = train(toy(), settings(), cpu, finished, resume=True, seed=4)
    straight = train(toy(), settings(), cpu, finished / "straight", resume=False, seed=4)
    assert resumed.header.fingerprint == straight.header.fingerprint


def test_weights_of_another_run_are_not_taken_for_the_result(tmp_path, toy, settings, cpu):
    """Killed between the state of an overwriting run and its weights, both of the same number of steps."""
    train(toy(), settings(), cpu, tmp_path / "old", resume=False, seed=3)
    new = train(toy(), settings(), cpu, tmp_path / "new", resume=False, seed=4)
    (tmp_path / "old" / "dynamics.safetensors").replace(tmp_path / "new" / "dynamics.safetensors")
    resumed = train(toy(), settings(), cpu, tmp_path / "new", resume=True, seed=4)
    assert resumed.header.fingerprint == new.header.fingerprint
    assert read_weights(tmp_path / "new" / "dynamics.safetensors", "dynamics")[0] == resumed.header


@pytest.mark.parametrize(
    ("code", "helps"), [(errno.EROFS, "allow writing"), (errno.EDQUOT, "make room"), (errno.EIO, "disk")]
)
def test_what_the_system_refuses_is_told_in_its_words(tmp_path, toy, settings, cpu, monkeypatch, code, helps):
    refuse_writes(monkeypatch, after=0, code=code)
    with pytest.raises(TrainingError) as caught:
        train(toy(), settings(), cpu, tmp_path, resume=False, seed=3)
    assert os.strerror(code) in caught.value.message
    assert "nothing is saved yet" in caught.value.message
    assert helps in caught.value.hint


def test_something_in_the_way_is_named(tmp_path, toy, settings, cpu):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match="cannot be written to: a file is in its place"):
        train(toy(), settings(), cpu, tmp_path / "run", resume=False, seed=3)
    with pytest.raises(StorageError, match=r"could not write .*: (Not a directory|File exists)"):
        write_text(tmp_path / "run" / "x.json", "{}")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(StorageError, match="Is a directory; nothing was written there"):
        write_text(tmp_path / "folder.json", "{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.json", "run"]


def test_a_stop_leaves_a_log_that_goes_on_as_if_nothing_had_been(tmp_path, toy, settings, cpu):
    """Pitfall 14: metrics.jsonl of a resumed run is that of an unbroken one, averages and warnings included."""
    changes = {"log_every": 4, "steps": 230, "clip_norm": 0.01, "checkpoint_every": 1000}
    faults = {"nan_loss": frozenset({2, 5, 9, 100})}
    train(toy(**faults), settings(**changes), cpu, tmp_path / "straight", resume=False, seed=3)
    for stop in (6, 99, 150):
        with pytest.raises(TrainingInterrupted):
            train(toy(stop_at=stop, **faults), settings(**changes), cpu, tmp_path / "broken", resume=stop != 6, seed=3)
    train(toy(**faults), settings(**changes), cpu, tmp_path / "broken", resume=True, seed=3)
    left, right = (
        [
            [(name, value) for name, value in line.items() if name not in ("seconds", "steps_per_second")]
            for line in read_metrics(tmp_path / name / "metrics.jsonl")
        ]
        for name in ("straight", "broken")
    )
    assert left == right
    assert sum("warning" in dict(line) for line in left) == 4  # 3 of skipped steps, 1 of clipping


# ---------------------------------------------------------------- a run in which nothing was learned


@pytest.mark.parametrize("limit", [3, 100])
def test_a_run_whose_steps_were_all_skipped_is_a_failure(finished, toy, settings, cpu, limit):
    """Pitfall 15: untrained weights are no result; those of an earlier run stay."""
    before = contents(finished)
    stage = toy(nan_loss=frozenset(range(100)))
    with pytest.raises(
        TrainingError, match=r"none of (4|12) steps was finite \(last: .*no weights were written"
    ) as caught:
        train(
            stage,
            settings(max_bad_steps=limit, checkpoint_every=100),
            cpu,
            finished,
            resume=False,
            seed=3,
            overwrite=True,
        )
    assert "learning_rate" in caught.value.hint
    assert contents(finished) == before


def test_a_run_whose_last_steps_were_all_skipped_is_not_finished(tmp_path, toy, settings, cpu):
    """Pitfall 15: fewer than max_bad_steps, but training had broken down."""
    changes = {"steps": 20, "max_bad_steps": 100}
    with pytest.raises(TrainingError, match="the last 11 of 20 steps were not finite"):
        train(toy(nan_loss=frozenset(range(9, 99))), settings(**changes), cpu, tmp_path, resume=False, seed=3)
    assert not read_header(tmp_path / "dynamics.safetensors", "dynamics").info["finished"]
    with pytest.raises(TrainingError, match="the last 11 of 20 steps"):  # nor by asking again
        train(toy(), settings(**changes), cpu, tmp_path, resume=True, seed=3)
    few = toy(nan_loss=frozenset(range(11, 99)))
    assert train(few, settings(**changes), cpu, tmp_path / "few", resume=False, seed=3).header.info["finished"]


def test_too_many_skipped_steps_at_the_very_end_are_not_finished(tmp_path, toy, settings, cpu):
    with pytest.raises(TrainingError, match="3 steps were not finite"):
        train(toy(nan_loss=frozenset({9, 10, 11})), settings(max_bad_steps=2), cpu, tmp_path, resume=False, seed=3)
    assert not read_header(tmp_path / "dynamics.safetensors", "dynamics").info["finished"]
