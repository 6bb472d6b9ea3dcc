"""TOML values as text and back: the standard library reads TOML, this writes the little that we need."""

from __future__ import annotations

import datetime
import re
import tomllib
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
