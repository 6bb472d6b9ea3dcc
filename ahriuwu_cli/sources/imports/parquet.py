"""Columns and pictures of Parquet files, read in pieces; faults of the file in words.

Shapes: n rows that are read, D numbers in a row of a list column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.sources.imports.fields import plain_size
from ahriuwu_cli.sources.imports.frames import decode_picture
from ahriuwu_cli.sources.imports.protocol import RecordingError

AT_ONCE = 64
"""Rows of pictures, encoded, that are held together."""
LONGEST = 1 << 40
"""Rows of a file."""
ROWS_AT_ONCE = 1 << 16
"""Rows of numbers that are looked through together."""


def pyarrow() -> Any:
    """The module pyarrow, with pyarrow.parquet.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pyarrow as library
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "Parquet files need the package pyarrow, which is not installed", hint="pip install 'ahriuwu[import]'"
        ) from error
    return library


class ParquetFile:
    """One file, opened.

    Args:
        path: of the file.
        name: as the source names it, for messages.

    Raises:
        InputError: pyarrow is not installed.
        RecordingError: missing, or no Parquet file.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._arrow, self.name = pyarrow(), name
        plain_size(path, name)
        with self._reading():
            self._file = self._arrow.parquet.ParquetFile(path, memory_map=False, pre_buffer=False)
            counts = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
            self.columns: list[str] = list(self._file.schema_arrow.names)
        if not all(0 <= count <= LONGEST for count in counts) or sum(counts) > LONGEST:
            raise RecordingError(name, "is no Parquet file that can be read: it has an absurd number of rows")
        self._edges = np.concatenate([[0], np.cumsum(np.array(counts, np.int64))])

    def __len__(self) -> int:
        return int(self._edges[-1])

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def table(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> Any:
        """Rows `start` to `stop` - 1 of some columns, a pyarrow.Table.

        Raises:
            RecordingError: a column is missing, or damaged.
        """
        stop = len(self) if stop is None else stop
        self.require(columns)
        groups = self._groups(start, stop)
        if not groups:
            return self._file.schema_arrow.empty_table().select(list(columns))
        with self._reading():
            found = self._file.read_row_groups(groups, columns=list(columns), use_threads=False)
            found.validate(full=True)  # text that is no UTF-8, lists that reach out of their values
            return found.select(list(columns)).slice(start - int(self._edges[groups[0]]), stop - start)

    def batches(self, columns: Sequence[str], start: int, stop: int, size: int) -> Iterator[Any]:
        """Rows `start` to `stop` - 1 of some columns, at most `size` at a time, as pyarrow.RecordBatch."""
        self.require(columns)
        groups = self._groups(start, stop)
        if not groups:
            return
        row = int(self._edges[groups[0]])
        source = iter(
            self._file.iter_batches(batch_size=size, row_groups=groups, columns=list(columns), use_threads=False)
        )
        while row < stop:
            with self._reading():
                batch = next(source, None)
                if batch is not None:
                    batch.validate(full=True)
            if batch is None:
                raise RecordingError(self.name, f"breaks off after row {row}")
            first, last = max(start - row, 0), min(stop - row, batch.num_rows)
            if first < last:
                yield batch.slice(first, last - first)
            row += batch.num_rows

    def require(self, columns: Iterable[str]) -> None:
        """Refuse a file without some of the columns."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise RecordingError(self.name, f"has no column {missing[0]!r}; it has {', '.join(self.columns)}"[:400])

    def _groups(self, start: int, stop: int) -> list[int]:
        """The row groups that rows `start` to `stop` - 1 are in."""
        lows, highs = self._edges[:-1], self._edges[1:]
        return [int(group) for group in np.flatnonzero((lows < stop) & (highs > start))]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (self._arrow.ArrowException, OSError, ValueError, TypeError, LookupError, MemoryError) as error:
            text = " ".join(str(error).split())[:200]
            raise RecordingError(self.name, f"is no Parquet file that can be read: {text}") from error


def number_column(table: Any, column: str, name: str, first: int = 0) -> np.ndarray:
    """A column of numbers, (n,), or of lists of one number.

    Args:
        table: pyarrow.Table.
        column: of it.
        name: of the file, for messages.
        first: row of the file that the table begins with, for messages.

    Raises:
        RecordingError: it holds something else, or nothing in a row.
    """
    matrix = list_column(table, column, name, first)
    if matrix.shape[1] != 1:
        raise RecordingError(name, f"{column} holds lists of {matrix.shape[1]}; expected one number")
    return matrix[:, 0]


