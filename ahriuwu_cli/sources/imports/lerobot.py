"""LeRobot data sets, versions 2.0, 2.1 and 3: rows in Parquet files, pictures in videos or in the rows.

Shapes: n rows of an episode, D columns of an action.

Row t holds frame t, the action taken on seeing it, and in `next.reward` what came back with frame t + 1; the frame that
the last action led to is not recorded, so the last action falls away (steps.py has what becomes of its reward).

Decision: actions are positions (of joints, as a rule), so what holds at the end of a step is its action; data of deltas
or velocities needs the option `aggregate`.

Three things that `ahriuwu export` writes in places which the format leaves free are taken where they are found: the
action spec in the `info` of the action's feature, the feature `action_valid`, and features `next.event.NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.specs import ActionSpec
from ahriuwu_cli.episodes.events import EVENT_NAME
from ahriuwu_cli.sources.imports.fields import plain_size, settings
from ahriuwu_cli.sources.imports.folders import named_path
from ahriuwu_cli.sources.imports.frames import VideoRows
from ahriuwu_cli.sources.imports.lerobot_actions import (
    action_feature,
    bounds_of_data,
    column_names,
    known_bounds,
    make_spec,
    written_spec,
)
from ahriuwu_cli.sources.imports.lerobot_episodes import (
    INFO,
    Feature,
    Info,
    Listed,
    list_episodes,
    read_info,
    read_tasks,
)
from ahriuwu_cli.sources.imports.parquet import (
    ParquetFile,
    ParquetPictures,
    list_column,
    number_column,
    whole_column,
)
from ahriuwu_cli.sources.imports.protocol import Found, FrameSource, Happenings, Recorded, RecordingError, Rows, Source
from ahriuwu_cli.sources.imports.tiles import Tiles, choose_cameras

KIND = "lerobot"
TIME, REWARD, DONE, CUT_OFF = "timestamp", "next.reward", "next.done", "next.truncated"
VALID, EVENT, SPEC = "action_valid", "next.event.", "action_spec"
HEAD = 1 << 16
"""Bytes of meta/info.json that are looked at to tell what it is."""


class Options(Section):
    """Settings of the kind."""

    cameras: str | list[str] = Field(
        default="", description="feature with the pictures; several are tiled; all; may be left out where there is one"
    )
    action: str = Field(default="action", min_length=1, description="feature with the actions")
    aggregate: Literal["last", "mean", "sum"] = Field(
        default="last",
        description="how actions between two frames become one: last for positions, mean for "
        "velocities, sum for deltas",
    )
    bounds: Literal["stats", "data"] = Field(
        default="stats", description="bounds of actions: from the statistics of the data set, or from all its rows"
    )
    columns: Literal["together", "apart"] = Field(
        default="together", description="columns of the action: one component with common bounds, or one for each"
    )


@dataclass(frozen=True)
class _DataSet:
    """What the episodes of a source have in common."""

    root: Path
    info: Info
    cameras: tuple[str, ...]
    action: str
    spec: ActionSpec
    tasks: Mapping[int, str]


class LeRobotImporter:
    """See Importer."""

    KIND = KIND
    SAYS = "LeRobot data sets (versions 2.0, 2.1 and 3)"
    EXTRA: str | None = "import"

    def detect(self, source: Path) -> str | None:
        """See Importer."""
        try:
            path = source / INFO
            plain_size(path, INFO)
            with path.open("rb") as handle:
                seen = b'"codebase_version"' in handle.read(HEAD)
        except (OSError, ValueError, RecordingError):
            return None
        return f"{INFO} with a codebase_version" if seen else None

    def open_source(self, source: Path, options: Mapping[str, Any]) -> Source:
        """See Importer."""
        chosen = settings(Options, options, KIND)
        if not source.is_dir():
            raise InputError(f"{source} is no folder; expected one with {INFO}", hint="give the data set's folder")
        info = read_info(source)
        feature = action_feature(info, chosen.action)
        cameras = choose_cameras(info.cameras, chosen.cameras, KIND)
        listed, defects = list_episodes(source, info, cameras)
        spec = written_spec(feature.info.get(SPEC), feature.shape[0], chosen.aggregate)
        if spec is None:
            spec = _spec(source, chosen, feature, listed)
        data = _DataSet(source, info, tuple(cameras), chosen.action, spec, read_tasks(source, info))
        notes = []
        if info.total_episodes not in (None, len(listed)):
            notes.append(f"{INFO} says {info.total_episodes} episodes; {len(listed)} are listed")
        return Source(spec, [_found(data, each) for each in listed], info.fps, defects, notes)


def _spec(source: Path, chosen: Options, feature: Feature, listed: list[Listed]) -> ActionSpec:
    """The spec that numbers without further words have."""
    width = feature.shape[0]
    bounds = known_bounds(source, chosen.action, width) if chosen.bounds == "stats" else None
    if bounds is None:
        files = dict.fromkeys(each.data for each in listed)
        bounds = bounds_of_data(source, files, chosen.action, width)
    return make_spec(chosen.action, column_names(feature), bounds, chosen.aggregate, apart=chosen.columns == "apart")


def _found(data: _DataSet, listed: Listed) -> Found:
    names = dict.fromkeys([listed.data, *(clip.path for clip in listed.clips.values())])
    files = tuple(data.root / name for name in names)
    part = f"episode {listed.index}"
    return Found(f"{listed.data}, {part}", files, partial(_open, data, listed), part)


# ---------------------------------------------------------------- one episode


def _open(data: _DataSet, listed: Listed) -> Recorded:
    path, name = named_path(data.root, listed.data, INFO), listed.data
    start, stop = _rows(path, listed)
    file = ParquetFile(path, name)
    try:
        wanted = [TIME, data.action]
        also = [key for key in (REWARD, DONE, CUT_OFF, VALID, "frame_index", "task_index") if key in file.columns]
        events = {key.removeprefix(EVENT): key for key in file.columns if key.startswith(EVENT)}
        events = {event: key for event, key in events.items() if EVENT_NAME.fullmatch(event)}
        also += events.values()
        table = file.table([*wanted, *also], start, stop)
    finally:
        file.close()

    def column(key: str) -> np.ndarray | None:
        return number_column(table, key, name, start) if key in also else None

    _require_order(name, column("frame_index"), start)
    times = number_column(table, TIME, name, start).astype(np.float64)
    _require_rising(name, times, start)
    actions = list_column(table, data.action, name, start)
    if actions.shape[1] != data.spec.dim:
        raise RecordingError(
            name, f"{data.action} has {actions.shape[1]} numbers; {INFO} says {data.spec.dim}", row=start
        )
    done, cut_off = column(DONE), column(CUT_OFF)
    ended = done is not None and bool(done[-1]) and not (cut_off is not None and bool(cut_off[-1]))
    cameras = [_camera(data, listed, key, start, times) for key in data.cameras]
    numbers, known, values = range(start, stop), column(VALID), actions.astype(np.float32)
    return Recorded(
        frames=Tiles(cameras),
        actions={
            part: Rows(times, values[:, columns], None if known is None else known != 0, name, numbers)
            for part, columns in data.spec.slices().items()
        },
        reward=_came(name, REWARD, column(REWARD), times, start, ended=ended),
        events={
            event: track
            for event, key in events.items()
            if (track := _came(name, key, column(key), times, start, ended=ended)) is not None
        },
        terminal=ended,
        task=_task(data, listed, column("task_index"), start),
    )


def _rows(path: Path, listed: Listed) -> tuple[int, int]:
    """Where the rows of an episode are in its file."""
    name = listed.data
    rows = np.flatnonzero(whole_column(path, name, "episode_index") == listed.index)
    if len(rows) != listed.length:
        raise RecordingError(
            name, f"has {len(rows)} rows of episode {listed.index}; the list of episodes says {listed.length}"
        )
    if len(rows) < 2:
        raise RecordingError(name, f"has {len(rows)} rows of episode {listed.index}; expected two or more")
    apart = np.flatnonzero(np.diff(rows) != 1)
    if len(apart):
        row = int(rows[apart[0]]) + 1
        raise RecordingError(name, f"belongs to another episode, within episode {listed.index}", row=row)
    return int(rows[0]), int(rows[-1]) + 1


def _require_order(name: str, numbers: np.ndarray | None, start: int) -> None:
    """Frames are numbered from 0: none is missing, and none is out of place."""
    if numbers is not None and (wrong := np.flatnonzero(numbers != np.arange(len(numbers)))).size:
        place = int(wrong[0])
        raise RecordingError(name, f"frame_index is {numbers[place]}; expected {place}", row=start + place)


def _require_rising(name: str, times: np.ndarray, start: int) -> None:
    wrong = np.flatnonzero(~np.isfinite(times) | (np.diff(times, prepend=-np.inf) <= 0))
    if len(wrong):
        place = int(wrong[0])
        before = f" after {times[place - 1]:g}" if place else ""
        raise RecordingError(name, f"{TIME} is {times[place]:g}{before}; expected rising seconds", row=start + place)


def _camera(data: _DataSet, listed: Listed, key: str, start: int, times: np.ndarray) -> FrameSource:
    clip = listed.clips.get(key)
    if clip is None:
        return ParquetPictures(named_path(data.root, listed.data, INFO), listed.data, key, start, times)
    path = named_path(data.root, clip.path, INFO)
    return VideoRows(path, clip.path, times, clip.start, tolerance=0.5 / data.info.fps)


def _came(
    name: str, key: str, values: np.ndarray | None, times: np.ndarray, start: int, *, ended: bool
) -> Happenings | None:
    """Rewards, or an event, at the times of the frames that they came with; see the module."""
    if values is None:
        return None
    if not np.isfinite(values).all():
        place = int(np.argmin(np.isfinite(values)))
        raise RecordingError(name, f"{key} is {values[place]}; expected a number", row=start + place)
    came = values[:-1].astype(np.float32)
    if ended:
        came[-1] += np.float32(values[-1])
    return Happenings(times[1:], came[:, None])


def _task(data: _DataSet, listed: Listed, numbers: np.ndarray | None, start: int) -> str | None:
    """The task of an episode: that of its first row, or else the first one that the list of episodes has."""
    if numbers is None or not data.tasks:
        return next((task for task in listed.tasks if task), None)
    strange = np.flatnonzero(~np.isin(numbers, list(data.tasks)))
    if len(strange):
        place = int(strange[0])
        raise RecordingError(listed.data, f"task_index is {numbers[place]}, which no task has", row=start + place)
    return data.tasks[int(numbers[0])] or None
