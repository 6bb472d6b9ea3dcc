"""Format `minari`: a Minari data set (0.5) in HDF5, one group an episode, pictures as arrays without loss.

Shapes: T steps of an episode, F = T + 1 frames, H x W pixels.

Observations are the frames, actions a Dict with a space for each component: Discrete, MultiBinary or Box. Whether an
action is known and what events came are among the infos (`action_valid`, `events/NAME`), where `data import minari`
looks; the task is an attribute of the episode. Actions, rewards, ends, events and tasks come back bit for bit.

What the format cannot hold, beside what none can (survey.py): times (all frames come back 1/fps seconds apart); names
of choices and switches; the rule for several actions between two frames, where components differ in theirs.
Components come back in the order of their names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.episodes.episode import Tracks
from ahriuwu_cli.episodes.events import EVENTS
from ahriuwu_cli.episodes.names import part_keys
from ahriuwu_cli.episodes.reading import pieces
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.games.codec import WHOLE
from ahriuwu_cli.sources.exports.protocol import Done
from ahriuwu_cli.sources.exports.survey import Survey, ends_of
from ahriuwu_cli.sources.imports.hdf5_files import h5py
from ahriuwu_cli.sources.imports.minari import DATA, FACTS, INFOS, TASK, VALID

VERSION = "0.5.3"
CHUNK_BYTES = 1 << 16
"""Of frames that are compressed together; at least one frame is."""
USUAL = {"binary": "any", "categorical": "mode", "continuous": "mean"}
"""Rules that components come back with."""
ODD = re.compile(r"[^A-Za-z0-9]+")


class MinariExporter:
    """See Exporter."""

    FORMAT = "minari"
    SAYS = "a Minari data set in HDF5"

    def losses(self, store: EpisodeStore, survey: Survey) -> Sequence[str]:
        """See Exporter."""
        h5py()  # says so where it is not there, before anything is written
        parts = store.action_spec.components
        _require_names(parts)
        said = []
        if survey.uneven:
            said.append(f"times: frames come back {1 / store.frame_spec.fps:.4g} seconds apart")
        if named := [part.name for part in parts if part.labels]:
            said.append(f"names of the choices of {', '.join(named)}")
        rules = [part.name for part in parts if part.aggregate not in (None, USUAL[part.type])]
        if rules:
            said.append(f"how several actions between two frames become one: {', '.join(rules)}")
        return said

    def write(self, store: EpisodeStore, survey: Survey, folder: Path, done: Done) -> None:
        """See Exporter."""
        (folder / "data").mkdir()
        with h5py().File(folder / "data" / DATA, "w", track_order=True) as file:
            for number, episode_id in enumerate(survey.ids):
                _write(file.create_group(f"episode_{number}"), store, survey, number, episode_id)
                done(number + 1)
        (folder / "data" / FACTS).write_text(json.dumps(_facts(store, survey)), encoding="utf-8")

    def again(self, survey: Survey, folder: Path) -> Sequence[str]:
        """See Exporter."""
        del folder
        return ["--option", f"fps={survey.fps:.12g}"]


def _write(group: Any, store: EpisodeStore, survey: Survey, number: int, episode_id: str) -> None:
    """One episode."""
    tracks, reader, frame = store.tracks(episode_id), store.frames(episode_id), store.frame_spec
    group.attrs.update({"id": number, "total_steps": tracks.num_steps, "seed": tracks.seed, TASK: tracks.task})
    shape = (frame.height, frame.width, 3)
    together = min(tracks.num_frames, max(1, CHUNK_BYTES // int(np.prod(shape))))
    frames = group.create_dataset(
        "observations",
        (tracks.num_frames, *shape),
        np.uint8,
        chunks=(together, *shape),
        compression="gzip",
        compression_opts=1,
    )
    row = 0
    for piece in pieces(reader):
        frames[row : row + len(piece)] = piece
        row += len(piece)
    ended, cut_off = ends_of(tracks)
    last = np.arange(tracks.num_steps) == tracks.num_steps - 1
    group["rewards"], group["terminations"], group["truncations"] = tracks.rewards, last & ended, last & cut_off
    for path, values in _actions(store.action_spec, tracks).items():
        group[path] = values
    if survey.unlabelled:
        group[f"{INFOS}/{VALID}"] = _came(tracks.action_valid)
    for name in survey.events:
        group[f"{INFOS}/{EVENTS}/{name}"] = _came(tracks.event(name))


def _came(values: np.ndarray) -> np.ndarray:
    """Values of the steps (T,) as infos (F,): nothing came with the first frame."""
    return np.insert(values, 0, np.zeros((), values.dtype))


def _actions(spec: ActionSpec, tracks: Tracks) -> dict[str, np.ndarray]:
    """Values by path in the episode's group, each in the type of its space."""
    found = {}
    for part in spec.components:
        values = tracks.actions[:, spec.slices()[part.name]]
        if part.type == "categorical":
            values = values[:, 0].astype(np.int64)
        elif part.type == "binary":
            values = values.astype(np.int8)
        else:
            values = values.astype(np.float64)
        found["/".join(["actions", *_keys(spec, part)])] = values
    return found


