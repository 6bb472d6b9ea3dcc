"""LeRobot data sets (v2.0, v2.1, v3): which episodes there are, and the files that hold them.

Paths are made from the templates in meta/info.json and from nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.sources.imports.fields import Entry, describing, read_json, read_lines
from ahriuwu_cli.sources.imports.folders import named_path
from ahriuwu_cli.sources.imports.parquet import ParquetFile, number_column, text_column
from ahriuwu_cli.sources.imports.protocol import RecordingError

INFO = "meta/info.json"
VERSION = re.compile(r"v?(\d+)\.(\d+)(\.\d+)?")
PLACE = re.compile(r"\{(\w+)(?::(0?\d{0,2})d?)?\}")
"""A place in a path template: a name, and how many digits."""
HINT = "this data set cannot be imported as it is; download it again, or convert it with lerobot's own tools"
LONGEST = 1 << 40
"""Number of rows, and of an episode, chunk or file."""
SLOWEST, FASTEST = 0.001, 1000.0
"""Frames per second."""


@dataclass(frozen=True)
class Feature:
    """A column, or a camera whose pictures are in videos.

    Attributes:
        dtype: of its numbers, or `video`, `image`.
        shape: of one row of it.
        names: of its axes or columns, in one of several forms (lerobot_actions.py).
        info: of its videos.
    """

    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shows_depth(self) -> bool:
        """Its pictures are distances, not colours."""
        return any(self.info.get(key) is True for key in ("video.is_depth_map", "is_depth_map"))


@dataclass(frozen=True)
class Info:
    """What is used of meta/info.json."""

    codebase_version: str
    fps: float
    features: Mapping[str, Feature]
    data_path: str
    video_path: str | None
    chunks_size: int
    total_episodes: int | None

    @property
    def lists_in_parquet(self) -> bool:
        """Version 3: many episodes in a file, listed in Parquet files; before that one in a file, listed in JSON."""
        return self.version[0] >= 3

    @property
    def version(self) -> tuple[int, int]:
        """Of the format."""
        found = VERSION.fullmatch(self.codebase_version)
        return (int(found[1]), int(found[2])) if found and len(self.codebase_version) < 20 else (0, 0)

    @property
    def cameras(self) -> list[str]:
        """Features that are pictures in colours."""
        return [key for key, each in self.features.items() if each.dtype in ("image", "video") and not each.shows_depth]


def read_info(root: Path) -> Info:
    """The description of a data set.

    Raises:
        InputError: there is none, or it is of a version that is not known.
    """
    with describing(HINT):
        found = read_json(named_path(root, INFO, root.name), INFO)
        features = found.entry("features")
        info = Info(
            codebase_version=found.text("codebase_version"),
            fps=found.number("fps", SLOWEST, FASTEST),
            features={key: _feature(features.entry(key)) for key in features.names()},
            data_path=found.text("data_path"),
            video_path=found.text("video_path") if found.holds("video_path") else None,
            chunks_size=found.whole("chunks_size", 1, LONGEST, default=1000),
            total_episodes=found.whole("total_episodes", 0, LONGEST) if found.holds("total_episodes") else None,
        )
    if info.version not in ((2, 0), (2, 1)) and info.version[0] != 3:
        raise InputError(
            f"{INFO}: codebase_version is {info.codebase_version[:40]!r}; expected v2.0, v2.1 or v3", hint=HINT
        )
    return info


def _feature(entry: Entry) -> Feature:
    shape = entry.wholes("shape", 0, LONGEST) if entry.holds("shape") else ()
    info = entry.anything("info")
    return Feature(entry.text("dtype"), tuple(shape), entry.anything("names"), info if isinstance(info, dict) else {})


@dataclass(frozen=True)
class Clip:
    """Where the pictures of an episode are.

    Attributes:
        path: of a video, within the source.
        start: seconds in the video at which the episode's clock is zero.
    """

    path: str
    start: float


@dataclass(frozen=True)
class Listed:
    """An episode of the list.

    Attributes:
        index: its number.
        length: rows that it has.
        data: path of its Parquet file within the source.
        clips: by camera whose pictures are in videos.
        tasks: their names, as the list has them.
    """

    index: int
    length: int
    data: str
    clips: Mapping[str, Clip]
    tasks: Sequence[str] = ()


def list_episodes(root: Path, info: Info, cameras: Sequence[str]) -> tuple[list[Listed], list[RecordingError]]:
    """All episodes by their numbers, and what is wrong with entries that are none.

    Args:
        root: folder of the data set.
        info: its description.
        cameras: whose pictures are wanted.

    Raises:
        InputError: there is no list, or a path template makes no sense.
    """
    filmed = [camera for camera in cameras if info.features[camera].dtype == "video"]
    if filmed and info.video_path is None:
        raise InputError(f"{INFO}: {filmed[0]} is a video, and video_path is missing", hint=HINT)
    defects: list[RecordingError] = []
    entries = _in_parquet(root, filmed, defects) if info.lists_in_parquet else _in_lines(root, defects)
    found: dict[int, Listed] = {}
    for entry in entries:
        try:
            listed = _listed(info, filmed, entry)
            if listed.index in found:
                raise entry.fault(f"episode {listed.index} is listed twice")
        except RecordingError as error:
            defects.append(error)
        else:
            found[listed.index] = listed
    if not found and not defects:
        raise InputError(f"{root} lists no episodes", hint=HINT)
    return [found[index] for index in sorted(found)], defects


def _listed(info: Info, filmed: Sequence[str], entry: Entry) -> Listed:
    """An entry of the list as an episode."""

    def whole(key: str) -> int:
        return entry.whole(key, 0, LONGEST)

    index = whole("episode_index")
    own: dict[str, int | str] = {"episode_index": index, "episode_chunk": index // info.chunks_size}
    places = own
    if info.lists_in_parquet:
        places = own | {"chunk_index": whole("data/chunk_index"), "file_index": whole("data/file_index")}
    data = fill(info.data_path, places)
    clips = {}
    for camera in filmed:
        assert info.video_path is not None
        places, start = own | {"video_key": camera}, 0.0
        if info.lists_in_parquet:
            at = f"videos/{camera}"
            places |= {"chunk_index": whole(f"{at}/chunk_index"), "file_index": whole(f"{at}/file_index")}
            start = entry.number(f"{at}/from_timestamp")
        clips[camera] = Clip(fill(info.video_path, places), start)
    tasks = entry.items("tasks") if entry.holds("tasks") else []
    return Listed(index, whole("length"), data, clips, [task for task in tasks if isinstance(task, str)])


def fill(template: str, values: Mapping[str, int | str]) -> str:
    """A path template with its places filled.

    Raises:
        InputError: it has a place that is not known.
    """

    def put(found: re.Match[str]) -> str:
        name, digits = found[1], found[2]
        if name not in values:
            raise InputError(
                f"{INFO}: the path {template!r} has a place {found[0]}; known: {', '.join(values)}"[:300], hint=HINT
            )
        return f"{values[name]:0{digits.removeprefix('0')}d}" if digits else str(values[name])

    try:
        filled = PLACE.sub(put, template)
    except ValueError as error:  # digits for a text
        raise InputError(f"{INFO}: the path {template!r} makes no sense: {error}"[:300], hint=HINT) from error
    if "{" in filled or "}" in filled:
        raise InputError(f"{INFO}: the path {template!r} makes no sense"[:300], hint=HINT)
    return filled


# ---------------------------------------------------------------- where the list is


def _in_lines(root: Path, defects: list[RecordingError]) -> Iterator[Entry]:
    name = "meta/episodes.jsonl"
    with describing(HINT):
        yield from read_lines(named_path(root, name, INFO), name, defects)


def _in_parquet(root: Path, filmed: Sequence[str], defects: list[RecordingError]) -> Iterator[Entry]:
    columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    for camera in filmed:
        columns += [f"videos/{camera}/{part}" for part in ("chunk_index", "file_index", "from_timestamp")]
    names = sorted(path.relative_to(root).as_posix() for path in (root / "meta/episodes").glob("*/*.parquet"))
    if not names:
        raise InputError(f"meta/episodes has no Parquet files, and {INFO} says version 3", hint=HINT)
    for name in names:
        try:
            entries = _entries(named_path(root, name, INFO), name, columns)
        except RecordingError as error:
            defects.append(error)
        else:
            yield from entries


def _entries(path: Path, name: str, columns: Sequence[str]) -> list[Entry]:
    file = ParquetFile(path, name)
    try:
        file.require(columns)
        also = [column for column in ("tasks",) if column in file.columns]
        return [Entry(values, name, row) for row, values in enumerate(file.table([*columns, *also]).to_pylist())]
    finally:
        file.close()


def read_tasks(root: Path, info: Info) -> dict[int, str]:
    """Names of the tasks by their numbers; empty where there is no list of them.

    Raises:
        InputError: there is one that cannot be used.
    """
    name = "meta/tasks.parquet" if info.lists_in_parquet else "meta/tasks.jsonl"
    path = root / name
    if not path.exists():
        return {}
    with describing(HINT):
        path = named_path(root, name, INFO)
        if info.lists_in_parquet:
            return _tasks_in_parquet(path, name)
        return {entry.whole("task_index", 0, LONGEST): entry.text("task") for entry in read_lines(path, name)}


def _tasks_in_parquet(path: Path, name: str) -> dict[int, str]:
    file = ParquetFile(path, name)
    try:
        file.require(["task_index"])
        columns = [column for column in file.columns if column != "task_index"]
        column = "task" if "task" in columns else next(iter(columns), None)  # the index of a table of pandas
        if column is None:
            raise RecordingError(name, "has no names of tasks")
        table = file.table(["task_index", column])
        numbers = number_column(table, "task_index", name).astype(np.int64)
        return dict(zip(numbers.tolist(), text_column(table, column, name), strict=True))
    finally:
        file.close()
