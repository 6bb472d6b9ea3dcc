"""Rules of the house that no single module can keep alone: layers, and no config field that nobody reads."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import ahriuwu_cli
from ahriuwu_cli.bench.config import BenchConfig
from ahriuwu_cli.core.schema import section_of, walk
from ahriuwu_cli.pipeline.config import RunConfig
from ahriuwu_cli.tokenizer.registry import CONFIGS, config_class

PACKAGE = Path(ahriuwu_cli.__file__).parent
ROOT = PACKAGE.parent


def config_fields() -> dict[str, str]:
    """Key path -> field name, over every tokenizer there is."""
    found = {}
    for name in CONFIGS.names():
        for path, field in walk(RunConfig, {"tokenizer": {"model": {"type": name}}}):
            section = section_of(field, None)
            found[f"{path} ({name})" if path.startswith("tokenizer.model.") else path] = path.rpartition(".")[2]
            assert section is None or section.model_fields, path
        found |= {f"bench: {path}": path.rpartition(".")[2] for path, _ in walk(BenchConfig, {})}
        assert config_class(name).model_fields["type"].default == name
    return found


def attributes_read() -> set[str]:
    """Every name that some code of the package, config files aside, reads as an attribute."""
    return {name for path in sources() for name in attributes_of(path.read_text(encoding="utf-8"))}


def sources() -> Iterator[Path]:
    return (path for path in PACKAGE.rglob("*.py") if path.name != "config.py")


def attributes_of(text: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def test_attribute_search_sees_reads_only() -> None:
    assert attributes_of("a.read = b.seen.twice\n'x.text'\n# y.comment") == {"seen", "twice"}


def test_every_config_field_is_read_by_something() -> None:
    """Pitfall 24: flags that nothing read."""
    read = attributes_read()
    unread = sorted(path for path, name in config_fields().items() if name not in read)
    assert not unread, f"config fields that nothing reads: {', '.join(unread)}"


def test_layers_hold() -> None:
    """A folder imports only from itself and from those before it."""
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_folder_is_in_the_layers() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = settings["tool"]["importlinter"]["contracts"]
    folders = {f"ahriuwu_cli.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(contract["layers"])


def test_no_drawer_for_odds_and_ends() -> None:
    assert not [path for path in PACKAGE.rglob("*.py") if path.stem in ("utils", "helpers", "misc", "common")]
