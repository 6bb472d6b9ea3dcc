"""Ctrl-C, SIGTERM, kill -9 and a full disk: what was saved before always loads."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from ahriuwu_cli.core import tensorfile
from ahriuwu_cli.core.artifact import read_header, read_weights, write_weights
from ahriuwu_cli.core.errors import TrainingError, TrainingInterrupted
from ahriuwu_cli.core.training.interrupt import StopRequest
from ahriuwu_cli.core.training.loop import train
from ahriuwu_cli.core.training.sinks import MetricsFile

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
HERE = Path(__file__).parent


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=HERE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


TRAINING = """
import sys
from pathlib import Path
sys.path.insert(0, ".")
from conftest import CPU, ToyStage, toy_settings
from ahriuwu_cli.core.errors import TrainingInterrupted
from ahriuwu_cli.core.training import sinks
from ahriuwu_cli.core.training.loop import train
sinks._open_tensorboard = lambda folder, step: None
try:
    settings = toy_settings(steps=5000, log_every=1)
    train(ToyStage(sleep=0.01), settings, CPU, Path(sys.argv[1]), resume=False, seed=3)
except TrainingInterrupted as error:
    print(error.message); print(error.hint); sys.exit(error.exit_code)
"""


@posix
def test_sigterm_saves_and_says_how_to_go_on(tmp_path, toy, settings, cpu):
    process = start(TRAINING, tmp_path)
    metrics = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.is_file() and metrics.stat().st_size > 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    header = read_header(tmp_path / "dynamics.safetensors", "dynamics")
    step = header.info["steps"]
    assert 0 < step < 5000
    assert not header.info["finished"]
    assert out.splitlines() == [
        f"stopped at step {step} of 5000; saved to {tmp_path}",
        "run the same command with --resume to go on",
    ]
    assert "stopping after this step" in err
    result = train(toy(), settings(steps=step + 3, schedule="wsd"), cpu, tmp_path, resume=True, seed=3)
    assert result.steps == step + 3


@posix
def test_a_second_signal_stops_at_once():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_stop_and_handlers_come_back(tmp_path, toy, settings, cpu, number):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(TrainingInterrupted, match="stopped at step 3 of 12"):
        train(toy(stop_at=2, stop_signal=number), settings(), cpu, tmp_path, resume=False, seed=3)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_may_train(tmp_path, toy, settings, cpu):
    before, results = signal.getsignal(signal.SIGINT), []
    thread = threading.Thread(
        target=lambda: results.append(train(toy(), settings(), cpu, tmp_path, resume=False, seed=3))
    )
    thread.start()
    thread.join()
    assert results[0].steps == 12
    assert signal.getsignal(signal.SIGINT) is before


@posix
def test_a_request_in_the_last_step_changes_nothing(tmp_path, toy, settings, cpu):
    result = train(toy(stop_at=11), settings(), cpu, tmp_path, resume=False, seed=3)
    assert result.header.info["finished"]


# A child process rewrites one file as fast as it can and is killed at a random moment, again and again.
KILLING = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from ahriuwu_cli.core.artifact import read_weights, write_weights
torch.set_num_threads(1)
path, kills = Path(sys.argv[1]), int(sys.argv[2])

def save(number):
    tensors = {name: torch.full((50_000,), float(number)) for name in "abcd"}
    write_weights(path, "dynamics", tensors, config={}, specs={}, parents={}, info={"number": number})

save(0)
saved = set()
for kill in range(kills):
    done, tell = os.pipe()
    child = os.fork()
    if child == 0:
        number = 1000 * kill
        while True:
            save(number := number + 1)
            os.write(tell, b".")
    os.read(done, 1)  # its first save is whole, however slow the machine is
    time.sleep(random.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(done)
    os.close(tell)
    header, tensors = read_weights(path, "dynamics")
    assert all(bool((tensor == header.info["number"]).all()) for tensor in tensors.values())
    saved.add(header.info["number"])
print(len(saved), len(list(path.parent.glob(".*-tmp"))))
"""


@posix
def test_kill_during_save_leaves_a_file_that_loads(tmp_path):
    """Pitfall 21: kill -9 during save: the previous checkpoint still loads."""
    process = start(KILLING, tmp_path / "dynamics.safetensors", 15)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    saved, cut_short = map(int, out.split())
    assert saved == 15  # every child did save
    assert cut_short > 0  # and some were killed in the middle of it


def full_disk(monkeypatch, after: int) -> None:
    """Let `after` files be written; the next ones fail half way, as on a full disk."""
    save, count = tensorfile.save_file, [0]

    def write(tensors, path, metadata):
        count[0] += 1
        save(tensors, path, metadata=metadata)
        if count[0] > after:
            whole = Path(path).read_bytes()
            Path(path).write_bytes(whole[: len(whole) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(tensorfile, "save_file", write)


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path, toy, settings, cpu, monkeypatch):
    """Pitfall 21: disk full during save: the previous checkpoint still loads."""
    with monkeypatch.context() as patch:
        full_disk(patch, after=1)
        with pytest.raises(TrainingError, match="No space left on device") as caught:
            train(toy(), settings(), cpu, tmp_path, resume=False, seed=3)
    assert "the state of step 5 is whole" in caught.value.message
    assert "--resume" in caught.value.hint
    header, _ = read_weights(tmp_path / "dynamics.state.safetensors", "state")
    assert header.info["step"] == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dynamics.state.safetensors", "metrics.jsonl"]

    resumed = train(toy(), settings(), cpu, tmp_path, resume=True, seed=3)  # there is room again
    whole = train(toy(), settings(), cpu, tmp_path / "straight", resume=False, seed=3)
    assert resumed.header.fingerprint == whole.header.fingerprint


def test_a_full_disk_under_the_metrics_file_is_one_clear_error(tmp_path):
    """Pitfall 21: also the small file may be the one that does not fit."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    log = MetricsFile(tmp_path / "metrics.jsonl", 0)
    log.close()
    log._stream = full.open("a", encoding="utf-8")
    with pytest.raises(TrainingError, match="No space left"):
        log.write({"step": 1})
    log.close()


@posix
def test_a_write_past_the_systems_limit_keeps_the_previous_file(tmp_path):
    """Pitfall 21: the same with the operating system refusing the write."""
    import resource

    path = tmp_path / "dynamics.safetensors"

    def save(number: int) -> None:
        tensors = {"a": torch.full((100_000,), float(number))}
        write_weights(path, "dynamics", tensors, config={}, specs={}, parents={}, info={"number": number})

    save(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(Exception, match=r"(?i)too large"):
            save(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_weights(path, "dynamics")[0].info == {"number": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
