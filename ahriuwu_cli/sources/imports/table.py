"""Side-cars as tables: CSV, JSONL, NPY, NPZ and Parquet files of named columns, each row with its number in the file.

Shapes: M rows.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.sources.imports.protocol import RecordingError

MAX_BYTES = 1 << 31
"""Of a side-car in text."""
MAX_DEPTH = 20
"""Of a JSON line."""
TRUE = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
"""Words for switches, beside numbers."""


@dataclass(frozen=True)
class Table:
    """Named columns of M rows.

    Attributes:
        file: name, for messages.
        columns: values by name, in order; text, numbers, or None where there is nothing.
        numbers: of the rows as the file counts them, (M,).
    """

    file: str
    columns: Mapping[str, Sequence[Any]]
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def column(self, name: str) -> Sequence[Any]:
        """The values of a column as they are.

        Raises:
            RecordingError: there is none of that name.
        """
        if name not in self.columns:
            known = ", ".join(sorted(self.columns)[:20])
            raise RecordingError(self.file, f"no column {name!r}; it has {known or 'none'}")
        return self.columns[name]

    def floats(self, name: str, words: Mapping[str, float] = TRUE, rows: Sequence[int] | None = None) -> np.ndarray:
        """A column as numbers (M,) float64; `words` gives numbers for text.

        Args:
            name: of the column.
            words: by text in lower case.
            rows: of which rows (from 0); all by default.

        Raises:
            RecordingError: a value is no finite number; names its row.
        """
        values = self.column(name)
        chosen = range(len(self)) if rows is None else rows
        array = np.empty(len(chosen), np.float64)
        for place, row in enumerate(chosen):
            number = _number(values[row], words)
            if number is None or not math.isfinite(number):
                raise RecordingError(self.file, f"{name} is {values[row]!r}; expected a number", row=self.numbers[row])
            array[place] = number
        return array


def _number(value: Any, words: Mapping[str, float]) -> float | None:
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in words:
            return words[text.lower()]
        try:
            return float(text)
        except ValueError:
            return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


# ---------------------------------------------------------------- files


def read_table(path: Path) -> Table:
    """Read a side-car by its suffix.

    Raises:
        RecordingError: it cannot be read as what its suffix says; names the row where one is to blame.
        InputError: a library that it needs is not there.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise RecordingError(path.name, f"a side-car {path.suffix or 'without suffix'}; expected {', '.join(READERS)}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecordingError(path.name, f"{path.stat().st_size:,} bytes; expected at most {MAX_BYTES:,}")
        return reader(path)
    except OSError as error:
        raise RecordingError(path.name, f"it cannot be read: {error.strerror or error}") from error


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        RecordingError: it is no UTF-8; names the row.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise RecordingError(path.name, "it is no UTF-8 text", row=row) from error


def _csv(path: Path) -> Table:
    text = read_text(path)
    if "\0" in text:
        raise RecordingError(path.name, "a NUL byte", row=text.count("\n", 0, text.index("\0")) + 1)
    delimiter = ";" if text.partition("\n")[0].count(";") > text.partition("\n")[0].count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    numbers: list[int] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        _require_names(path, header)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise RecordingError(path.name, f"{len(row)} values; expected {len(header)}", row=reader.line_num)
            rows.append(row)
            numbers.append(reader.line_num)
    except csv.Error as error:
        raise RecordingError(path.name, f"no CSV: {error}", row=reader.line_num) from error
    columns = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    return Table(path.name, columns, numbers)


def _jsonl(path: Path) -> Table:
    found: list[dict[str, Any]] = []
    numbers: list[int] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            found.append(flat(parse_json(path.name, line, number), path.name, number))
            numbers.append(number)
    names = dict.fromkeys(name for entry in found for name in entry)
    return Table(path.name, {name: [entry.get(name) for entry in found] for name in names}, numbers)


def parse_json(file: str, text: str, row: int | None = None) -> Any:
    """A JSON text.

    Raises:
        RecordingError: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordingError(file, f"no JSON: {error}", row=row) from error


def flat(value: Any, file: str, row: int | None, path: str = "", depth: int = 0) -> dict[str, Any]:
    """An object with its inner objects' keys joined by dots; lists and plain values stay as they are.

    Raises:
        RecordingError: it is no object, or goes too deep.
    """
    if not isinstance(value, dict):
        raise RecordingError(file, f"a {type(value).__name__}; expected an object of names and values", row=row)
    if depth > MAX_DEPTH:
        raise RecordingError(file, f"objects in more than {MAX_DEPTH} others", row=row)
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{path}{key}"
        found |= flat(inner, file, row, f"{name}.", depth + 1) if isinstance(inner, dict) else {name: inner}
    return found


def _npy(path: Path) -> Table:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, MemoryError, OverflowError, TypeError) as error:
        raise RecordingError(path.name, f"no array that can be read: {str(error)[:200]}") from error
    if not isinstance(array, np.ndarray):
        names = {name: np.asarray(array[name]) for name in array.files}
        return _of_arrays(path, names)
    if array.dtype.names:
        return _of_arrays(path, {name: array[name] for name in array.dtype.names})
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise RecordingError(path.name, f"an array {array.shape}; expected (rows, columns)")
    return _of_arrays(path, {str(place): array[:, place] for place in range(array.shape[1])})


def _npz(path: Path) -> Table:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _of_arrays(path, {name: archive[name] for name in archive.files})
    except RecordingError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy each have their own kinds
        raise RecordingError(path.name, f"no arrays that can be read: {str(error)[:200]}") from error


def _of_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> Table:
    columns: dict[str, Sequence[Any]] = {}
    for name, array in arrays.items():
        if array.dtype == object or array.ndim == 0:
            raise RecordingError(path.name, f"{name} is {array.dtype} {array.shape}; expected numbers or text by row")
        if array.ndim == 1:
            columns[name] = array.tolist()
        else:
            wide = array.reshape(len(array), math.prod(array.shape[1:]))
            columns |= {f"{name}.{place}": wide[:, place].tolist() for place in range(wide.shape[1])}
    return _even(path, columns)


def _parquet(path: Path) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise InputError(
            f"{path} is Parquet, which takes pyarrow to read", hint="pip install 'ahriuwu[import]'"
        ) from error
    try:
        content = parquet.read_table(path)
        columns = {name: content.column(name).to_pylist() for name in content.column_names}
    except (ArrowException, OSError, ValueError, NotImplementedError, KeyError) as error:
        raise RecordingError(path.name, f"no Parquet that can be read: {str(error)[:200]}") from error
    wide: dict[str, Sequence[Any]] = {}
    for name, values in columns.items():
        if values and all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
            wide |= {f"{name}.{place}": [value[place] for value in values] for place in range(len(values[0]))}
        else:
            wide[name] = values
    return _even(path, wide)


def _even(path: Path, columns: Mapping[str, Sequence[Any]]) -> Table:
    lengths = {name: len(values) for name, values in columns.items()}
    _require_names(path, list(columns))
    if len(set(lengths.values())) > 1:
        raise RecordingError(path.name, f"columns of {lengths}; expected one length")
    return Table(path.name, columns, range(1, 1 + next(iter(lengths.values()))))


def _require_names(path: Path, names: Sequence[str]) -> None:
    if not names or not all(names) or len(set(names)) != len(names):
        raise RecordingError(path.name, f"columns {list(names)[:20]}; expected names that differ", row=1)


READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".npy": _npy,
    ".npz": _npz,
    ".parquet": _parquet,
}
"""By suffix."""
