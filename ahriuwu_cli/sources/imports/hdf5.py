"""HDF5 files by a mapping that says which arrays are what (hdf5_mapping.py): one importer for many data sets.

Shapes: N frames of an episode, T steps (N or N - 1), D columns.

Nothing in such files says when a frame was shown: rows are taken to be even, `fps` a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.specs import ActionSpec
from ahriuwu_cli.sources.imports.fields import settings, shown
from ahriuwu_cli.sources.imports.folders import natural
from ahriuwu_cli.sources.imports.hdf5_actions import as_rows, columns_of, make_component
from ahriuwu_cli.sources.imports.hdf5_columns import Columns, Place, cameras_in, find_places, join, num_rows
from ahriuwu_cli.sources.imports.hdf5_files import Hdf5File, Hdf5Pictures, is_hdf5
from ahriuwu_cli.sources.imports.hdf5_mapping import Came, Column, HdfMapping, Pictures, as_mapping, shipped
from ahriuwu_cli.sources.imports.protocol import Found, Happenings, Recorded, RecordingError, Rows, Source
from ahriuwu_cli.sources.imports.steps import with_next_frame
from ahriuwu_cli.sources.imports.tiles import Tiles, choose_cameras

KIND = "hdf5"
SUFFIXES = (".hdf5", ".h5", ".hdf")


class Options(Section):
    """Settings of the kind."""

    mapping: str | dict[str, Any] = Field(
        default="",
        description="name of one that comes along, a TOML file, or a table; left out: what a file looks like",
    )
    fps: float | None = Field(default=None, gt=0, le=1000, description="rows per second; left out: as the mapping says")
    cameras: str | list[str] = Field(
        default="", description="camera; several are tiled; all; may be left out where there is one"
    )
    subset: str = Field(default="", description="which episodes, as the file itself lists them (train, valid ...)")


@dataclass(frozen=True)
class _DataSet:
    """What the episodes of a source have in common."""

    mapping: HdfMapping
    cameras: Mapping[str, Pictures]
    spec: ActionSpec
    fps: float


class Hdf5Importer:
    """See Importer."""

    KIND = KIND
    SAYS = "HDF5 files by a mapping: Counter-Strike, robomimic, ManiSkill, D4RL, or one of your own"
    EXTRA: str | None = "import"

    def detect(self, source: Path) -> str | None:
        """See Importer."""
        try:
            root, names = _files(source)
            known = _known(root, names[0]) if names else []
        except (OSError, InputError, RecordingError):
            return None
        return f"{Path(names[0]).name}: {', '.join(known)}" if known else None

    def open_source(self, source: Path, options: Mapping[str, Any]) -> Source:
        """See Importer."""
        chosen = settings(Options, options, KIND)
        root, names = _files(source)
        if not names:
            raise InputError(f"{source} has no HDF5 files ({', '.join(SUFFIXES)})", hint="give a file, or their folder")
        mapping = as_mapping(chosen.mapping or _only(root, names[0]))
        if chosen.subset and not mapping.subsets:
            raise InputError(
                f"{KIND}: the mapping has no subsets, and option subset is {chosen.subset!r}", hint="leave it out"
            )
        defects: list[RecordingError] = []
        places = [place for name in names for place in find_places(root, name, mapping, chosen.subset, defects)]
        if not places:
            why = defects[0] if defects else f"there is no {mapping.group or 'row'}"
            raise InputError(f"{source} has no episodes of this mapping: {why}", hint="choose another mapping")
        found = _cameras(places, mapping)
        cameras = choose_cameras(list(found), chosen.cameras, KIND)
        spec = ActionSpec(components=tuple(make_component(part, places) for part in mapping.actions))
        data = _DataSet(mapping, {name: found[name] for name in cameras}, spec, chosen.fps or mapping.fps)
        return Source(spec, [_found(data, place) for place in places], data.fps, defects)


def _files(source: Path) -> tuple[Path, list[str]]:
    """The folder of a source, and the HDF5 files in it."""
    if source.is_file():
        return source.parent, [source.name] if is_hdf5(source) else []
    found = (path for path in source.rglob("*") if path.suffix in SUFFIXES and not path.name.startswith("."))
    ordered = sorted(found, key=lambda path: (path.parent.parts, natural(path)))
    return source, [path.relative_to(source).as_posix() for path in ordered]


def _known(root: Path, name: str) -> list[str]:
    """Names of mappings that a file looks made for."""
    file = Hdf5File(root, name)
    try:
        return [key for key, each in shipped().items() if all(map(file.is_array, each.known_by))]
    finally:
        file.close()


def _only(root: Path, name: str) -> str:
    try:
        known = _known(root, name)
    except RecordingError as error:
        raise InputError(error.message, hint="give data.source.options.mapping, or another file") from error
    if len(known) == 1:
        return known[0]
    raise InputError(
        f"{name} looks like {' and '.join(known) if known else 'nothing that there is a mapping for'}",
        hint=f"set data.source.options.mapping to a TOML file, or to one of {', '.join(shipped())}",
    )


def _cameras(places: Sequence[Place], mapping: HdfMapping) -> dict[str, Pictures]:
    """Cameras of the first episode that has any."""
    for place in places:
        try:
            file = Hdf5File(place.root, place.file)
        except RecordingError:
            continue
        try:
            if found := cameras_in(file, place.group, mapping):
                return found
        except RecordingError:
            continue
        finally:
            file.close()
    return {}


def _found(data: _DataSet, place: Place) -> Found:
    name = ", ".join(each for each in (shown(Path(place.file), Path()), place.part) if each)
    return Found(name, (place.root / place.file,), partial(_open, data, place), place.part)


# ---------------------------------------------------------------- one episode


def _open(data: _DataSet, place: Place) -> Recorded:
    file = Hdf5File(place.root, place.file)
    try:
        return _read(data, place, file)
    except BaseException:
        file.close()
        raise


def _read(data: _DataSet, place: Place, file: Hdf5File) -> Recorded:
    mapping = data.mapping
    columns = columns_of(file, place, mapping.actions[0])
    frames = _num_frames(data, place, file, columns)
    times, (start, stop) = np.arange(frames) / data.fps, columns.rows
    cameras = [
        Hdf5Pictures(
            file,
            join(place.group, pictures.path),
            range(start, start + frames),
            times,
            encoded=pictures.encoded,
            turned=partial(_as_bytes, pictures),
            colours=pictures.order,
        )
        for pictures in data.cameras.values()
    ]
    late = int(mapping.alignment == "led")  # rows by which an action stands after the frame it was chosen on
    tracks = {}
    for part, component in zip(mapping.actions, data.spec.components, strict=True):
        values, valid = as_rows(part, component, columns.read(part), file.name, start)
        when, numbers = times[: len(values) - late], range(start + late, stop)
        tracks[part.name] = Rows(when, values[late:], valid[late:], file.name, numbers)

    def there(path: str) -> bool:
        return bool(path) and (path not in mapping.optional or columns.holds(Column(path=path)))

    ended = there(mapping.terminal) and bool((columns.read(Column(path=mapping.terminal))[-1] != 0).any())

    def came(column: Came) -> Happenings:
        values = columns.read(column)
        if values.shape[1] != 1:
            raise RecordingError(file.name, f"{column.path} has {values.shape[1]} numbers a row; expected one")
        if column.frame == "next":
            return with_next_frame(values, times, ended=ended)
        return Happenings(times[: len(values)], values.astype(np.float32))

    return Recorded(
        frames=Tiles(cameras),
        actions=tracks,
        reward=came(mapping.reward) if mapping.reward and there(mapping.reward.path) else None,
        events={each.name: came(each) for each in mapping.events if there(each.path)},
        terminal=ended,
    )


def _num_frames(data: _DataSet, place: Place, file: Hdf5File, columns: Columns) -> int:
    """Frames of an episode: as many as there are steps, or one more."""
    steps = columns.rows[1] - columns.rows[0]
    counts = {num_rows(file, join(place.group, pictures.path)) for pictures in data.cameras.values()}
    if place.rows:
        wanted = {num_rows(file, join(place.group, data.mapping.actions[0].path))}
    else:
        wanted = {steps} if data.mapping.alignment == "led" else {steps, steps + 1}
    if len(counts) > 1 or not counts <= wanted or not steps:
        said = " or ".join(map(str, sorted(wanted)))
        raise RecordingError(
            file.name, f"{place.part or 'it'} has {steps} actions and {sorted(counts)} pictures; expected {said}"
        )
    return steps if place.rows else counts.pop()


def _as_bytes(pictures: Pictures, values: np.ndarray) -> np.ndarray:
    """A row of an array as bytes in the shape of a picture; ValueError where its numbers are none."""
    if pictures.shape:
        values = values.reshape(pictures.shape)
    if values.dtype == np.uint8 and pictures.pixels != "unit":
        return values
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{values.dtype} is no type of pixels")
    unit = pictures.pixels == "unit" or (pictures.pixels == "auto" and values.dtype.kind == "f")
    top = 1 if unit else 255
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if not (low >= 0 and high <= top):
        raise ValueError(f"pixels go from {low:g} to {high:g}; expected 0 to {top} (pixels of the mapping)")
    return np.rint(values.astype(np.float64) * (255 if unit else 1)).astype(np.uint8)
