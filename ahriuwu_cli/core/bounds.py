"""Bounds on what is read from disk, sealed or not: which kind of file, how large, and how deep its JSON is.

A header is somebody's input. Whatever it says, reading it must neither hang nor take more memory than the
file is worth.
"""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.errors import ArtifactError

MAX_HEADER_BYTES = 16 << 20
"""Of the header of a tensor file; a state of thousands of tensors has less than one."""
MAX_MANIFEST_BYTES = 128 << 20
"""Of a manifest: several hundred thousand episodes."""
MAX_DEPTH = 32
"""Tables and lists inside each other; ours are not deeper than ten."""
KINDS_OF_FILE = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def damaged(path: Path, detail: str) -> ArtifactError:
    """The error for a file that is not what it should be."""
    lines = detail.splitlines()
    return ArtifactError(
        f"{path} cannot be read: {lines[0][:300] if lines else 'damaged'}",
        hint="the file is cut short or damaged; restore it or make it again",
    )


def require_file(path: Path) -> int:
    """The size of a file in bytes; anything else is refused before it is opened (a pipe would wait for ever).

    Raises:
        ArtifactError: it is missing, or no plain file.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:  # a name with NUL is a ValueError
        raise damaged(path, str(error)) from error
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS_OF_FILE.get(stat.S_IFMT(found.st_mode), "no file")
        raise ArtifactError(f"{path} is {kind}; expected a file", hint="put the file itself there, or make it again")
    return found.st_size


def read_bounded(path: Path, limit: int) -> str:
    """The text of a file of at most `limit` bytes.

    Raises:
        ArtifactError: no plain file, larger, or not UTF-8.
    """
    size = require_file(path)
    if size > limit:
        raise damaged(path, f"it has {size:,} bytes; expected at most {limit:,}")
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise damaged(path, str(error)) from error


def parse_object(path: Path, text: str, *, looked_at: bool = False) -> dict[str, Any]:
    """The JSON object in `text`, which comes from `path`; one that was `looked_at` before is within the bounds.

    Raises:
        ArtifactError: not JSON, no object, nested too deeply, with a number that no 64 bits hold or that is none, or
            with text that is no text.
    """
    try:
        value = json.loads(text, parse_constant=_no_number)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"its header is not JSON that can be used: {error}") from error
    if not isinstance(value, dict):
        raise damaged(path, f"its header is {type(value).__name__}; expected an object")
    if not looked_at:
        _require_small(path, value)
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _require_small(path: Path, value: dict[str, Any]) -> None:
    """Refuse nesting and integers beyond the bounds, without recursion."""
    nodes: list[tuple[Any, int]] = [(value, 1)]
    while nodes:
        node, depth = nodes.pop()
        if depth > MAX_DEPTH:
            raise damaged(path, f"its header is nested more than {MAX_DEPTH} deep")
        for child in node.values() if isinstance(node, dict) else node:
            if isinstance(child, (dict, list)):
                nodes.append((child, depth + 1))
            elif isinstance(child, int) and not -(1 << 63) <= child < 1 << 63:
                raise damaged(path, "its header has an integer of more than 64 bits")
