"""Minari data sets in HDF5: one group an episode, with one observation more than actions.

Shapes: T steps of an episode, T + 1 observations, A columns of an action.

Observation t, action t, then observation t + 1 with reward t. Pictures are JPEG files or arrays, whatever the version
that wrote them did. Nothing says at what rate it was played: `fps` is an option, and the steps are taken to be even.

Decision: continuous actions of environments are forces and velocities, so between two frames their mean counts.

What `ahriuwu export` writes in places that the format leaves free is taken where it is found: the attribute `task` of
an episode, and among its infos (T + 1 of each, entry t + 1 came with observation t + 1) `action_valid`, which is
false where action t is not known, and `events/NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from pydantic import Field

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.specs import ActionSpec, Aggregate
from ahriuwu_cli.episodes.events import EVENT_NAME, EVENTS
from ahriuwu_cli.episodes.names import Keys, part_name
from ahriuwu_cli.games.codec import ActionCodec, leaves
from ahriuwu_cli.sources.imports.array_pictures import is_picture
from ahriuwu_cli.sources.imports.fields import Entry, describing, parse_json, read_json, settings
from ahriuwu_cli.sources.imports.folders import named_path
from ahriuwu_cli.sources.imports.gym_spaces import space_of
from ahriuwu_cli.sources.imports.hdf5_files import Hdf5File, Hdf5Pictures, is_hdf5
from ahriuwu_cli.sources.imports.protocol import Found, Happenings, Recorded, RecordingError, Rows, Source
from ahriuwu_cli.sources.imports.tiles import Tiles, choose_cameras

KIND = "minari"
DATA, FACTS = "main_data.hdf5", "metadata.json"
INFOS, VALID, TASK = "infos", "action_valid", "task"
EPISODE = re.compile(r"episode_(\d{1,18})")
OBSERVATION = "observation"
"""Name of observations that are not nested."""
HINT = "this data set cannot be imported as it is; write it again with Minari 0.5 or newer, in HDF5"


class Options(Section):
    """Settings of the kind."""

    fps: float = Field(default=15.0, gt=0, le=1000, description="steps per second")
    cameras: str | list[str] = Field(
        default="",
        description="part of the observations with the pictures, as its keys joined by /; several are "
        "tiled; all; may be left out where there is one",
    )
    aggregate: Literal["mean", "sum", "last"] = Field(
        default="mean", description="how continuous actions between two frames become one"
    )
    bounds: dict[str, list[float]] = Field(
        default_factory=dict, description="low and high of continuous actions whose space has none, by name"
    )


@dataclass(frozen=True)
class _DataSet:
    """What the episodes of a source have in common."""

    root: Path
    file: str
    cameras: Mapping[str, Keys]
    shapes: Mapping[str, tuple[int, ...]]
    action: spaces.Space[Any]
    spec: ActionSpec
    fps: float


class MinariImporter:
    """See Importer."""

    KIND = KIND
    SAYS = "Minari data sets in HDF5, with pictures among their observations"
    EXTRA: str | None = "import"

    def detect(self, source: Path) -> str | None:
        """See Importer."""
        return None if _file(source) is None else f"{DATA} of a Minari data set"

    def open_source(self, source: Path, options: Mapping[str, Any]) -> Source:
        """See Importer."""
        chosen = settings(Options, options, KIND)
        name = _file(source)
        if name is None:
            raise InputError(f"{source} has no data/{DATA}", hint="give the folder of a Minari data set")
        with describing(HINT):
            file = Hdf5File(source, name)
            try:
                facts = _facts(source, file)
                groups = file.names()
            finally:
                file.close()
            action, observation = (_space(facts, key) for key in ("action_space", "observation_space"))
        spec = _spec(action, chosen)
        pictures = {
            part_name(keys) or OBSERVATION: (keys, tuple(leaf.shape))
            for keys, leaf in leaves(observation)
            if isinstance(leaf, spaces.Box) and leaf.dtype == np.uint8 and is_picture(leaf.shape)
        }
        if not pictures:
            seen = ", ".join(f"{part_name(keys) or OBSERVATION}: {leaf}" for keys, leaf in leaves(observation))
            raise InputError(f"no part of the observations is a picture of bytes: {seen}"[:400], hint=HINT)
        cameras = choose_cameras(list(pictures), chosen.cameras, KIND)
        data = _DataSet(
            root=source,
            file=name,
            cameras={camera: pictures[camera][0] for camera in cameras},
            shapes={camera: pictures[camera][1] for camera in cameras},
            action=action,
            spec=spec,
            fps=chosen.fps,
        )
        numbers = sorted(int(match[1]) for group in groups if (match := EPISODE.fullmatch(group)))
        if not numbers:
            raise InputError(f"{name} has no episodes", hint=HINT)
        return Source(spec, [_found(data, number) for number in numbers], chosen.fps)


def _file(source: Path) -> str | None:
    """Path in the source of the file with the data."""
    return next((name for name in (f"data/{DATA}", DATA) if is_hdf5(source / name)), None)


def _found(data: _DataSet, number: int) -> Found:
    part = f"episode_{number}"
    return Found(f"{data.file}, {part}", (data.root / data.file,), partial(_open, data, part), part)


# ---------------------------------------------------------------- what the data set says of itself


def _facts(source: Path, file: Hdf5File) -> Entry:
    """The description: metadata.json, or the attributes of the file before Minari 0.5."""
    name = f"{file.name.removesuffix(DATA)}{FACTS}"
    if (source / name).exists():
        facts = read_json(named_path(source, name, name), name)
        if facts.text("data_format", "hdf5") != "hdf5":
            raise facts.wrong("data_format", "hdf5")
        return facts
    found = file.attributes()
    return Entry({key: value for key, value in found.items() if isinstance(value, str)}, file.name)


def _space(facts: Entry, key: str) -> spaces.Space[Any]:
    if not facts.holds(key):
        raise facts.wrong(key, "a space (it is left out where the environment has it, which is not made here)")
    return space_of(parse_json(facts.text(key), f"{facts.file}, {key}"))


def _spec(action: spaces.Space[Any], options: Options) -> ActionSpec:
    bounds = {}
    for name, ends in options.bounds.items():
        if len(ends) != 2:
            raise InputError(f"option bounds: {name!r} has {len(ends)} numbers; expected [low, high]", hint="give two")
        bounds[name] = ends
    try:
        spec = ActionCodec(action, bounds=bounds).spec
    except InputError as error:
        message, hint = (
            text.replace("data.action_bounds", "data.source.options.bounds") for text in (error.message, error.hint)
        )
        raise InputError(message, hint=hint) from error
    rules: dict[str, Aggregate] = {"binary": "any", "categorical": "mode", "continuous": options.aggregate}
    return ActionSpec(
        components=tuple(part.model_copy(update={"aggregate": rules[part.type]}) for part in spec.components)
    )


# ---------------------------------------------------------------- one episode


def _open(data: _DataSet, part: str) -> Recorded:
    file = Hdf5File(data.root, data.file)
    try:
        return _read(data, file, part)
    except BaseException:
        file.close()
        raise


def _read(data: _DataSet, file: Hdf5File, part: str) -> Recorded:
    rewards = _column(file, f"{part}/rewards")
    steps = len(rewards)
    if not steps:
        raise RecordingError(file.name, f"{part} has no steps")
    wrong = np.flatnonzero(~np.isfinite(rewards))
    if len(wrong):
        raise RecordingError(file.name, f"{part}/rewards is {rewards[wrong[0]]}; expected a number", row=int(wrong[0]))
    ends = {name: _column(file, f"{part}/{name}").astype(bool) for name in ("terminations", "truncations")}
    for name, flags in ends.items():
        _require_count(file, f"{part}/{name}", len(flags), steps)
        early = np.flatnonzero(flags[:-1])
        if len(early):
            reason = f"{part}/{name} is true, and the episode of {steps} steps goes on"
            raise RecordingError(file.name, reason, row=int(early[0]))
    times = np.arange(steps + 1) / data.fps
    cameras = [_camera(data, file, part, name, times) for name in data.cameras]
    actions, known = _actions(data, file, part, steps), _info(file, f"{part}/{INFOS}/{VALID}", steps)
    tracks = {
        name: Rows(times[:-1], actions[:, columns], None if known is None else known != 0, file.name, range(steps))
        for name, columns in data.spec.slices().items()
    }
    return Recorded(
        frames=Tiles(cameras),
        actions=tracks,
        reward=Happenings(times[1:], rewards.astype(np.float32)[:, None]),
        events=_events(file, part, times),
        terminal=bool(ends["terminations"][-1]),
        task=_task(file, part),
    )


def _info(file: Hdf5File, path: str, steps: int) -> np.ndarray | None:
    """What came with each observation but the first, (T,); None where there is no such array."""
    if not file.is_array(path):
        return None
    values = _column(file, path)
    _require_count(file, path, len(values), steps + 1)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise RecordingError(file.name, f"{path} is {values[wrong[0]]}; expected a number", row=int(wrong[0]))
    return values[1:]


def _events(file: Hdf5File, part: str, times: np.ndarray) -> dict[str, Happenings]:
    group = f"{part}/{INFOS}/{EVENTS}"
    names = [name for name in file.names(group) if EVENT_NAME.fullmatch(name)] if file.holds(group) else []
    found = {name: _info(file, f"{group}/{name}", len(times) - 1) for name in names}
    return {
        name: Happenings(times[1:], values.astype(np.float32)[:, None])
        for name, values in found.items()
        if values is not None
    }


def _task(file: Hdf5File, part: str) -> str | None:
    name = file.attributes(part).get(TASK)
    return name if isinstance(name, str) and name else None


def _column(file: Hdf5File, path: str) -> np.ndarray:
    """An array (T,) or (T, 1) as (T,)."""
    found = file.numbers(path)
    if found.size != len(found):
        raise RecordingError(file.name, f"{path} has the shape {found.shape}; expected one number a step")
    return found.reshape(-1)


def _require_count(file: Hdf5File, path: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise RecordingError(file.name, f"{path} has {found} rows; expected {wanted}")


def _actions(data: _DataSet, file: Hdf5File, part: str, steps: int) -> np.ndarray:
    """(T, A) float32."""
    columns = []
    for keys, leaf in leaves(data.action):
        path = _path(part, "actions", keys)
        found = file.numbers(path)
        _require_count(file, path, len(found), steps)
        width = int(np.prod(leaf.shape or (1,)))
        if found.size != steps * width:
            raise RecordingError(file.name, f"{path} has the shape {found.shape}; its space says {leaf.shape}")
        start = np.ravel(getattr(leaf, "start", 0))
        columns.append(found.reshape(steps, width).astype(np.float64) - start)
    return np.concatenate(columns, axis=1).astype(np.float32)


def _camera(data: _DataSet, file: Hdf5File, part: str, name: str, times: np.ndarray) -> Hdf5Pictures:
    path = _path(part, "observations", data.cameras[name])
    array = file.array(path)
    with file.reading(path):
        shape, kind = tuple(array.shape), array.dtype
    if not shape or shape[0] != len(times):
        raise RecordingError(
            file.name,
            f"{path} has {shape[0] if shape else 0} rows; expected {len(times)}, one more than there are steps",
        )
    encoded = kind.kind == "O" or (kind == np.uint8 and len(shape) == 2)
    if not encoded and (kind != np.uint8 or shape[1:] != data.shapes[name]):
        raise RecordingError(
            file.name, f"{path} is {kind} of shape {shape[1:]}; its space says uint8 of shape {data.shapes[name]}"
        )
    return Hdf5Pictures(file, path, range(len(times)), times, encoded=encoded)


def _path(part: str, group: str, keys: Keys) -> str:
    """Where a part of nested values is: keys of tables, and `_index_0` for the first of several in a row."""
    return "/".join([part, group, *(f"_index_{key}" if isinstance(key, int) else str(key) for key in keys)])