# ---------------------------------------------------------------- what it says of itself


def _keys(spec: ActionSpec, part: ActionComponent) -> tuple[str, ...]:
    """Keys that lead to a component; none where it is the whole action and named like it."""
    return () if len(spec.components) == 1 and part.name == WHOLE else part_keys(part.name)


def _require_names(parts: Sequence[ActionComponent]) -> None:
    """Refuse names of which no paths can be made.

    Raises:
        InputError: names the first one.
    """
    paths = [part_keys(part.name) for part in parts]
    for part, keys in zip(parts, paths, strict=True):
        inside = any(other[: len(keys)] == keys for other in paths if other is not keys)
        if inside or any(key in ("", ".") or "/" in key for key in keys):
            raise InputError(
                f"Minari cannot hold an action component of the name {part.name!r}"
                + (": others lie within it" if inside else ""),
                hint="export to video or lerobot, which hold any name",
            )


def _facts(store: EpisodeStore, survey: Survey) -> dict[str, Any]:
    """The content of metadata.json."""
    frame = store.frame_spec
    shape = (frame.height, frame.width, 3)
    pictures = spaces.Box(0, 255, shape, np.uint8)
    return {
        "dataset_id": f"{ODD.sub('_', store.env).strip('_') or 'recordings'}-v0",
        "total_episodes": len(survey.ids),
        "total_steps": survey.steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(_said(pictures)),
        "action_space": json.dumps(_action_space(store.action_spec)),
        "minari_version": VERSION,
    }


def _action_space(spec: ActionSpec) -> dict[str, Any]:
    """The action space as Minari writes spaces."""
    top: dict[str, Any] = {"type": "Dict", "subspaces": {}}
    for part in spec.components:
        keys = _keys(spec, part)
        if not keys:
            return _said(_space(part))
        inner = top
        for key in keys[:-1]:
            inner = inner["subspaces"].setdefault(key, {"type": "Dict", "subspaces": {}})
        inner["subspaces"][keys[-1]] = _said(_space(part))
    return top


def _space(part: ActionComponent) -> spaces.Space[Any]:
    if part.type == "categorical":
        assert part.num_classes is not None
        return spaces.Discrete(part.num_classes)
    if part.type == "binary":
        return spaces.MultiBinary(part.dim)
    assert part.low is not None and part.high is not None
    return spaces.Box(part.low, part.high, (part.dim,), np.float64)


def _said(space: spaces.Space[Any]) -> dict[str, Any]:
    """A space that holds no others."""
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "dtype": "int64", "start": int(space.start), "n": int(space.n)}
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "n": space.n}
    assert isinstance(space, spaces.Box)
    low, high = space.low.tolist(), space.high.tolist()
    return {"type": "Box", "dtype": str(space.dtype), "shape": list(space.shape), "low": low, "high": high}
