"""A command line run in this process, with the stages replaced by recorders."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ahriuwu_cli.cli.main import run
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.pipeline.config import preset_run
from ahriuwu_cli.pipeline.template import render_config

REPORT = Report(title="Said", columns=("what",), rows=(("it",),), data={"said": "it"})


@dataclass
class Outcome:
    """What one command line did."""

    code: int
    out: str
    err: str


@pytest.fixture
def ahriuwu(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `ahriuwu ARGUMENTS...` and give back its exit code and output."""

    def call(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        return Outcome(code, *capfd.readouterr())

    return call


@dataclass
class Calls:
    """Calls that reached the fake modules: (function, positional arguments, keyword arguments)."""

    made: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    answer: Callable[..., Any] = lambda *_, **__: REPORT

    def only(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """The one call that was made."""
        [call] = self.made
        return call


FAKED = (
    "ahriuwu_cli.pipeline.stages",
    "ahriuwu_cli.doctor",
    "ahriuwu_cli.pipeline.demo",
    "ahriuwu_cli.sources.summary",
    "ahriuwu_cli.sources.viewing",
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replace the modules that the commands hand over to."""
    calls = Calls()

    def fake(name: str) -> ModuleType:
        module = ModuleType(name)

        def recorder(function: str) -> Callable[..., Any]:
            def record(*arguments: Any, **named: Any) -> Any:
                calls.made.append((f"{name}.{function}", arguments, named))
                return calls.answer(*arguments, **named)

            return record

        def attribute(function: str) -> Callable[..., Any]:
            if function.startswith("__"):
                raise AttributeError(function)
            return recorder(function)

        module.__getattr__ = attribute  # type: ignore[method-assign]
        return module

    for name in FAKED:
        module = fake(name)
        package, _, leaf = name.rpartition(".")
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(importlib.import_module(package), leaf, module, raising=False)
    return calls


@pytest.fixture
def run_toml(tmp_path: Path) -> Path:
    """A run.toml of the tiny preset."""
    path = tmp_path / "run" / "run.toml"
    path.parent.mkdir()
    path.write_text(render_config(preset_run("tiny", path.parent).config))
    return path
