"""Format `lerobot`: a LeRobot data set of version 3, many episodes in a file.

Shapes: T steps of an episode, F = T + 1 frames and rows, A columns of an action, H x W pixels.

Row t holds frame t, the action taken on seeing it, and in `next.reward`, `next.event.NAME`, `next.done` and
`next.truncated` what came back with frame t + 1. The format has as many actions as frames and nothing was done on
seeing the last one, so the last row repeats the action before it; `action_valid` is false there, and where an action
is not known. Whoever does not read `action_valid` takes these for actions. The action spec is in the `info` of the
feature `action`, where others do not look and `data import lerobot` does.

Frames are video as episodes/video.py writes it: H.264 in RGB, without loss up to 64x64 pixels and at CRF 12 beyond.
What the format cannot hold, beside what none can (survey.py): times come back as 32-bit numbers of seconds since the
episode began (off by a microsecond in the first half minute, by 0.1 ms in the first hour).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ahriuwu_cli.core.specs import ActionSpec, FrameSpec
from ahriuwu_cli.episodes.episode import Tracks
from ahriuwu_cli.episodes.reading import pieces
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.episodes.video import VideoWriter
from ahriuwu_cli.sources.exports.moments import Moments
from ahriuwu_cli.sources.exports.protocol import Done
from ahriuwu_cli.sources.exports.survey import MICROSECOND, Survey, ends_of, since_start, stamps_of, unit_of
from ahriuwu_cli.sources.imports.lerobot import CUT_OFF, DONE, EVENT, REWARD, SPEC, TIME, VALID
from ahriuwu_cli.sources.imports.lerobot_episodes import INFO
from ahriuwu_cli.sources.imports.parquet import pyarrow

CAMERA, ACTION = "observation.images.frame", "action"
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA, VIDEO = f"data/{FILE}.parquet", f"videos/{{video_key}}/{FILE}.mp4"
ROWS_OF_FILE = 50_000
"""A file is full with so many rows."""
FILES_OF_CHUNK = 1000
FINE = 1e-5
"""Seconds by which times may be off without a word."""


class LeRobotExporter:
    """See Exporter."""

    FORMAT = "lerobot"
    SAYS = "a LeRobot data set (version 3): Parquet and MP4 files of many episodes"

    def losses(self, store: EpisodeStore, survey: Survey) -> Sequence[str]:
        """See Exporter."""
        del store
        pyarrow()  # says so where it is not there, before anything is written
        rounded = f"times are rounded by up to {survey.rounding * 1000:.2g} ms: the format has 32 bits for them"
        return [rounded] if survey.rounding > FINE else []

    def write(self, store: EpisodeStore, survey: Survey, folder: Path, done: Done) -> None:
        """See Exporter."""
        with ExitStack() as stack:
            data = _DataSet(store, survey, folder, stack)
            for number, episode_id in enumerate(survey.ids):
                data.add(number, episode_id)
                done(number + 1)
        data.describe()

    def again(self, survey: Survey, folder: Path) -> Sequence[str]:
        """See Exporter."""
        del survey, folder
        return []


class _DataSet:
    """A data set that is being written; `describe` once all files are closed."""

    def __init__(self, store: EpisodeStore, survey: Survey, folder: Path, stack: ExitStack) -> None:
        self._arrow, self._store, self._survey, self._root, self._stack = pyarrow(), store, survey, folder, stack
        self._unit = MICROSECOND if survey.uneven else unit_of(store.frame_spec.fps)
        self._tasks = {task: number for number, task in enumerate(survey.tasks)}
        self._schema = self._columns()
        self._stats: dict[str, Moments] = {}
        self._listed: list[dict[str, Any]] = []
        self._rows = 0
        self._file, self._rows_of_file, self._stamp = -1, ROWS_OF_FILE, 0

    def add(self, number: int, episode_id: str) -> None:
        """Write an episode."""
        if self._rows_of_file >= ROWS_OF_FILE:
            self._next_file()
        tracks, frame = self._store.tracks(episode_id), self._store.frame_spec
        count, times = tracks.num_frames, since_start(tracks)
        stamps = self._stamp + stamps_of(times, self._unit)
        place = 0
        for piece in pieces(self._store.frames(episode_id)):
            self._video.add(piece, stamps[place : place + len(piece)].tolist())
            place += len(piece)
            self._moments(CAMERA).add(piece.reshape(-1, 3) / np.float32(255))
        rows = self._table(number, tracks, times)
        self._table_file.write_table(self._arrow.table(rows, schema=self._schema))
        start = float(self._stamp * self._unit)
        self._stamp = int(stamps[-1]) + max(1, round(unit_of(frame.fps) / self._unit))
        self._list(number, tracks, start, float(self._stamp * self._unit))
        self._rows += count
        self._rows_of_file += count

    def describe(self) -> None:
        """Write what the data set says of itself."""
        meta = self._root / "meta"
        episodes = meta / "episodes" / FILE.format(chunk_index=0, file_index=0)
        episodes.parent.mkdir(parents=True)
        self._arrow.parquet.write_table(self._arrow.Table.from_pylist(self._listed), f"{episodes}.parquet")
        self._arrow.parquet.write_table(self._task_table(), meta / "tasks.parquet")
        stats = {key: found.facts(wide=key == CAMERA) for key, found in self._stats.items()}
        (meta / "stats.json").write_text(json.dumps(stats, indent=4), encoding="utf-8")
        (self._root / INFO).write_text(json.dumps(self._info(), indent=4), encoding="utf-8")

    # ------------------------------------------------------------ files

    def _next_file(self) -> None:
        self._stack.close()
        self._file += 1
        self._rows_of_file, self._stamp = 0, 0
        frame = self._store.frame_spec
        paths = [self._root / DATA.format(**self._place), self._root / VIDEO.format(**self._place, video_key=CAMERA)]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        writer = self._arrow.parquet.ParquetWriter(paths[0], self._schema)
        self._table_file = self._stack.enter_context(writer)
        self._video = self._stack.enter_context(VideoWriter(paths[1], frame.height, frame.width, self._unit))

    @property
    def _place(self) -> dict[str, int]:
        chunk, file = divmod(self._file, FILES_OF_CHUNK)
        return {"chunk_index": chunk, "file_index": file}

    # ------------------------------------------------------------ rows

    def _columns(self) -> Any:
        """The schema of the rows."""
        arrow, dim = self._arrow, self._store.action_spec.dim
        action = arrow.float32() if dim == 1 else arrow.list_(arrow.float32(), dim)
        kinds = {ACTION: action, VALID: arrow.bool_(), TIME: arrow.float32(), REWARD: arrow.float32()}
        kinds |= {f"{EVENT}{name}": arrow.float32() for name in self._survey.events}
        kinds |= {DONE: arrow.bool_(), CUT_OFF: arrow.bool_()}
        kinds |= dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), arrow.int64())
        return arrow.schema(list(kinds.items()))

    def _table(self, number: int, tracks: Tracks, times: np.ndarray) -> dict[str, Any]:
        """The rows of an episode."""
        count = tracks.num_frames
        last = np.arange(count) == count - 1
        actions = np.concatenate([tracks.actions, tracks.actions[-1:]])  # (F, A)
        _, cut_off = ends_of(tracks)
        columns = {
            ACTION: actions,
            VALID: _then(tracks.action_valid, fill=False),
            TIME: times.astype(np.float32),
            REWARD: _then(tracks.rewards, fill=0),
            **{f"{EVENT}{name}": _then(tracks.event(name), fill=0) for name in self._survey.events},
            DONE: last,
            CUT_OFF: last & cut_off,
            "frame_index": np.arange(count),
            "episode_index": np.full(count, number),
            "index": self._rows + np.arange(count),
            "task_index": np.full(count, self._tasks[tracks.task]),
        }
        for key, values in columns.items():
            self._moments(key).add(values.reshape(count, -1))
        flat = self._arrow.array(actions.reshape(-1))
        dim = actions.shape[1]
        action = flat if dim == 1 else self._arrow.FixedSizeListArray.from_arrays(flat, dim)
        return columns | {ACTION: action}

    def _moments(self, key: str) -> Moments:
        return self._stats.setdefault(key, Moments())

    # ------------------------------------------------------------ descriptions

    def _list(self, number: int, tracks: Tracks, start: float, stop: float) -> None:
        entry: dict[str, Any] = {
            "episode_index": number,
            "tasks": [tracks.task],
            "length": tracks.num_frames,
            "dataset_from_index": self._rows,
            "dataset_to_index": self._rows + tracks.num_frames,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        entry |= {f"data/{key}": value for key, value in self._place.items()}
        clip = {**self._place, "from_timestamp": start, "to_timestamp": stop}
        self._listed.append(entry | {f"videos/{CAMERA}/{key}": value for key, value in clip.items()})

    def _task_table(self) -> Any:
        """Numbers by the names of tasks, which are its index for pandas, as LeRobot reads it."""
        columns = {"task_index": list(self._tasks.values()), "task": list(self._tasks)}
        table = self._arrow.table(columns)
        said = {
            "index_columns": ["task"],
            "column_indexes": [],
            "columns": [
                {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": own, "metadata": None}
                for name, kind, own in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
            ],
        }
        return table.replace_schema_metadata({"pandas": json.dumps(said)})

    def _info(self) -> dict[str, Any]:
        fps = self._store.frame_spec.fps
        return {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": len(self._listed),
            "total_frames": self._rows,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_OF_CHUNK,
            "fps": int(fps) if fps.is_integer() else fps,
            "splits": {"train": f"0:{len(self._listed)}"},
            "data_path": DATA,
            "video_path": VIDEO,
            "features": _features(self._store.action_spec, self._store.frame_spec, self._schema),
        }


def _then(values: np.ndarray, *, fill: float) -> np.ndarray:
    """Values of the steps (T,) for rows (F,)."""
    return np.append(values, np.asarray([fill], values.dtype))


def _features(action: ActionSpec, frame: FrameSpec, schema: Any) -> dict[str, Any]:
    """What columns and pictures there are."""
    features: dict[str, Any] = {
        CAMERA: {
            "dtype": "video",
            "shape": [frame.height, frame.width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.fps": frame.fps,
                "video.height": frame.height,
                "video.width": frame.width,
                "video.channels": 3,
                "video.codec": "h264",
                "video.pix_fmt": "gbrp",
                "video.is_depth_map": False,
                "has_audio": False,
            },
        }
    }
    for field in schema:
        kind = "float32" if field.name == ACTION else {"float": "float32"}.get(str(field.type), str(field.type))
        features[field.name] = {"dtype": kind, "shape": [1], "names": None}
    features[ACTION] |= {
        "shape": [action.dim],
        "names": [name for part in action.components for name in _names(part.name, part.labels, part.dim)],
        "info": {SPEC: action.model_dump(mode="json")},
    }
    return features


def _names(name: str, labels: Sequence[str], dim: int) -> list[str]:
    """Of the columns of a component."""
    if dim == 1:
        return [name]
    return [f"{name}.{labels[column] if len(labels) == dim else column}" for column in range(dim)]
