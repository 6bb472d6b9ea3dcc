"""Advice that can be followed: every command, option and setting that a message or the README names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import typer
from typer.core import TyperGroup

import ahriuwu_cli
from ahriuwu_cli.bench.config import BenchConfig
from ahriuwu_cli.cli.main import app
from ahriuwu_cli.core.artifact import MADE_BY
from ahriuwu_cli.core.schema import walk
from ahriuwu_cli.pipeline.config import RunConfig
from ahriuwu_cli.tokenizer.registry import CONFIGS, config_class

PACKAGE = Path(ahriuwu_cli.__file__).parent
README = PACKAGE.parent / "README.md"
HOLE = "\N{WHITE SQUARE}"
"""Stands for what an f-string fills in."""
NO_SETTINGS = ("safetensors", "json", "jsonl", "toml", "py", "state", "gif", "png", "mp4", "csv", "md", "log")
"""What follows a dot in the name of a file."""


# ---------------------------------------------------------------- what there is


@cache
def commands() -> dict[tuple[str, ...], set[str]]:
    """Every command and group, by its words after `ahriuwu`, with its options."""
    found: dict[tuple[str, ...], set[str]] = {}

    def visit(command: object, words: tuple[str, ...]) -> None:
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}  # type: ignore[attr-defined]
        found[words] = {option for option in options if option.startswith("-")} | {"--help", "-h"}
        if isinstance(command, TyperGroup):
            for name, child in command.commands.items():
                visit(child, (*words, name))

    visit(typer.main.get_command(app), ())
    return found


@cache
def settings() -> set[str]:
    """Every key path of run.toml, of its sections and, of the bench, of its own."""
    found = {path for path, _ in walk(BenchConfig, {})}
    for name in CONFIGS.names():
        config_class(name)  # a tokenizer of another module is known once it is imported
        found |= {path for path, _ in walk(RunConfig, {"tokenizer": {"model": {"type": name}}})}
    return found


# ---------------------------------------------------------------- what is said


def texts(source: str) -> list[str]:
    """The strings of a module but its docstrings; what f-strings fill in is a HOLE."""
    tree, found = ast.parse(source), list[str]()
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}

    class Reader(ast.NodeVisitor):
        def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values))
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    self.visit(part.value)

        def visit_Constant(self, node: ast.Constant) -> None:
            if isinstance(node.value, str) and id(node) not in docstrings:
                found.append(node.value)

    Reader().visit(tree)
    return found


def hints(source: str) -> list[str]:
    """What a module gives as `hint=` or as the hint of a finding."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    given = [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "hint"]
    return [text for value in given for text in texts(f"hint = {ast.unparse(value)}")]


def command_fault(said: str, *, groups: bool = False) -> str | None:
    """What is wrong with `ahriuwu WORDS --options`; None when it can be given, or, with `groups`, only described."""
    words, known = said.split()[1:], commands()
    path: tuple[str, ...] = ()
    while len(path) < len(words) and (*path, words[len(path)]) in known:
        path = (*path, words[len(path)])
    rest = words[len(path) :]
    group = any(len(other) > len(path) and other[: len(path)] == path for other in known)
    if group and path and not rest and not groups:
        return f"{said}: that is several commands"
    if group and rest and re.fullmatch("[a-z-]+", rest[0]) and not rest[0].startswith("-"):
        return f"{said}: there is no {rest[0]}"
    strange = [word for word in rest if re.match("--?[a-z]", word) and word.partition("=")[0] not in known[path]]
    return f"{said}: no option {', '.join(strange)}" if strange else None


KEY = re.compile(r"(?<![\w./-])((?:run|data|tokenizer|latents|dynamics|agent|imagine|eval)(?:\.[a-z_]+)+)(?![\w/(-])")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
COMMAND = re.compile(r"`(ahriuwu(?: [^`]*)?)`")
NAME = re.compile(r"(?<![\w./-])[a-z]+(?:_[a-z]+)+(?![\w./(-])")


def key_faults(text: str) -> list[str]:
    """Key paths that no config has; `dynamics.key` is one to be filled in, a text without a space no message."""
    said = (
        [key for key in KEY.findall(text) if key.rpartition(".")[2] not in (*NO_SETTINGS, "key")] if " " in text else []
    )
    return [key for key in said if key not in settings() and not key.startswith("data.source.options.")]


# ---------------------------------------------------------------- does it exist?

MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@cache
def said_by(module: str) -> tuple[str, ...]:
    return tuple(texts((PACKAGE / module).read_text(encoding="utf-8")))


def test_commands_named_by_messages_exist() -> None:
    faults = [
        (module, fault)
        for module in MODULES
        for text in said_by(module)
        for said in COMMAND.findall(text)
        if (fault := command_fault(said))
    ]
    assert not faults


def test_options_named_by_messages_exist() -> None:
    """Where the command itself is filled in, or left out, some command has the option."""
    known = set().union(*commands().values())
    faults = [
        (module, option)
        for module in MODULES
        for text in said_by(module)
        for option in OPTION.findall(text)
        if option not in known
    ]
    assert not faults


def test_settings_named_by_messages_exist() -> None:
    assert not [(module, key) for module in MODULES for text in said_by(module) for key in key_faults(text)]


def test_what_makes_each_artifact_is_a_command() -> None:
    assert not [fault for kind, said in MADE_BY.items() if kind != "state" and (fault := command_fault(said))]


def test_short_names_in_hints_are_settings() -> None:
    """`lower context_length`: the name alone, where several sections have it."""
    known = {key.rpartition(".")[2] for key in settings()} | NAMES
    faults = [
        (module, name)
        for module in MODULES
        for text in hints((PACKAGE / module).read_text(encoding="utf-8"))
        for name in NAME.findall(text)
        if name not in known
    ]
    assert not faults


NAMES = {"one_hot", "frame_indices", "model_state_dict", "expert_action", "observation_space"}
"""Words with an underscore in hints that are no settings."""


def test_the_readme_names_what_exists() -> None:
    text = README.read_text(encoding="utf-8")
    spans = [*COMMAND.findall(text), *re.findall(r"^(?:\.venv/bin/)?(ahriuwu .*)$", text, re.MULTILINE)]
    faults = [fault for said in spans if (fault := command_fault(said.split(" (")[0], groups=True))]
    assert not faults + key_faults(text)


def test_faults_are_seen() -> None:
    """The rules can fail."""
    assert command_fault("ahriuwu data record --append --episodes 5") is None
    assert "several commands" in str(command_fault("ahriuwu data"))
    assert "there is no recrod" in str(command_fault("ahriuwu data recrod"))
    assert "no option --apend" in str(command_fault("ahriuwu data record --apend"))
    assert key_faults("set agent.train.learning_rate, not agent.lerning_rate; see tokenizer.safetensors") == [
        "agent.lerning_rate"
    ]
    assert texts("'doc'\nx = f'a {b} c'\ny('d')") == [f"a {HOLE} c", "d"]
    assert hints("raise E('m', hint='h' + f'{x} i')") == ["h", f"{HOLE} i"]
