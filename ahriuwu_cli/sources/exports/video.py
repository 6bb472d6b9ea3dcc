"""Format `video`: an MP4 file and a CSV file for each episode, and the map.toml that takes them back.

Shapes: T steps of an episode, F = T + 1 frames, H x W pixels.

The MP4 is H.264 in RGB, without loss up to 64x64 pixels and at CRF 12 beyond (episodes/video.py). Where all frames of
the store come every 1/fps seconds their time stamps are whole numbers of that; else they are microseconds, to which
times are rounded. The CSV has a row for each frame: its time, whether the action taken on seeing it is known, that
action, and the reward, events and end that came back with the next frame. Actions, rewards and events come back bit
for bit; an event that an episode does not have comes back as zeros, which means the same.

What the format cannot hold, beside what none can (survey.py): names of classes where two are alike but for capitals;
that a component has no rule for several actions between two frames (it comes back with the usual one).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.core.toml import key_text, value_text
from ahriuwu_cli.episodes.episode import Tracks
from ahriuwu_cli.episodes.reading import PIECE
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.episodes.video import VideoWriter
from ahriuwu_cli.sources.exports.protocol import Done
from ahriuwu_cli.sources.exports.survey import MICROSECOND, Survey, ends_of, since_start, stamps_of, unit_of

MAP_NAME = "map.toml"
TIME, KNOWN, REWARD, TERMINAL, TASK = "time", "known", "reward", "terminal", "task"
ODD = re.compile(r"[^\w./~-]+")
"""What column names do not have, so that every table reads them as they are."""
CONTINUOUS_RULE = "mean"
"""For continuous components without a rule: an environment holds its action from one frame to the next."""


class VideoExporter:
    """See Exporter."""

    FORMAT = "video"
    SAYS = "an MP4 file and a CSV file for each episode, with a mapping for `data import video`"

    def losses(self, store: EpisodeStore, survey: Survey) -> Sequence[str]:
        """See Exporter."""
        said = []
        nameless = [part.name for part in store.action_spec.components if part.labels and not _labels(part)]
        if nameless:
            said.append(f"names of the choices of {', '.join(nameless)}: text in a table would not tell them apart")
        if survey.uneven:
            said.append("times are rounded to microseconds, for want of an even rate")
        return said

    def write(self, store: EpisodeStore, survey: Survey, folder: Path, done: Done) -> None:
        """See Exporter."""
        columns = _columns(store.action_spec)
        text = _mapping(store.action_spec, columns, survey.events, with_task=bool(survey.tasks))
        (folder / MAP_NAME).write_text(text, encoding="utf-8")
        for number, episode_id in enumerate(survey.ids):
            tracks = store.tracks(episode_id)
            _film(folder / f"{episode_id}.mp4", store, episode_id, tracks, even=not survey.uneven)
            _tabulate(folder / f"{episode_id}.csv", store.action_spec, columns, survey.events, tracks)
            done(number + 1)

    def again(self, survey: Survey, folder: Path) -> Sequence[str]:
        """See Exporter."""
        return ["--map", str(folder / MAP_NAME)]


def _film(path: Path, store: EpisodeStore, episode_id: str, tracks: Tracks, *, even: bool) -> None:
    frame, reader = store.frame_spec, store.frames(episode_id)
    unit = unit_of(frame.fps) if even else MICROSECOND
    stamps = stamps_of(since_start(tracks), unit).tolist()
    with VideoWriter(path, frame.height, frame.width, unit) as writer:
        for start in range(0, len(reader), PIECE):
            stop = min(start + PIECE, len(reader))
            writer.add(reader.read(start, stop), stamps[start:stop])


# ---------------------------------------------------------------- the table


def _tabulate(path: Path, spec: ActionSpec, columns: Sequence[str], events: Sequence[str], tracks: Tracks) -> None:
    header = [TIME, KNOWN, *columns, REWARD, *(_event(name) for name in events), TERMINAL, TASK]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(_rows(spec, events, tracks))


def _rows(spec: ActionSpec, events: Sequence[str], tracks: Tracks) -> Iterator[list[str]]:
    """A row for each frame; nothing was done on seeing the last one, and nothing came back after it."""
    texts = [text for part in spec.components for text in [_text(part)] * part.dim]
    happened = [tracks.event(name) for name in events]
    ended, _ = ends_of(tracks)
    steps, times = tracks.num_steps, since_start(tracks)
    for step in range(steps + 1):
        last = step == steps
        taken = tracks.actions[min(step, steps - 1)]
        came = [0.0] * (1 + len(happened)) if last else [values[step] for values in (tracks.rewards, *happened)]
        yield [
            repr(float(times[step])),
            str(int(not last and bool(tracks.action_valid[step]))),
            *(text(value) for text, value in zip(texts, taken.tolist(), strict=True)),
            *(_number(float(value)) for value in came),
            str(int(last and ended)),
            tracks.task,
        ]


def _text(part: ActionComponent) -> Callable[[float], str]:
    """How a value of a component is written."""
    labels = _labels(part)
    if labels and part.type == "categorical":
        return lambda value: labels[int(value)] if value.is_integer() and 0 <= value < len(labels) else _number(value)
    return _number


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _labels(part: ActionComponent) -> list[str]:
    """Names of classes or switches that a table can tell apart; none where it cannot."""
    labels = list(part.labels)
    if part.type != "categorical":
        return labels
    apart = len({label.lower() for label in labels}) == part.num_classes
    plain = all(label and label == label.strip() and label.isprintable() for label in labels)
    return labels if apart and plain else []


# ---------------------------------------------------------------- the mapping


def _columns(spec: ActionSpec) -> list[str]:
    """A name for every column of an action row."""
    names = [f"action.{ODD.sub('_', part.name)}.{column}" for part in spec.components for column in range(part.dim)]
    return names if len(set(names)) == len(names) else [f"action.{column}" for column in range(spec.dim)]


def _event(name: str) -> str:
    return f"event.{name}"


def _mapping(spec: ActionSpec, columns: Sequence[str], events: Sequence[str], *, with_task: bool) -> str:
    """The mapping file."""
    lines = ["# What the columns of the CSV files are, for `ahriuwu data import video FOLDER --map FOLDER/map.toml`."]
    top: dict[str, Any] = {"suffix": ".csv", "known": KNOWN, "terminal": TERMINAL}
    lines += _pairs(top | ({"task": TASK} if with_task else {}))
    lines += ["", "[reward]", *_pairs({"column": REWARD})]
    for name in events:
        lines += ["", f"[events.{key_text(name)}]", *_pairs({"column": _event(name)})]
    slices = spec.slices()
    for part in spec.components:
        rule = part.aggregate or (CONTINUOUS_RULE if part.type == "continuous" else None)
        values = {
            "name": part.name,
            "type": part.type,
            "columns": list(columns[slices[part.name]]),
            "labels": _labels(part),
            "num_classes": part.num_classes,
            "low": part.low,
            "high": part.high,
            "aggregate": rule,
        }
        lines += ["", "[[actions]]", *_pairs({key: value for key, value in values.items() if value not in (None, [])})]
    return "\n".join(lines) + "\n"


def _pairs(values: dict[str, Any]) -> list[str]:
    return [f"{key} = {value_text(value)}" for key, value in values.items()]
