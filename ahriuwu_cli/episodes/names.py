"""Names for parts of nested spaces: the keys that lead to a part, written as in a JSON pointer (RFC 6901).

`("inner", "keys")` is `inner/keys`. In a key, `~` is written `~0` and `/` is written `~1`, so that no two parts share a
name; an empty key, which would leave no name, is `~2`.
"""

from __future__ import annotations

from typing import Any

Keys = tuple[Any, ...]
"""Keys of Dict spaces (text, as a rule) and places in Tuple spaces."""


def part_name(keys: Keys) -> str:
    """The name of a part; empty for the whole."""
    return "/".join(_escaped(str(key)) for key in keys)


def part_keys(name: str) -> tuple[str, ...]:
    """The keys, as text, that `part_name` made a name of."""
    return tuple(_plain(part) for part in name.split("/")) if name else ()


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1") or "~2"


def _plain(part: str) -> str:
    return "" if part == "~2" else part.replace("~1", "/").replace("~0", "~")
