"""HDF5 files, read as somebody's input: groups and arrays by their paths, links that stay in the source, in pieces.

A file that is cut short or has other bytes in it is a defect like any other; but the HDF5 library can crash over bytes
that were changed within its own tables, and then the import ends there. What was imported before stays.

Shapes: M rows of an array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.sources.imports.array_pictures import Colours, as_picture, as_rgb
from ahriuwu_cli.sources.imports.fields import plain_size
from ahriuwu_cli.sources.imports.folders import named_path
from ahriuwu_cli.sources.imports.frames import LARGEST_PICTURE, decode_picture
from ahriuwu_cli.sources.imports.protocol import RecordingError

LARGEST_TRACK = 1 << 31
"""Bytes of an array that is read whole: actions, rewards, ends."""
SIGNATURE = b"\x89HDF\r\n\x1a\n"
NUMBERS = "biuf"
NUMBER = "{i}"
"""In a path: the number of a row, where each row is an array of its own."""


def h5py() -> Any:
    """The module h5py.

    Raises:
        InputError: it is not installed.
    """
    try:
        import h5py as library
    except ImportError as error:
        raise InputError(
            "HDF5 files need the package h5py, which is not installed", hint="pip install 'ahriuwu[import]'"
        ) from error
    return library


def is_hdf5(path: Path) -> bool:
    """Whether a file begins like an HDF5 file (one with a user block in front is not seen)."""
    try:
        plain_size(path, path.name)
        with path.open("rb") as handle:
            return handle.read(len(SIGNATURE)) == SIGNATURE
    except (OSError, RecordingError):
        return False


class Hdf5File:
    """One file, opened for reading.

    Args:
        root: folder of the source, which links must not leave.
        name: path of the file in it, also for messages.

    Raises:
        InputError: h5py is not installed.
        RecordingError: missing, or no HDF5 file.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._h5py, self._root, self.name = h5py(), root, name
        path = named_path(root, name, name)
        plain_size(path, name)
        with self.reading("the file"):
            self._file = self._h5py.File(path, "r")

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def names(self, group: str = "/") -> list[str]:
        """What is right in a group; empty where it is no group.

        Raises:
            RecordingError: the group is damaged, or missing.
        """
        found = self._node(group)
        with self.reading(group):
            return sorted(found.keys()) if isinstance(found, self._h5py.Group) else []

    def attributes(self, path: str = "/") -> dict[str, Any]:
        """Attributes of a group or array that can be read."""
        found = self._node(path)
        with self.reading(path):
            return dict(found.attrs.items())

    def is_array(self, path: str) -> bool:
        """Whether there is an array of that path."""
        try:
            return isinstance(self._node(path), self._h5py.Dataset)
        except RecordingError:
            return False

    def holds(self, path: str) -> bool:
        """Whether there is anything of that path; a link that leads nowhere is nothing."""
        try:
            self._node(path)
        except RecordingError:
            return False
        return True

    def array(self, path: str) -> Any:
        """An h5py.Dataset, of which nothing is read yet.

        Raises:
            RecordingError: there is none, or its values lie in other files.
        """
        found = self._node(path)
        if not isinstance(found, self._h5py.Dataset):
            raise RecordingError(self.name, f"{path} is a group; expected an array")
        with self.reading(path):
            if found.external or found.is_virtual:
                raise RecordingError(self.name, f"{path} has its values in other files; expected them in this one")
            if found.shape is None:
                raise RecordingError(self.name, f"{path} is empty; expected an array")
        return found

    def numbers(self, path: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows of an array of numbers, (M, ...).

        Raises:
            RecordingError: there is none, or it is damaged, of something else, or too large.
        """
        found = self.array(path)
        with self.reading(path):
            if found.dtype.kind not in NUMBERS or not found.ndim:
                raise RecordingError(self.name, f"{path} is {found.dtype} of shape {found.shape}; expected numbers")
            stop = len(found) if stop is None else stop
            size = found.dtype.itemsize * int(np.prod(found.shape[1:], dtype=np.float64)) * (stop - start)
            if size > LARGEST_TRACK:
                raise RecordingError(self.name, f"{path} has {size:,} bytes; expected at most {LARGEST_TRACK:,}")
            return np.asarray(found[start:stop])

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """Say of whatever goes wrong in the library that the file is damaged."""
        try:
            yield
        except (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as error:
            text = " ".join(str(error).split())[:200]
            raise RecordingError(self.name, f"{path} cannot be read: {text}") from error

    def _node(self, path: str) -> Any:
        """The group or array of a path, which may be in another file of the source."""
        node = self._file
        for part in _parts(path):
            with self.reading(path):
                link = node.get(part, getlink=True) if isinstance(node, self._h5py.Group) else None
                if link is None:
                    raise RecordingError(self.name, f"there is no {path}")
                node = node[part]
                if not isinstance(link, self._h5py.HardLink):
                    self._require_inside(Path(node.file.filename), path)
        return node

    def _require_inside(self, file: Path, path: str) -> None:
        """Refuse a link to a file out of the source."""
        if not file.resolve().is_relative_to(self._root.resolve()):
            raise RecordingError(self.name, f"{path} is a link to {file.name}, which is not in the folder")


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part and part != "."]


class Hdf5Pictures:
    """Pictures in an array of a file, a row each, or an array each; see FrameSource.

    Args:
        file: opened; closed by the last one that reads it (`close`).
        path: of the array; with NUMBER in it: of the array of a row.
        rows: of each frame.
        times: of each frame.
        encoded: rows are the bytes of picture files.
        turned: what makes bytes in the shape of a picture of a row's values; ValueError where it cannot.
        colours: their order.
    """

    def __init__(
        self,
        file: Hdf5File,
        path: str,
        rows: range,
        times: np.ndarray,
        *,
        encoded: bool,
        turned: Callable[[np.ndarray], np.ndarray] = np.asarray,
        colours: Colours = "rgb",
    ) -> None:
        self._file, self._path, self._rows, self.times = file, path, rows, times
        self._encoded, self._turned, self._colours = encoded, turned, colours
        self._array = None if NUMBER in path else file.array(path)

    def chosen(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """See FrameSource."""
        for number in numbers:
            row = self._rows[number]
            yield as_rgb(self._picture(self._values(row), row), self._colours)

    def close(self) -> None:
        """See FrameSource."""
        self._file.close()

    def _values(self, row: int) -> np.ndarray:
        path = self._path.replace(NUMBER, str(row))
        array = self._file.array(path) if self._array is None else self._array
        with self._file.reading(f"{path}, row {row}"):
            shape = array.shape if self._array is None else array.shape[1:]
            if np.prod(shape, dtype=np.float64) > 4 * LARGEST_PICTURE:
                raise RecordingError(self._file.name, f"{path} has the shape {array.shape}, too large for pictures")
            return np.asarray(array[()] if self._array is None else array[row])

    def _picture(self, values: np.ndarray, row: int) -> np.ndarray:
        name = self._file.name
        if self._encoded:
            data = values.tobytes() if values.dtype == np.uint8 else values.item() if values.ndim == 0 else None
            if not isinstance(data, bytes):
                raise RecordingError(name, f"{self._path} holds no picture", row)
            return decode_picture(data, name, row)
        try:
            return as_picture(self._turned(values), name, row)
        except ValueError as error:
            raise RecordingError(name, f"{self._path}: {error}", row) from error
