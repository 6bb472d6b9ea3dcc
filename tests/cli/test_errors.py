"""The error boundary: one `error:` line, one `hint:` line, the right exit code, nothing written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ahriuwu_cli.cli.main import main
from ahriuwu_cli.core.errors import AhriuwuError, ArtifactError, DeviceError, TrainingInterrupted


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


BAD = [
    (["dynamics", "train", "-s", "dynamics.model.dmi=64"], "unknown key dynamics.model.dmi; nearest valid key:"),
    (["dynamics", "train", "-s", "dynamics.model.dim=8"], "dynamics.model.dim is 8; expected an integer from 16 to"),
    (["dynamics", "train", "-s", "dynamics.model.dim=wide"], 'dynamics.model.dim is "wide"; expected an integer'),
    (["dynamics", "train", "-s", "dynamics.model.dim"], "is not `section.key=value`"),
    (
        ["tokenizer", "train", "-s", "tokenizer.loss.ignored_regions=[[0, 0, 9, 40]]"],
        "tokenizer.loss.ignored_regions has [0, 0, 9, 40]; expected [top, left, height, width]",
    ),
    (["tokenizer", "train", "--config", "nowhere.toml"], "nowhere.toml does not exist"),
    (["tokenizer", "train", "--config", "."], ". is a folder"),
    (["tokenizer", "train", "--config", "broken.toml"], "broken.toml is not TOML"),
    (["tokenizer", "train", "--config", "typo.toml"], "typo.toml: unknown key tokeniser"),
    (["data", "record", "--episodes", "many"], "Invalid value for '--episodes'"),
    (["data", "record", "--episodes", "0"], "command line: data.episodes is 0; expected an integer at least 1"),
    (["data", "record", "--noise", "2"], "command line: data.noise is 2.0; expected a number from 0 to 1"),
    (["data", "record", "--confg", "x"], "No such option: --confg"),
    (["data", "info"], "Missing argument 'PATH'"),
    (["data", "rcord"], "No such command 'rcord'"),
    (["data"], "Missing command"),
    (["eval", "agent", "--episodes", "0"], "command line: eval.episodes is 0; expected an integer at least 1"),
    (["demo", "--seed", "x"], "Invalid value for '--seed'"),
    (["init"], "Missing argument 'DIR'"),
    (["init", "new", "--preset", "tyni"], 'there is no preset "tyni"'),
    (["init", "new", "--tokenizer", "cnn-medum"], 'there is no tokenizer "cnn-medum"'),
    (["init", "."], "run.toml exists already"),
    (["init", "broken.toml"], "broken.toml is a file; expected a folder"),
    (["nonsense"], "No such command 'nonsense'"),
    (["--nonsense"], "No such option: --nonsense"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda value: " ".join(value)[:50])
def test_bad_input_is_one_line_and_a_hint(ahriuwu, calls, run_toml, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(run_toml.parent)
    Path("broken.toml").write_text("[run\n")
    Path("typo.toml").write_text(run_toml.read_text().replace("[tokenizer]", "[tokeniser]"))
    before = tree(run_toml.parent)
    outcome = ahriuwu(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    error, hint = outcome.err.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")
    assert len(hint) > len("hint: ")
    assert calls.made == [], "nothing was begun"
    assert tree(run_toml.parent) == before


def fail_with(error: BaseException):
    def answer(*_: object, **__: object) -> None:
        raise error

    return answer


@pytest.mark.parametrize(
    ("error", "code", "first"),
    [
        (DeviceError("no cuda here", hint="take cpu"), 2, "error: no cuda here"),
        (ArtifactError("x is damaged", hint="make it\nagain"), 3, "error: x is damaged"),
        (AhriuwuError("it failed", hint="try more"), 1, "error: it failed"),
        (TrainingInterrupted("saved at step 3", hint="go on with --resume"), 130, "stopped: saved at step 3"),
        (OSError(errno.ENOSPC, "No space left on device", "big.bin"), 1, "error: big.bin: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "error: x: Permission denied"),
        (FileExistsError(errno.EEXIST, "File exists", "x"), 1, "error: x: File exists"),
        (MemoryError(), 1, "error: this machine ran out of memory"),
        (KeyboardInterrupt(), 130, "stopped: on request; files are whole or not there"),
    ],
)
def test_errors_of_the_stages(ahriuwu, calls, run_toml, error, code, first) -> None:
    calls.answer = fail_with(error)
    outcome = ahriuwu("dynamics", "train", "-c", run_toml)
    assert (outcome.code, outcome.out) == (code, "")
    message, hint = outcome.err.splitlines()
    assert message == first
    assert hint.startswith("hint: ")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "arguments", [["data", "info", "."], ["latents", "build"], ["eval", "agent"], ["doctor"], ["demo"]]
)
def test_every_command_says_that_it_was_stopped(calls, run_toml, monkeypatch, capfd, arguments, number) -> None:
    monkeypatch.chdir(run_toml.parent)
    monkeypatch.setattr(sys, "argv", ["ahriuwu", *arguments])
    monkeypatch.setattr("ahriuwu_cli.cli.main.tune_process", lambda: None)
    calls.answer = lambda *_, **__: os.kill(os.getpid(), number)
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts without it
    try:
        with pytest.raises(SystemExit) as caught:
            main()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert caught.value.code == 130
    said, hint = capfd.readouterr().err.splitlines()
    assert said.startswith("stopped: ")
    assert hint.startswith("hint: ")


@pytest.mark.parametrize("fault", [ZeroDivisionError("ours"), FileNotFoundError(errno.ENOENT, "No such file", "ours")])
def test_a_fault_of_ours_says_so_and_asks_for_a_report(ahriuwu, calls, run_toml, fault) -> None:
    calls.answer = fail_with(fault)
    outcome = ahriuwu("dynamics", "train", "-c", run_toml)
    assert outcome.code == 1
    assert "Traceback" in outcome.err
    assert "ours" in outcome.err
    assert "error: this is a fault in ahriuwu" in outcome.err
    assert "hint: please report it" in outcome.err


@pytest.mark.skipif(os.name != "posix", reason="pipes that close this way are POSIX")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_a_reader_that_goes_away_is_no_error(arguments) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "from ahriuwu_cli.cli.main import main; main()", *arguments]
    with os.fdopen(writing, "wb") as stdout:
        answer = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    assert answer.stderr == ""
    assert answer.returncode == 1
