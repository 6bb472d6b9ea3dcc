"""JSON side-cars as they come from outside: read within bounds, every value checked where it is taken."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ahriuwu_cli.core.config import Section, validate
from ahriuwu_cli.core.errors import ConfigError, InputError
from ahriuwu_cli.sources.imports.protocol import RecordingError

LARGEST_FILE = 1 << 28
"""Bytes of a file that is read whole; a match of an hour with all that was seen has half of that."""
LONGEST_LINE = 1 << 22
"""Bytes of a line of a JSON lines file."""
DEEPEST = 32
"""Tables and lists inside each other."""
WIDEST = 1e9
"""Of a number that says nothing else: 32-bit numbers hold it, and sums of many."""

S = TypeVar("S", bound=Section)


def settings(model: type[S], options: Mapping[str, Any], kind: str) -> S:
    """The options of a kind of recordings.

    Raises:
        InputError: one is unknown or makes no sense.
    """
    try:
        return validate(model, options, f"options of {kind}")
    except ConfigError as error:
        hint = error.hint.replace("the keys of the file are", "its options are")
        hint = hint.replace(f"change it in options of {kind} or give --set ", "give --option ")
        raise InputError(error.message, hint=hint) from error


@contextmanager
def describing(hint: str) -> Iterator[None]:
    """Make of a fault in a file that describes all recordings of a source what it is: none of them can be imported.

    Raises:
        InputError: in place of any RecordingError.
    """
    try:
        yield
    except RecordingError as error:
        raise InputError(error.message, hint=hint) from error


def shown(path: Path, base: Path) -> str:
    """`path` within `base` for people, whatever bytes it is made of."""
    inside = path.relative_to(base) if path != base and path.is_relative_to(base) else Path(path.name)
    return os.fsencode(inside.as_posix()).decode("utf-8", "replace")


class Entry:
    """An object of a side-car. What is taken from it is checked; a fault names file, row and key.

    Args:
        values: the object.
        file: as the source names it.
        row: of the file, as its reader would count; None for the object that is the file.
        path: of keys that lead to it, with a dot at the end.
    """

    def __init__(self, values: Any, file: str, row: int | None = None, path: str = "") -> None:
        self.file, self.row, self._path = file, row, path
        if not isinstance(values, dict):
            raise self.fault(f"{path.rstrip('.') or 'it'} is {_said(values)}; expected an object")
        self._values: dict[str, Any] = values

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def names(self) -> list[str]:
        """All keys, in the order of the file."""
        return list(self._values)

    def anything(self, key: str) -> Any:
        """What is under a key, unchecked; None where it is missing."""
        return self._values.get(key)

    def holds(self, key: str) -> bool:
        """Whether there is something under a key, be it wrong."""
        return self._values.get(key) is not None

    def fault(self, reason: str) -> RecordingError:
        """The error for what is wrong with it."""
        return RecordingError(self.file, reason, row=self.row)

    def wrong(self, key: str, expected: str) -> RecordingError:
        """The error for a value that is not what was expected."""
        if key not in self._values:
            return self.fault(f"{self._path}{key} is missing; expected {expected}")
        return self.fault(f"{self._path}{key} is {_said(self._values[key])}; expected {expected}")

    def number(self, key: str, low: float = -WIDEST, high: float = WIDEST, default: float | None = None) -> float:
        """A finite number from `low` to `high`; `default` where the key is missing."""
        if default is not None and key not in self._values:
            return default
        value = _number(self._values.get(key))
        if value is None or not low <= value <= high:
            raise self.wrong(key, f"a number from {low:g} to {high:g}")
        return value

    def number_or_none(self, key: str, low: float = -WIDEST, high: float = WIDEST) -> float | None:
        """A finite number from `low` to `high`, or None where the key is missing or null."""
        return None if self._values.get(key) is None else self.number(key, low, high)

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number from `low` to `high`; `default` where the key is missing."""
        if default is not None and key not in self._values:
            return default
        value = self._values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.wrong(key, f"a whole number from {low} to {high}")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        """True or false, also written 1 or 0; `default` where the key is missing."""
        if default is not None and key not in self._values:
            return default
        value = self._values.get(key)
        if value not in (0, 1) or isinstance(value, float):
            raise self.wrong(key, "true or false")
        return bool(value)

    def text(self, key: str, default: str | None = None) -> str:
        """Text; `default` where the key is missing."""
        if default is not None and key not in self._values:
            return default
        value = self._values.get(key)
        if not isinstance(value, str) or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise self.wrong(key, "text")
        return value

    def point(self, key: str) -> tuple[float, float] | None:
        """A list of two numbers; None where the key is missing or null."""
        value = self._values.get(key)
        if value is None:
            return None
        pair = [_number(each) for each in value] if isinstance(value, list) else []
        if len(pair) != 2 or pair[0] is None or pair[1] is None or max(abs(pair[0]), abs(pair[1])) > WIDEST:
            raise self.wrong(key, "two numbers")
        return pair[0], pair[1]

    def wholes(self, key: str, low: int, high: int) -> list[int]:
        """A list of whole numbers from `low` to `high`."""
        values = self.items(key)
        if not all(isinstance(each, int) and not isinstance(each, bool) and low <= each <= high for each in values):
            raise self.wrong(key, f"whole numbers from {low} to {high}")
        return values

    def items(self, key: str) -> list[Any]:
        """A list of anything."""
        values = self._values.get(key)
        if not isinstance(values, list):
            raise self.wrong(key, "a list")
        return values

    def entry(self, key: str) -> Entry:
        """The object inside it."""
        if key not in self._values:
            raise self.wrong(key, "an object")
        return Entry(self._values[key], self.file, self.row, f"{self._path}{key}.")

    def entry_or_none(self, key: str) -> Entry | None:
        """The object inside it; None where the key is missing or null."""
        return None if self._values.get(key) is None else self.entry(key)

    def entries(self, key: str) -> list[Entry]:
        """The objects in a list of it; where it is the file itself, with their places from 0 as rows."""
        path, values = f"{self._path}{key}.", self.items(key)
        rows = range(len(values)) if self.row is None else [self.row] * len(values)
        return [Entry(each, self.file, row, path) for row, each in zip(rows, values, strict=True)]


