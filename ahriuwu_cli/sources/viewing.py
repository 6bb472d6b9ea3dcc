"""`ahriuwu data view`: a contact sheet of episodes, and clips with what was done and what came back written on them.

Shapes: R episodes (rows), C frames of each (columns), H x W pixels, H' x W' of what is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.lock import contents
from ahriuwu_cli.core.pictures.captions import captioned, shortened
from ahriuwu_cli.core.pictures.style import BACKGROUND, Frames, font_of
from ahriuwu_cli.core.pictures.tiles import evenly_spaced, side_by_side, wrapped
from ahriuwu_cli.core.pictures.writing import write_gif, write_mp4, write_png
from ahriuwu_cli.core.progress import tracked
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.episodes.frames import to_frame
from ahriuwu_cli.episodes.manifest import EpisodeRecord
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.moments import Moment, Wording, moments

EPISODES = 6
MOST_EPISODES = 64
STEPS = 200
SHEET_COLUMNS = 8
SHEET_SIZE = (128, 160)  # height and width of a frame of the sheet, about
CLIP_SIZE = (256, 360)
CLIP_WIDTH = 360  # of the lines of text at the least
GIF_FRAMES = 201
"""A GIF is drawn with one palette for all its frames, so they are in memory: it has the first ones of a longer clip."""
PIECE = 32  # frames in memory while a clip is written
SHEET_NAME = "sheet.png"


@dataclass(frozen=True)
class Part:
    """What is shown of an episode: frames `start` to `stop` - 1 (at least one)."""

    record: EpisodeRecord
    start: int
    stop: int


def view(
    folder: Path,
    ids: Sequence[str] = (),
    out: Path | None = None,
    *,
    count: int = EPISODES,
    split: str | None = None,
    start: int = 0,
    steps: int = STEPS,
) -> Report:
    """Draw a contact sheet of some episodes, and an MP4 and a GIF of each.

    Memory holds one part of an episode's frames at a time, however long it is.

    Args:
        folder: the store.
        ids: the episodes; without any, `count` of the store, evenly spread.
        out: folder of the pictures, made anew; None for STORE-view beside the store.
        count: how many episodes, 1..64.
        split: only episodes of "train" or "heldout".
        start: first frame shown.
        steps: how many steps from there, at most.

    Raises:
        InputError: nothing is there, no such episode, nothing to show in the part asked for, or `out` holds something.
        ArtifactError: no readable store, or a damaged episode.
        StorageError: the pictures cannot be written.
    """
    store = EpisodeStore.open(folder)
    parts = _chosen(store, ids, count, split, start, steps)
    out = folder.with_name(f"{folder.resolve().name}-view") if out is None else out
    if out.exists() and (not out.is_dir() or contents(out)):
        raise InputError(
            f"{out} is not an empty folder; the pictures need one", hint="give another folder with --out, or remove it"
        )
    wording = Wording(store.action_spec)
    write_png(out / SHEET_NAME, sheet(store, parts, wording))
    for part in tracked("data view", parts, "episodes"):
        write_clip(out, store, part, wording)
    return _report(store, parts, out)


def _chosen(
    store: EpisodeStore, ids: Sequence[str], count: int, split: str | None, start: int, steps: int
) -> list[Part]:
    for name, value, lowest, highest in (
        ("--count", count, 1, MOST_EPISODES),
        ("--start", start, 0, None),
        ("--steps", steps, 1, None),
    ):
        if value < lowest or (highest is not None and value > highest):
            wanted = f"at least {lowest}" if highest is None else f"{lowest} to {highest}"
            raise InputError(f"{name} is {value}; expected {wanted}", hint=f"leave {name} out for the usual")
    if split not in (None, "train", "heldout"):
        raise InputError(f"--split is {split!r}; expected train or heldout", hint="leave --split out for both")
    if not store.episodes:
        raise InputError(f"{store.folder} has no episodes; there is nothing to look at", hint="record or import some")
    if ids:
        records = [store.record(episode_id) for episode_id in dict.fromkeys(ids)]
        if others := [record.id for record in records if split not in (None, record.split)]:
            raise InputError(f"episode {others[0]} is not in {split}", hint="leave --split out")
    else:
        records = [record for record in store.episodes if split in (None, record.split)]
        if not records:
            raise InputError(f"{store.folder} has no {split} episodes", hint="leave --split out")
    long_enough = [record for record in records if record.num_steps > start]
    if not long_enough or (ids and len(long_enough) < len(records)):
        short = max((record for record in records if record.num_steps <= start), key=lambda record: record.num_steps)
        raise InputError(
            f"episode {short.id} has {short.num_steps} steps; --start is {start}",
            hint=f"start below {short.num_steps}",
        )
    chosen = long_enough if ids else [long_enough[place] for place in evenly_spaced(len(long_enough), count)]
    return [Part(record, start, min(start + steps, record.num_steps) + 1) for record in chosen]


# ---------------------------------------------------------------- the sheet


def sheet(store: EpisodeStore, parts: Sequence[Part], wording: Wording) -> Frames:
    """A row for each of R parts, C of its frames evenly spread, each with what is said of it: (H', W', 3) uint8."""
    spec = store.frame_spec
    height, width, scale = _fitted(spec.height, spec.width, SHEET_SIZE)
    text_width = max(width * scale, SHEET_SIZE[1])
    tiles: list[np.ndarray] = []
    captions: list[tuple[str, ...]] = []
    for part in tracked("data view: sheet", parts, "episodes"):
        reader, places = store.frames(part.record.id), evenly_spaced(part.stop - part.start, SHEET_COLUMNS)
        known = store.tracks(part.record.id)
        for place in places:
            frame = part.start + place
            [moment] = moments(known, frame, frame + 1)
            action, came = wording.short(moment)
            first, *rest = wrapped(action, font_of(), text_width)
            lines = (f"{frame}  {moment.seconds:.2f} s", first, " ".join(rest), came)
            tiles.append(to_frame(reader.read(frame, frame + 1)[0], height, width))
            captions.append(tuple(shortened(line, text_width) for line in lines))
        missing = SHEET_COLUMNS - len(places)
        tiles += [np.full((height, width, 3), BACKGROUND, np.uint8)] * missing
        captions += [("", "", "", "")] * missing
    if not any(second for _, _, second, _ in captions):
        captions = [(time, action, came) for time, action, _, came in captions]
    drawn = np.stack(list(captioned(tiles, captions, scale=scale, under=True, bar=False)))  # (R*C, H', W', 3)
    rows = drawn.reshape(len(parts), SHEET_COLUMNS, 1, *drawn.shape[1:])
    columns = {f"{round(100 * place / (SHEET_COLUMNS - 1))} %": rows[:, place] for place in range(SHEET_COLUMNS)}
    names = [f"{part.record.id} {part.record.split}" for part in parts]
    picture: Frames = side_by_side(columns, scale=1, row_names=names)[0]
    return picture


# ---------------------------------------------------------------- clips


def write_clip(out: Path, store: EpisodeStore, part: Part, wording: Wording) -> None:
    """Write ID.mp4 and ID.gif of a part of an episode; frames pass through memory PIECE by PIECE."""
    spec, name = store.frame_spec, part.record.id
    height, width, scale = _fitted(spec.height, spec.width, CLIP_SIZE)
    said = moments(store.tracks(name), part.start, part.stop)
    text_width = max(width * scale, CLIP_WIDTH)
    captions = [wording.caption(moment, _title(part.record, moment), text_width) for moment in said]
    kept: list[Frames] = []

    def pictures() -> Iterator[Frames]:
        for picture in captioned(_read(store, part, height, width), captions, scale=scale, under=True):
            if len(kept) < GIF_FRAMES:
                kept.append(picture)
            yield picture

    write_mp4(out / f"{name}.mp4", pictures(), spec.fps)
    write_gif(out / f"{name}.gif", np.stack(kept), spec.fps)


def _read(store: EpisodeStore, part: Part, height: int, width: int) -> Iterator[Frames]:
    reader = store.frames(part.record.id)
    for first in range(part.start, part.stop, PIECE):
        for frame in reader.read(first, min(first + PIECE, part.stop)):
            yield to_frame(frame, height, width)


def _title(record: EpisodeRecord, moment: Moment) -> str:
    return f"{record.id}   frame {moment.frame} of {record.num_steps}   {moment.seconds:.3f} s"


def _fitted(height: int, width: int, size: tuple[int, int]) -> tuple[int, int, int]:
    """Height and width that a frame is brought to, and the whole number of times that it is then enlarged."""
    share = min(size[0] / height, size[1] / width)
    if share >= 1:
        return height, width, int(share)
    return max(1, round(height * share)), max(1, round(width * share)), 1


# ---------------------------------------------------------------- what is said of it


def _report(store: EpisodeStore, parts: Sequence[Part], out: Path) -> Report:
    rows = [
        [
            part.record.id,
            part.record.split,
            str(part.record.num_steps),
            f"{part.start} .. {part.stop - 1}",
            f"{name}.mp4, {name}.gif",
        ]
        for part in parts
        for name in [part.record.id]
    ]
    cut = [part for part in parts if part.stop - part.start > GIF_FRAMES]
    return Report(
        title=f"{len(parts)} of {store.num_episodes} episodes of {store.env}",
        columns=("episode", "split", "steps", "frames shown", "clips"),
        rows=rows,
        data={
            "folder": str(out),
            "sheet": str(out / SHEET_NAME),
            "episodes": [
                {
                    "id": part.record.id,
                    "split": part.record.split,
                    "start": part.start,
                    "stop": part.stop,
                    "mp4": str(out / f"{part.record.id}.mp4"),
                    "gif": str(out / f"{part.record.id}.gif"),
                    "gif_frames": min(part.stop - part.start, GIF_FRAMES),
                }
                for part in parts
            ],
        },
        notes=[
            f"in {out}; {SHEET_NAME} has all of them",
            "at each frame: the action taken on seeing it; reward and events that arrived with it",
            *([f"a GIF has the first {GIF_FRAMES} frames of a longer clip"] if cut else []),
        ],
    )