def list_column(table: Any, column: str, name: str, first: int = 0) -> np.ndarray:
    """A column of equally long lists of numbers, (n, D); of numbers, (n, 1). See `number_column`."""
    arrow = pyarrow()
    values = table.column(column)
    values = values.combine_chunks() if isinstance(values, arrow.ChunkedArray) else values
    if isinstance(values, arrow.ChunkedArray):  # of no chunk at all
        values = arrow.concat_arrays(values.chunks) if values.num_chunks else arrow.array([], values.type)
    if isinstance(values, arrow.ExtensionArray):
        values = values.storage
    _require_full(values, column, name, first)
    width = 1
    if _is_list(arrow, values.type):
        lengths = np.asarray(arrow.compute.list_value_length(values))
        width = int(lengths[0]) if len(lengths) else 0
        uneven = np.flatnonzero(lengths != width)
        if len(uneven):
            row = int(uneven[0])
            raise RecordingError(
                name, f"{column} has {lengths[row]} numbers, the rows before it {width}", row=first + row
            )
        values = values.flatten()
        if values.null_count:
            row = int(np.argmin(np.asarray(values.is_valid()))) // max(width, 1)
            raise RecordingError(name, f"{column} has an empty place", row=first + row)
    kinds = arrow.types
    if not (kinds.is_integer(values.type) or kinds.is_floating(values.type) or kinds.is_boolean(values.type)):
        raise RecordingError(name, f"{column} holds {values.type}; expected numbers")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(-1, width)


def text_column(table: Any, column: str, name: str) -> list[str]:
    """A column of text, (n,)."""
    found: list[str] = table.column(column).to_pylist()
    for row, text in enumerate(found):
        if not isinstance(text, str):
            raise RecordingError(name, f"{column} is {type(text).__name__}; expected text", row=row)
    return found


def _require_full(values: Any, column: str, name: str, first: int) -> None:
    if values.null_count:
        row = int(np.argmin(np.asarray(values.is_valid())))
        raise RecordingError(name, f"{column} is empty", row=first + row)


def _is_list(arrow: Any, kind: Any) -> bool:
    return bool(arrow.types.is_list(kind) or arrow.types.is_large_list(kind) or arrow.types.is_fixed_size_list(kind))


class ParquetPictures:
    """Pictures, encoded, in a column of a file: structs with `bytes`, or bytes themselves; see FrameSource.

    Args:
        path: of the file.
        name: as the source names it.
        column: of the pictures.
        start: row of the first.
        times: of each.
    """

    def __init__(self, path: Path, name: str, column: str, start: int, times: np.ndarray) -> None:
        self._file = ParquetFile(path, name)
        self._file.require([column])
        self._name, self._column, self._start, self.times = name, column, start, times

    def chosen(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """See FrameSource."""
        row, batch, base = -1, None, 0
        batches: Iterator[Any] | None = None
        for number in numbers:
            if batches is None:
                row = self._start + number
                stop = self._start + len(self.times)
                batches, base = self._file.batches([self._column], row, stop, AT_ONCE), row
            row = self._start + number
            while batch is None or row >= base + batch.num_rows:
                base += 0 if batch is None else batch.num_rows
                batch = next(batches)
            yield self._picture(batch.column(0)[row - base].as_py(), row)

    def close(self) -> None:
        """See FrameSource."""
        self._file.close()

    def _picture(self, value: Any, row: int) -> np.ndarray:
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise RecordingError(self._name, f"{self._column} holds no picture", row=row)
        return decode_picture(data, self._name, row)


@lru_cache(maxsize=4)
def _whole_numbers(path: Path, name: str, column: str, _changed: int) -> np.ndarray:
    file = ParquetFile(path, name)
    try:
        return number_column(file.table([column]), column, name)
    finally:
        file.close()


def whole_column(path: Path, name: str, column: str) -> np.ndarray:
    """A column of numbers of all rows; the last few are remembered, since many recordings share a file."""
    plain_size(path, name)
    return _whole_numbers(path, name, column, path.stat().st_mtime_ns)


def each_batch(path: Path, name: str, column: str, take: Callable[[np.ndarray, int], None]) -> None:
    """Hand over a list column of all rows piece by piece: (n, D) and the row it begins with."""
    file = ParquetFile(path, name)
    try:
        row = 0
        for batch in file.batches([column], 0, len(file), ROWS_AT_ONCE):
            take(list_column(pyarrow().Table.from_batches([batch]), column, name, row), row)
            row += batch.num_rows
    finally:
        file.close()
