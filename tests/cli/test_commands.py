"""What each command hands over: the run it loads, the function it calls, the flags it passes."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from ahriuwu_cli.core.report import Report
from ahriuwu_cli.pipeline.config import Run

STAGES = "ahriuwu_cli.pipeline.stages"
PLAIN = {"resume": False, "overwrite": False}

# Command line after -c RUN_TOML, the function it reaches, what comes after the run, keywords.
TABLE: list[tuple[list[str], str, tuple[Any, ...], dict[str, Any]]] = [
    (["data", "record"], "record", (), {"append": False}),
    (["data", "record", "--append"], "record", (), {"append": True}),
    (["data", "split"], "split", (), {}),
    (["tokenizer", "train"], "train_tokenizer", (), PLAIN),
    (["tokenizer", "train", "--resume"], "train_tokenizer", (), PLAIN | {"resume": True}),
    (["latents", "build"], "build_latents", (), {}),
    (["latents", "pack"], "pack_latents", (), {}),
    (["dynamics", "train", "--overwrite"], "train_dynamics", (), PLAIN | {"overwrite": True}),
    (["agent", "finetune"], "finetune_agent", (), PLAIN),
    (["imagine", "train"], "train_imagination", (), PLAIN),
    (["eval", "rollout"], "evaluate_rollout", (None, None), {}),
    (["eval", "rollout", "--checkpoint", "a.safetensors"], "evaluate_rollout", (Path("a.safetensors"), None), {}),
    (["eval", "rollout", "--out", "there"], "evaluate_rollout", (None, Path("there")), {}),
    (["eval", "agent"], "evaluate_agent", (None, None), {"overwrite": False}),
    (["eval", "agent", "--agents", "random, bc,"], "evaluate_agent", (["random", "bc"], None), {"overwrite": False}),
    (["eval", "agent", "--task", "catch"], "evaluate_agent", (None, "catch"), {"overwrite": False}),
]


@pytest.mark.parametrize(("command", "function", "rest", "named"), TABLE, ids=lambda value: str(value)[:40])
def test_stage_commands(ahriuwu, calls, run_toml, command, function, rest, named) -> None:
    outcome = ahriuwu(*command, "-c", run_toml, "--set", "run.seed=5", "-s", "run.name=both", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out) == {"said": "it"}
    name, (run, *others), keywords = calls.only()
    assert (name, tuple(others), keywords) == (f"{STAGES}.{function}", rest, named)
    assert isinstance(run, Run)
    assert run.folder == run_toml.parent
    assert (run.config.run.seed, run.config.run.name) == (5, "both")
    assert "it" in ahriuwu(*command, "-c", run_toml).out


REACHED = {
    **{f"{STAGES}.{function}": ((None, *rest), named) for _, function, rest, named in TABLE},
    "ahriuwu_cli.sources.summary.info": ((Path(), None), {}),
    "ahriuwu_cli.sources.viewing.view": ((Path(), (), None), {"count": 6, "split": None, "start": 0, "steps": 200}),
    "ahriuwu_cli.doctor.examine": ((Path(),), {}),
    "ahriuwu_cli.pipeline.demo.run_demo": ((Path(), 0, print), {}),
}


@pytest.mark.parametrize("name", REACHED)
def test_calls_fit_the_real_functions(name: str) -> None:
    """The fakes of these tests take anything; the modules themselves must take these calls."""
    module, _, function = name.rpartition(".")
    arguments, named = REACHED[name]
    inspect.signature(getattr(importlib.import_module(module), function)).bind(*arguments, **named)


def test_flags_of_record_are_overrides_that_win(ahriuwu, calls, run_toml) -> None:
    flags = ["--env", "A/B-v1", "--episodes", "3", "--policy", "random", "--noise", "0.25", "--seed", "8"]
    assert ahriuwu("data", "record", "-c", run_toml, "-s", "data.episodes=99", *flags).code == 0
    config = calls.only()[1][0].config
    assert (config.data.env, config.data.episodes, config.data.policy) == ("A/B-v1", 3, "random")
    assert (config.data.noise, config.run.seed) == (0.25, 8)


@pytest.mark.parametrize("text", ["true", "1", "nan", 'a "quoted" \\ name', "[data]"])
def test_text_given_as_a_flag_stays_text(ahriuwu, calls, run_toml, text) -> None:
    assert ahriuwu("data", "record", "-c", run_toml, "--policy", text).code == 0
    assert calls.only()[1][0].config.data.policy == text


def test_record_without_a_config(ahriuwu, calls, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ahriuwu("data", "record", "--env", "A/B-v1", "--out", "store").code == 0
    run = calls.only()[1][0]
    assert (run.config.data.env, run.config.run.name, run.episodes) == ("A/B-v1", "tiny", Path("store"))
    for arguments in (["--env", "A/B-v1"], ["--out", "store"]):
        outcome = ahriuwu("data", "record", *arguments)
        assert (outcome.code, outcome.err.splitlines()[0]) == (2, "error: there is no run.toml here")


def test_record_elsewhere_keeps_the_run(ahriuwu, calls, run_toml, tmp_path) -> None:
    assert ahriuwu("data", "record", "-c", run_toml, "--out", tmp_path / "store").code == 0
    run = calls.only()[1][0]
    assert (run.episodes, run.folder) == (tmp_path / "store", run_toml.parent)


def test_split_of_a_store(ahriuwu, calls, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ahriuwu("data", "split", "store", "--heldout-fraction", "0.3", "--seed", "4").code == 0
    run = calls.only()[1][0]
    assert (run.episodes, run.config.data.heldout_fraction, run.config.run.seed) == (Path("store"), 0.3, 4)
    outcome = ahriuwu("data", "split", "store", "--heldout-fraction", "1")
    assert outcome.code == 2
    assert "data.heldout_fraction is 1.0; expected a number above 0 and below 1" in outcome.err


def test_info(ahriuwu, calls, tmp_path) -> None:
    assert ahriuwu("data", "info", tmp_path).code == 0
    assert calls.only() == ("ahriuwu_cli.sources.summary.info", (tmp_path, None), {})


def test_view(ahriuwu, calls, tmp_path) -> None:
    assert ahriuwu("data", "view", tmp_path).code == 0
    usual = {"count": 6, "split": None, "start": 0, "steps": 200}
    assert calls.made.pop() == ("ahriuwu_cli.sources.viewing.view", (tmp_path, (), None), usual)
    part = ["--start", "5", "--steps", "7", "--split", "train", "--count", "2", "--out", tmp_path / "out"]
    assert ahriuwu("data", "view", tmp_path, "000001", "000002", *part).code == 0
    _, arguments, named = calls.only()
    assert arguments == (tmp_path, ["000001", "000002"], tmp_path / "out")
    assert named == {"count": 2, "split": "train", "start": 5, "steps": 7}


def test_episodes_of_eval_agent(ahriuwu, calls, run_toml) -> None:
    assert ahriuwu("eval", "agent", "-c", run_toml, "--episodes", "7").code == 0
    assert calls.only()[1][0].config.eval.episodes == 7


def test_the_run_toml_here_is_the_default(ahriuwu, calls, run_toml, monkeypatch) -> None:
    monkeypatch.chdir(run_toml.parent)
    assert ahriuwu("dynamics", "train").code == 0
    assert calls.only()[1][0].folder == Path()


@pytest.mark.parametrize(("problems", "code"), [([], 0), ([{"what": "bad"}], 3)])
def test_doctor_tells_by_its_exit_code(ahriuwu, calls, tmp_path, problems, code) -> None:
    calls.answer = lambda *_: Report(title="Doctor", columns=(), rows=(), data={"problems": problems})
    outcome = ahriuwu("doctor", tmp_path, "--json")
    assert (outcome.code, json.loads(outcome.out)) == (code, {"problems": problems})
    assert calls.only() == ("ahriuwu_cli.doctor.examine", (tmp_path,), {})
    assert ahriuwu("doctor").code == code
    assert calls.made[-1][1] == (None,)


def test_demo_shows_each_report(ahriuwu, calls, tmp_path) -> None:
    def play(folder: Path, seed: int, show: Any) -> None:
        for name in ("first", "second"):
            show(Report(title=name, columns=("folder", "seed"), rows=((str(folder), str(seed)),)))

    calls.answer = play
    outcome = ahriuwu("demo", "--dir", tmp_path, "--seed", "3")
    assert outcome.code == 0
    assert outcome.out.index("first") < outcome.out.index("second")
    assert str(tmp_path) in outcome.out
    assert ahriuwu("demo").out.count("runs/demo") == 2


def test_init(ahriuwu, tmp_path) -> None:
    outcome = ahriuwu("init", tmp_path / "new", "--preset", "small", "--env", "ALE/Pong-v5", "--json")
    path = tmp_path / "new" / "run.toml"
    assert json.loads(outcome.out) == {
        "config": str(path),
        "preset": "small",
        "tokenizer": "cnn",
        "env": "ALE/Pong-v5",
    }
    assert path.exists()


def test_init_with_a_tokenizer(ahriuwu, tmp_path) -> None:
    outcome = ahriuwu("init", tmp_path, "--preset", "medium", "--tokenizer", "cnn-small", "--json")
    assert json.loads(outcome.out)["tokenizer"] == "cnn-small"
    assert 'type = "cnn"' in (tmp_path / "run.toml").read_text()
