"""TOML values as text and back: the standard library reads TOML, this writes the little that we need."""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Iterator
from typing import Any

_ESCAPES = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def parse_value(text: str) -> Any:
    """The TOML value that `text` spells, or `text` itself when it spells none (strings need no quotes)."""
    text = text.strip()
    try:
        table = tomllib.loads(f"value = {text}")
    except ValueError:
        return text
    return table["value"] if len(table) == 1 else text  # a line break may have begun a second key


def value_text(value: Any) -> str:
    """`value` (str, bool, int, float, date, list or dict of those) as a TOML value on one line."""
    if isinstance(value, str):
        return f'"{"".join(map(_escaped, value))}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, dict):
        pairs = ", ".join(f"{key_text(key)} = {value_text(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    raise TypeError(f"TOML has no value for {type(value).__name__}")


def key_text(key: str) -> str:
    """`key` as a TOML key, quoted where it must be."""
    return key if _BARE_KEY.fullmatch(key) else value_text(key)


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return f"\\u{ord(character):04x}" if ord(character) < 0x20 or ord(character) == 0x7F else character


# ---------------------------------------------------------------- changing a file


_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?")
_ENTRY = re.compile(r"(\s*)([^=#\s][^=]*?)(\s*=\s*)([^\s#]+)(.*)", re.DOTALL)


def with_value(text: str, path: tuple[str, ...], value: float) -> str:
    """`text` with the number at `path` set, and all else, comments included, as it is.

    The key is changed where it stands, or added to its table or to that table's dotted keys; without any, the table
    comes at the end.

    Raises:
        ValueError: it is not TOML, or is written so that this cannot be done (an inline table, say).
    """
    wanted = _with(tomllib.loads(text), path, value)
    for changed in _attempts(text, path, value_text(value)):
        try:
            right = tomllib.loads(changed) == wanted
        except tomllib.TOMLDecodeError:
            continue
        if right:
            return changed
    raise ValueError(f"its table is written in another way than [{'.'.join(path[:-1])}]")


def _with(data: dict[str, Any], path: tuple[str, ...], value: float) -> dict[str, Any]:
    inner = data.get(path[0], {}) if len(path) > 1 else value
    if len(path) > 1:
        if not isinstance(inner, dict):
            raise ValueError(f"{path[0]} is no table")
        inner = _with(inner, path[1:], value)
    return data | {path[0]: inner}


def _attempts(text: str, path: tuple[str, ...], value: str) -> Iterator[str]:
    """Texts of which one may be right: lines are looked at one by one, also those in the middle of a longer value."""
    lines, end = text.splitlines(keepends=True), "\r\n" if "\r\n" in text else "\n"
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += end
    table: tuple[str, ...] = ()
    added: list[tuple[int, str]] = []  # before which line, and what
    for number, line in enumerate(lines):
        header, entry = _HEADER.fullmatch(line.rstrip("\r\n")), _ENTRY.fullmatch(line)
        if header:
            table = _key_path(header[1])
            if table == path[:-1]:
                added.append((number + 1, f"{key_text(path[-1])} = {value}{end}"))
        elif entry:
            key = table + _key_path(entry[2])
            if key == path:
                mended = f"{entry[1]}{entry[2]}{entry[3]}{value}{entry[5]}"
                yield "".join([*lines[:number], mended, *lines[number + 1 :]])
            elif len(table) < len(path) - 1 and key[: len(path) - 1] == path[:-1]:
                added.append((number, f"{entry[1]}{'.'.join(map(key_text, path[len(table) :]))} = {value}{end}"))
    heading = ".".join(map(key_text, path[:-1]))
    added.append((len(lines), f"{end if lines else ''}[{heading}]{end}{key_text(path[-1])} = {value}{end}"))
    for number, line in added:
        yield "".join([*lines[:number], line, *lines[number:]])


def _key_path(text: str) -> tuple[str, ...]:
    """The names of a dotted key; () where it is none."""
    try:
        found: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    names = []
    while isinstance(found, dict):
        [(name, found)] = found.items()
        names.append(name)
    return tuple(names)