def read_json(path: Path, name: str) -> Entry:
    """The object that a JSON file holds.

    Raises:
        RecordingError: no plain file, too large, not UTF-8, no JSON or no object, or nested too deeply.
    """
    size = plain_size(path, name)
    if size > LARGEST_FILE:
        raise RecordingError(name, f"it has {size:,} bytes; expected at most {LARGEST_FILE:,}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordingError(name, f"it cannot be read: {error.strerror}") from error
    return Entry(parsed(content, name, None), name)


def read_lines(path: Path, name: str, defects: list[RecordingError] | None = None) -> Iterator[Entry]:
    """The objects of a JSON lines file, with the numbers of their lines from 1; blank lines are passed over.

    Args:
        path: of the file.
        name: as the source names it.
        defects: takes the faults of single lines, which are passed over then.

    Raises:
        RecordingError: as for `read_json`, with the line.
    """
    for row, content in read_rows(path, name):
        if not content.strip():
            continue
        try:
            entry = Entry(parsed(content, name, row), name, row)
        except RecordingError as error:
            if defects is None:
                raise
            defects.append(error)
        else:
            yield entry


def read_rows(path: Path, name: str) -> Iterator[tuple[int, bytes]]:
    """The lines of a file as they are, with their numbers from 1.

    Raises:
        RecordingError: no plain file, or a line is too long.
    """
    plain_size(path, name)
    row = 0
    try:
        with path.open("rb") as lines:
            while content := lines.readline(LONGEST_LINE + 1):
                row += 1
                if len(content) > LONGEST_LINE:
                    raise RecordingError(name, f"a line of more than {LONGEST_LINE:,} bytes", row=row)
                yield row, content
    except OSError as error:
        raise RecordingError(name, f"it cannot be read: {error.strerror}", row=row + 1) from error


def parse_json(text: str, name: str) -> Entry:
    """The object that a text spells, which is itself a value in a file.

    Raises:
        RecordingError: as for `read_json`.
    """
    return Entry(parsed(text.encode("utf-8", "surrogatepass"), name, None), name)


def plain_size(path: Path, name: str) -> int:
    """The size of a file in bytes; what is no plain file is refused before it is opened (a pipe would wait for ever).

    Raises:
        RecordingError: it is missing, or something else.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise RecordingError(name, "it is missing, or cannot be read") from error
    if not stat.S_ISREG(found.st_mode):
        raise RecordingError(name, "it is no plain file")
    return found.st_size


def parsed(content: bytes, name: str, row: int | None) -> Any:
    """What JSON text says, within bounds.

    Raises:
        RecordingError: it is no JSON, or nested too deeply.
    """
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RecordingError(name, f"it is not UTF-8 text from byte {error.start} on", row=row) from error
    except json.JSONDecodeError as error:
        where = error.lineno if row is None else row
        raise RecordingError(name, f"it is not JSON: {error.msg} (column {error.colno})", row=where) from error
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0][:200] or "nested too deeply"
        raise RecordingError(name, f"it is not JSON that can be used: {reason}", row=row) from error
    nodes: list[tuple[Any, int]] = [(value, 1)]
    while nodes:
        node, depth = nodes.pop()
        if depth > DEEPEST:
            raise RecordingError(name, f"it is nested more than {DEEPEST} deep", row=row)
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        nodes += [(child, depth + 1) for child in children if isinstance(child, dict | list)]
    return value


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _said(value: Any) -> str:
    """A value for a message: short, on one line, and text that can be printed."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, int) and abs(value) > 1 << 64:
        return "a number of more than 64 bits"
    return ascii(value)[:60] if isinstance(value, str) else json.dumps(value)[:60]
