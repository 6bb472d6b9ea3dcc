"""Help, version and completion: complete at every level, and without a single heavy import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

import ahriuwu_cli
from ahriuwu_cli.cli.main import app

HEAVY = ("torch", "numpy", "gymnasium", "scipy", "matplotlib", "ahriuwu_cli.pipeline", "ahriuwu_cli.episodes")


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


TREE = dict(commands(typer.main.get_command(app)))


def test_the_tree_is_whole() -> None:
    leaves = {" ".join(path) for path, command in TREE.items() if not getattr(command, "commands", None)}
    wanted = "init; data record; data import; data merge; data info; data lag; data view; data split; export; "
    wanted += "tokenizer train; "
    wanted += "latents build; latents pack; dynamics train; agent finetune; imagine train; eval rollout; eval offline; "
    wanted += "eval agent; improve; ablate; study run; study figure; study table; tune; "
    wanted += "bench tokenizer; bench dynamics; bench sampler; bench latents; bench data; "
    wanted += "doctor; demo"
    assert leaves == set(wanted.split("; "))


@pytest.mark.parametrize("path", TREE, ids=" ".join)
def test_every_command_and_option_is_explained(path) -> None:
    command = TREE[path]
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{' '.join(path)} {parameter.name}"


def python(code: str) -> Any:
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def test_help_at_every_level_brings_nothing_heavy() -> None:
    paths = [list(path) for path in TREE]
    code = f"""
import json, sys
from ahriuwu_cli.cli.main import run
codes = [run([*path, "--help"]) for path in {paths}] + [run([]), run(["--version"])]
print(json.dumps([codes, [name for name in {HEAVY} if name in sys.modules]]))
"""
    codes, loaded = python(code)
    assert set(codes) == {0}
    assert loaded == []


def test_the_tree_itself_is_light() -> None:
    modules = (*HEAVY, "pydantic", "rich")
    code = f"import json, sys, ahriuwu_cli.cli.main; print(json.dumps([m for m in {modules} if m in sys.modules]))"
    assert python(code) == []


def test_help_lists_the_road_in_order(ahriuwu) -> None:
    text = ahriuwu("--help").out
    places = [text.index(f" {name} ") for name in ("demo", "init", "data", "tokenizer", "latents", "dynamics")]
    assert places == sorted(places)
    assert ahriuwu().out == text


def test_version(ahriuwu) -> None:
    assert ahriuwu("--version").out == f"ahriuwu {ahriuwu_cli.__version__}\n"


def complete(*words: str) -> list[str]:
    answer = subprocess.run(
        [sys.executable, "-c", "from ahriuwu_cli.cli.main import main; main()"],
        env={
            **os.environ,
            "_AHRIUWU_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(("ahriuwu", *words)),
            "COMP_CWORD": str(len(words)),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.split()


def test_shell_completion() -> None:
    assert complete("d") == ["demo", "data", "dynamics", "doctor"]
    assert complete("data", "re") == ["record"]
    assert complete("init", "x", "--preset", "s") == ["small"]
    assert complete("init", "x", "--tokenizer", "transformer-m") == ["transformer-medium"]
