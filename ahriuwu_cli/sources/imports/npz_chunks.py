"""NPZ files of replay buffers: which follow on each other, and which rows of them are one episode.

Two layouts: one file an episode (`<time>-<id>-<length>.npz`, or any name), and chunks of a stream that may begin and
end within episodes (`<time>-<id>-<id of the next>-<length>.npz`). A chunk is saved as large as it may become: rows from
`length` on were never filled. One that was saved again has its id in several names; the longest counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from ahriuwu_cli.sources.imports.archive import Archive
from ahriuwu_cli.sources.imports.fields import plain_size, shown
from ahriuwu_cli.sources.imports.folders import named_path, natural
from ahriuwu_cli.sources.imports.protocol import RecordingError

CHUNK = re.compile(r"([0-9TF]+)-([A-Za-z0-9_]{1,64})-([A-Za-z0-9_]{1,64})-(\d{1,9})")
"""Name of a chunk, without `.npz`."""
FIRST = "is_first"


@dataclass(frozen=True)
class Part:
    """Rows `start` to `stop` - 1 of a file.

    Attributes:
        root: folder of the source.
        name: of the file in it.
        height: rows that the arrays of the file have.
    """

    root: Path
    name: str
    start: int
    stop: int
    height: int

    def __len__(self) -> int:
        return self.stop - self.start

    def archive(self) -> Archive:
        """The file, opened."""
        return opened(self.root, self.name)

    def array(self, archive: Archive, key: str) -> np.ndarray:
        """These rows of one of the file's arrays.

        Raises:
            RecordingError: it is missing, damaged, or shorter.
        """
        self.require_height(key, archive.header(key)[0])
        return archive.array(key)[self.start : self.stop]

    def require_height(self, key: str, shape: Sequence[int]) -> None:
        """Refuse an array that has not a row for each action."""
        if tuple(shape[:1]) != (self.height,):
            raise RecordingError(self.name, f"array {key} has the shape {tuple(shape)}; expected {self.height} rows")


@dataclass(frozen=True)
class Stretch:
    """One episode, or the part of one that there is.

    Attributes:
        parts: in order.
        whole: it begins where an episode begins.
    """

    parts: tuple[Part, ...]
    whole: bool

    def __len__(self) -> int:
        return sum(map(len, self.parts))


def opened(root: Path, name: str) -> Archive:
    """A file of a source.

    Raises:
        RecordingError: missing, no NPZ file, or a link that leads out of the source.
    """
    path = named_path(root, name, name)
    plain_size(path, name)
    return Archive(path, name)


def list_files(source: Path) -> list[str]:
    """NPZ files in a folder and the folders in it, in natural order; the file itself where it is one."""
    if source.is_file():
        return [source.name]
    found = sorted(source.rglob("*.npz"), key=lambda path: (path.parent.parts, natural(path)))
    return [path.relative_to(source).as_posix() for path in found if not path.name.startswith(".")]


def stretches(root: Path, names: Sequence[str], defects: list[RecordingError]) -> Iterator[Stretch]:
    """All episodes in some files; what is wrong with a file goes to `defects`, and its rows are a gap."""
    chunks: dict[tuple[str, str], tuple[str, str, int]] = {}  # folder and id -> name, id of the next, length
    for name in names:
        match = CHUNK.fullmatch(Path(name).stem)
        if match is None:
            yield from _cut(_read(root, [(name, None)], defects))
            continue
        key, length = (str(Path(name).parent), match[2]), int(match[4])
        if key not in chunks or length > chunks[key][2]:
            chunks[key] = (name, match[3], length)
    for chain in _chains(chunks, defects):
        yield from _cut(_read(root, [(chunks[key][0], chunks[key][2]) for key in chain], defects))


def _chains(
    chunks: dict[tuple[str, str], tuple[str, str, int]], defects: list[RecordingError]
) -> Iterator[list[tuple[str, str]]]:
    """Keys of chunks that follow on each other; each chunk is in one chain."""
    followers: dict[tuple[str, str], tuple[str, str]] = {}
    led: set[tuple[str, str]] = set()
    for key, (name, after, _) in chunks.items():
        follower = (key[0], after)
        if follower not in chunks or follower == key:
            continue
        if follower in led:
            defects.append(RecordingError(name, f"is followed by {chunks[follower][0]}, which follows another file"))
            continue
        followers[key] = follower
        led.add(follower)
    rest = dict.fromkeys(chunks)
    for key in [key for key in chunks if key not in led]:
        chain = [key]
        while chain[-1] in followers:
            chain.append(followers[chain[-1]])
        for each in chain:
            del rest[each]
        yield chain
    ring = "follows on itself: the ids in the names of files make a ring"
    defects += [RecordingError(chunks[key][0], ring) for key in rest]


def _read(
    root: Path, files: Iterable[tuple[str, int | None]], defects: list[RecordingError]
) -> Iterator[tuple[Part, np.ndarray] | None]:
    """Each file as a part, with where episodes begin in it (M,) bool; None for one that cannot be read."""
    for name, length in files:
        try:
            archive = opened(root, name)
            rows = archive.header("action")[0][:1]
            found = int(rows[0]) if rows else 0
            if length is not None and found < length:
                raise RecordingError(name, f"has {found} rows; its name says {length}")
            part = Part(root, name, 0, found if length is None else length, found)
            if FIRST in archive.names():
                begins = part.array(archive, FIRST).astype(bool).reshape(len(part), -1)[:, :1].reshape(-1)
            else:
                begins = np.arange(len(part)) == 0 if length is None else np.zeros(len(part), bool)
        except RecordingError as error:
            defects.append(error)
            yield None
        else:
            yield part, begins


def _cut(parts: Iterable[tuple[Part, np.ndarray] | None]) -> Iterator[Stretch]:
    """Episodes of a stream of parts; None is a gap."""
    held: list[Part] = []
    whole = False
    for item in parts:
        if item is None:
            if held:
                yield Stretch(tuple(held), whole)
            held, whole = [], False
            continue
        part, begins = item
        edges = [0, *np.flatnonzero(begins).tolist(), len(part)]
        for start, stop in pairwise(edges):
            if start < len(part) and begins[start]:
                if held:
                    yield Stretch(tuple(held), whole)
                held, whole = [], True
            if start < stop:
                held.append(replace(part, start=start, stop=stop))
    if held:
        yield Stretch(tuple(held), whole)


def title(stretch: Stretch) -> tuple[str, str]:
    """A name for people, and which rows of the files it is."""
    first, last = stretch.parts[0], stretch.parts[-1]
    rows = f"rows {first.start} to {last.stop - 1}"
    files = [shown(Path(part.name), Path()) for part in (first, last)]
    return f"{' to '.join(dict.fromkeys(files))}, {rows}", rows
