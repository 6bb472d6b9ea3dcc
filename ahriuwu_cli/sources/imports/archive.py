"""NPZ side-cars as they come from outside: nothing in them is run, and no array is larger than its file is worth."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from ahriuwu_cli.sources.imports.protocol import RecordingError

LARGEST_ARRAY = 1 << 30
"""Bytes of one array of a side-car, unpacked."""
ENDING = ".npy"
UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError),
    *(OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError, MemoryError, OverflowError, RuntimeError),
)
"""What zipfile and NumPy raise over damaged bytes."""


class Archive:
    """The arrays of an NPZ file, read when they are asked for.

    Args:
        path: of the file.
        name: as the source names it.

    Raises:
        RecordingError: it is missing, or no NPZ file.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        try:
            with zipfile.ZipFile(path) as file:
                self._sizes = {item.filename: item.file_size for item in file.infolist()}
        except UNREADABLE as error:
            raise RecordingError(name, f"it is no NPZ file that can be read: {error}") from error

    def names(self) -> list[str]:
        """Names of its arrays, in the order of the file."""
        return [name.removesuffix(ENDING) for name in self._sizes if name.endswith(ENDING)]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one of its arrays, of which nothing else is read.

        Raises:
            RecordingError: it is missing or damaged.
        """
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        try:
            with zipfile.ZipFile(self._path) as file, file.open(name + ENDING) as stream:
                found: tuple[int, ...] = read[np.lib.format.read_magic(stream)](stream)[0]
        except UNREADABLE as error:
            raise RecordingError(self._name, f"array {name} cannot be read: {error}") from error
        return found

    def array(self, name: str) -> np.ndarray:
        """One of its arrays.

        Raises:
            RecordingError: it is missing, damaged, too large, or holds objects that only running code could make.
        """
        if self._sizes.get(name + ENDING, 0) > LARGEST_ARRAY:
            raise RecordingError(
                self._name, f"array {name} has {self._sizes[name + ENDING]:,} bytes; expected {LARGEST_ARRAY:,} at most"
            )
        with self._opened(name) as stream:
            found: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
        return found

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
        """Shape and type of one of its arrays, as it says itself.

        Raises:
            RecordingError: it is missing, or damaged.
        """
        with self._opened(name) as stream:
            shape, _, dtype = _header(stream)
        return shape, dtype

    def rows(self, name: str) -> Iterator[np.ndarray]:
        """The rows of one of its arrays, one after another; only one is held, however large the array is.

        Raises:
            RecordingError: it is missing, damaged, or holds objects, or a row of it is too large.
        """
        with self._opened(name) as stream:
            shape, columns_first, dtype = _header(stream)
            size = dtype.itemsize * int(np.prod(shape[1:], dtype=np.float64))
            if columns_first or dtype.hasobject or not shape or not 0 < size <= LARGEST_ARRAY:
                raise ValueError(f"it is {dtype} {shape}{' by columns' if columns_first else ''}")
            for _ in range(shape[0]):
                data = stream.read(size)
                if len(data) < size:
                    raise EOFError("it breaks off")
                yield np.frombuffer(data, dtype).reshape(shape[1:])

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        if name + ENDING not in self._sizes:
            raise RecordingError(self._name, f"there is no array {name}")
        try:
            with zipfile.ZipFile(self._path) as file, file.open(name + ENDING) as stream:
                yield stream
        except UNREADABLE as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise RecordingError(self._name, f"array {name} cannot be read: {reason}") from error

    def column(self, name: str, length: int | None = None) -> np.ndarray:
        """An array of one number or word for each row, (length,).

        Raises:
            RecordingError: as for `array`, or it has another shape, or holds neither numbers nor words.
        """
        found = self.array(name)
        if found.ndim == 2 and found.shape[1] == 1:
            found = found[:, 0]
        if found.ndim != 1 or length not in (None, len(found)) or found.dtype.kind not in "biufU":
            wanted = "each row" if length is None else f"each of {length} rows"
            said = f"array {name} is {found.dtype} {found.shape}; expected a number or word for {wanted}"
            raise RecordingError(self._name, said)
        return found


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Shape, whether columns come first, and type."""
    if np.lib.format.read_magic(stream) == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)
