"""Where the episodes in an HDF5 file are, by a mapping, and the columns of one of them.

Shapes: n rows, D columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.sources.imports.hdf5_files import NUMBER, Hdf5File
from ahriuwu_cli.sources.imports.hdf5_mapping import ANY, Column, HdfMapping, Pictures
from ahriuwu_cli.sources.imports.protocol import RecordingError

NUMBERED = r"(\d{1,18})"
MOST_NAMES = 1 << 20
"""Names of episodes in a subset."""


@dataclass(frozen=True)
class Place:
    """An episode.

    Attributes:
        root: folder of the source.
        file: in it.
        group: in the file, empty for the file itself.
        rows: first one, and the one after the last; None for all that there are.
    """

    root: Path
    file: str
    group: str
    rows: tuple[int, int] | None = None

    @property
    def part(self) -> str:
        """Which of the recordings in its file it is."""
        rows = f"rows {self.rows[0]} to {self.rows[1] - 1}" if self.rows else ""
        return ", ".join(each for each in (self.group, rows) if each)


def join(group: str, path: str) -> str:
    """The path of what is in a group."""
    return f"{group}/{path}" if group else path


def find_places(
    root: Path, name: str, mapping: HdfMapping, subset: str, defects: list[RecordingError]
) -> Iterator[Place]:
    """The episodes in a file; it is opened only where it must be.

    Raises:
        InputError: there is no such subset.
    """
    if ANY not in mapping.group and not mapping.ends:
        yield Place(root, name, mapping.group)
        return
    try:
        file = Hdf5File(root, name)
    except RecordingError as error:
        defects.append(error)
        return
    try:
        groups = matching(file, mapping.group) if ANY in mapping.group else {"": mapping.group}
        if subset:
            wanted = _subset(file, mapping, subset)
            groups = {number: group for number, group in groups.items() if group.rpartition("/")[2] in wanted}
        for group in groups.values():
            try:
                yield from _cut(file, root, group, mapping)
            except RecordingError as error:
                defects.append(error)
    finally:
        file.close()


def _cut(file: Hdf5File, root: Path, group: str, mapping: HdfMapping) -> Iterator[Place]:
    """A group as one episode, or as several, each up to a row in which one of the arrays of ends is not zero."""
    if not mapping.ends:
        yield Place(root, file.name, group)
        return
    count = num_rows(file, join(group, mapping.ends[0]))
    last, columns = np.zeros(count, bool), Columns(file, group, (0, count), whole=True)
    for path in mapping.ends:
        last |= (columns.read(Column(path=path)) != 0).any(axis=1)
    edges = [0, *(np.flatnonzero(last) + 1).tolist(), count]
    for start, stop in pairwise(edges):
        if start < stop:
            yield Place(root, file.name, group, (start, stop))


def _subset(file: Hdf5File, mapping: HdfMapping, subset: str) -> set[str]:
    """Names of the episodes in a subset."""
    there = file.names(mapping.subsets) if mapping.subsets and file.holds(mapping.subsets) else []
    if subset not in there:
        raise InputError(
            f"{file.name} has no subset {subset!r}; it has {', '.join(there) or 'none'}"[:400],
            hint="correct data.source.options.subset, or leave it out",
        )
    array = file.array(join(mapping.subsets, subset))
    with file.reading(f"{mapping.subsets}/{subset}"):
        if array.ndim != 1 or len(array) > MOST_NAMES:
            raise RecordingError(file.name, f"{mapping.subsets}/{subset} has the shape {array.shape}")
        return {name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in array[()]}


def matching(file: Hdf5File, pattern: str, what: str = NUMBERED) -> dict[str, str]:
    """Paths that a pattern with one `*` fits, by what stands for it; numbers in their order.

    Args:
        file: opened.
        pattern: a path; whatever follows the part with `*` must be there too.
        what: regular expression of what `*` stands for.
    """
    before, _, after = pattern.partition(ANY)
    parent, _, prefix = before.rpartition("/")
    suffix, _, rest = after.partition("/")
    fits = re.compile(f"{re.escape(prefix)}{what}{re.escape(suffix)}")
    found = {}
    for name in file.names(parent) if file.holds(parent) else []:
        match = fits.fullmatch(name)
        path = "/".join(part for part in (parent, name, rest) if part)
        if match and (not rest or file.holds(path)):
            found[match[1]] = path
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0]) if what == NUMBERED else (0, item[0])))


def cameras_in(file: Hdf5File, group: str, mapping: HdfMapping) -> dict[str, Pictures]:
    """Pictures that there are in an episode, by the name of the camera."""
    found: dict[str, Pictures] = {}
    for pictures in mapping.pictures:
        inner = {pictures.path.rpartition("/")[2]: pictures.path}
        if ANY in pictures.path:
            start = len(join(group, "x")) - 1
            inner = {name: path[start:] for name, path in matching(file, join(group, pictures.path), "(.+)").items()}
        for name, path in inner.items():
            if file.is_array(join(group, path).replace(NUMBER, "0")):
                found[path if name in found else name] = pictures.model_copy(update={"path": path})
    return found


# ---------------------------------------------------------------- columns


def num_rows(file: Hdf5File, path: str) -> int:
    """Rows of an array, or the number of arrays that are rows.

    Raises:
        RecordingError: there is none, or one of the rows is missing.
    """
    if NUMBER not in path:
        array = file.array(path)
        with file.reading(path):
            return len(array)
    numbers = [int(number) for number in matching(file, path.replace(NUMBER, ANY))]
    for row, number in enumerate(numbers):
        if row != number:
            raise RecordingError(file.name, f"{path.replace(NUMBER, str(row))} is missing; there are later ones", row)
    if not numbers:
        raise RecordingError(file.name, f"there is no {path.replace(NUMBER, '0')}")
    return len(numbers)


class Columns:
    """Columns of an episode; what several of them are parts of is read once.

    Args:
        file: opened.
        group: of the episode.
        rows: first one, and the one after the last.
        whole: there are no other rows in the arrays.
    """

    def __init__(self, file: Hdf5File, group: str, rows: tuple[int, int], *, whole: bool) -> None:
        self._file, self._group, self.rows, self._is_whole = file, group, rows, whole
        self._held: dict[str, np.ndarray] = {}

    def holds(self, column: Column) -> bool:
        """Whether there is such an array."""
        return self._file.is_array(join(self._group, column.path).replace(NUMBER, str(self.rows[0])))

    def read(self, column: Column) -> np.ndarray:
        """Some columns of an array, (n, D) float64, all finite.

        Raises:
            RecordingError: it is missing, no numbers, too short or narrow, or a number is not finite.
        """
        path, (start, stop) = join(self._group, column.path), self.rows
        if path not in self._held:
            self._held[path] = self._whole(path)
        values, name = self._held[path], self._file.name
        if len(values) != stop - start:
            raise RecordingError(name, f"{path} has {len(values)} rows; expected {stop - start}")
        if column.columns:
            first, last = column.columns
            if values.shape[1] < last:
                raise RecordingError(name, f"{path} has {values.shape[1]} columns; the mapping takes {first} to {last}")
            values = values[:, first:last]
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(wrong):
            bad = values[wrong[0]][~np.isfinite(values[wrong[0]])][0]
            raise RecordingError(name, f"{path} is {bad}; expected a number", row=start + int(wrong[0]))
        return values

    def _whole(self, path: str) -> np.ndarray:
        start, stop = self.rows
        if NUMBER in path:
            return _stacked(self._file, path, start, stop)
        found = self._file.numbers(path) if self._is_whole else self._file.numbers(path, start, stop)
        return found.reshape(len(found), -1).astype(np.float64)


def _stacked(file: Hdf5File, path: str, start: int, stop: int) -> np.ndarray:
    """Rows that are arrays of their own, (n, D) float64."""
    rows: list[np.ndarray] = []
    for row in range(start, stop):
        own = path.replace(NUMBER, str(row))
        values = file.numbers(own).reshape(-1)
        if rows and len(values) != len(rows[0]):
            raise RecordingError(file.name, f"{own} has {len(values)} numbers; those before have {len(rows[0])}", row)
        rows.append(values.astype(np.float64))
    return np.stack(rows) if rows else np.zeros((0, 1))
