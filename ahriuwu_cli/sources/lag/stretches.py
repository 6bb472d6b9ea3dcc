"""Which frames the lag is measured on: stretches of episodes, drawn at random, small, with the actions around them.

Shapes: N pairs of frames, F frames of all stretches, h x w their pixels made small, S shifts, P parts, U units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.episodes.frames import to_frame
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.lag.parts import UNKNOWN, Part, changed, parts_of

FURTHEST = 10
"""Steps that an action may be noted too early or too late."""
SHIFTS = np.arange(-FURTHEST, FURTHEST + 1)
SHORTEST = 2 * FURTHEST + 2
"""Steps of an episode that is looked at."""
MOST_EPISODES = 600
"""Whose actions are read."""
FEWEST_EPISODES = 8
"""Of fewer, stretches are what is drawn anew for the intervals."""
FEWEST_UNITS = 6
"""Episodes or stretches, of which something can be told."""
PIXELS = 32
"""Of the longer side of a frame, at most."""


@dataclass(frozen=True)
class Amount:
    """How much is read.

    Attributes:
        pairs: of frames, at most about so many.
        length: steps of a stretch.
    """

    pairs: int
    length: int


@dataclass(frozen=True)
class Pairs:
    """Pairs of frames that follow on each other, and the actions noted around them.

    Attributes:
        frames: (F, h, w, 3) uint8.
        first: (N,) place in `frames` of the first of each pair; the second is next to it.
        classes: (N, S, P) int16 of the action noted at the first frame's step plus each shift; UNKNOWN where none is.
        edges: (N, S, P) bool, whether the action changes before or after that step.
        unit: (N,) which of the independent pieces of play it is from.
        fold: (N,) 0 or 1 by episode where it may be fitted, -1 where it is held out.
        parts: P.
        episodes: how many they are from.
        by_episode: a unit is an episode; else a stretch.
    """

    frames: np.ndarray
    first: np.ndarray
    classes: np.ndarray
    edges: np.ndarray
    unit: np.ndarray
    fold: np.ndarray
    parts: tuple[Part, ...]
    episodes: int
    by_episode: bool


@dataclass(frozen=True)
class _Stretch:
    episode: int  # place among those drawn
    start: int
    stop: int  # steps; frames up to and with this one


def draw(store: EpisodeStore, amount: Amount, seed: int, progress: Callable[[float], None]) -> Pairs:
    """Draw stretches from all episodes alike and read them, one at a time.

    Args:
        store: episodes.
        amount: how much is read.
        seed: of what is drawn.
        progress: told which share is read.

    Raises:
        DataError: there is not enough to measure on: see the message.
        ArtifactError: an episode cannot be read.
    """
    rng = np.random.default_rng(seed)
    records = [record for record in store.episodes if record.num_steps >= SHORTEST]
    if not records:
        longest = max((record.num_steps for record in store.episodes), default=0)
        raise DataError(
            f"{store.folder}: the longest of {store.num_episodes} episodes has {longest} steps; "
            f"expected some with {SHORTEST} or more",
            hint="record or import longer ones",
        )
    order = rng.permutation(len(records))[:MOST_EPISODES]
    chosen = [records[place] for place in sorted(order)]
    tracks = [store.tracks(record.id) for record in chosen]
    labelled = [track.action_valid for track in tracks]
    if not any(valid.any() for valid in labelled):
        raise DataError(
            f"{store.folder}: no step has a known action; there is no lag to measure",
            hint="import recordings with actions",
        )
    stretches = _places(labelled, amount, rng)
    folds = _folds([record.split == "train" for record in chosen], stretches)
    if len(folds) < 2 or not any(fold >= 0 for fold in folds.values()):
        raise DataError(
            f"{store.folder}: {len(folds)} of {store.num_episodes} episodes have {SHORTEST} steps or more and known "
            f"actions, {sum(fold >= 0 for fold in folds.values())} of them to be trained on; expected two, one to be "
            "trained on: what is learnt of one is tried on another",
            hint="record or import more",
        )
    parts = parts_of(store.action_spec, [track.actions for track in tracks], labelled)
    if not parts:
        raise DataError(
            f"{store.folder}: no action changes often enough to tell when it was taken",
            hint="record or import play in which somebody acts",
        )
    if max(len(folds), len(stretches)) < FEWEST_UNITS:
        raise DataError(
            f"{store.folder}: {len(folds)} episodes are {len(stretches)} stretches of at most {amount.length} steps; "
            f"expected {FEWEST_UNITS} or more",
            hint="record or import more",
        )
    codes = [
        np.stack([part.encode(track.actions, track.action_valid) for part in parts])  # (P, T)
        for track in tracks
    ]
    return _read(store, [record.id for record in chosen], folds, codes, stretches, tuple(parts), progress)


def _places(labelled: Sequence[np.ndarray], amount: Amount, rng: np.random.Generator) -> list[_Stretch]:
    """Stretches with known actions, as many from one episode as from another while there are any, in order."""
    ranked: list[tuple[int, float, _Stretch]] = []
    for episode, valid in enumerate(labelled):
        steps = len(valid)
        count = max(1, steps // amount.length)
        length = min(steps, amount.length)
        offset = int(rng.integers(steps - count * length + 1))
        starts = offset + length * np.arange(count)
        known = [int(start) for start in starts if valid[start : start + length].any()]
        for rank, place in enumerate(rng.permutation(len(known))):
            start = known[place]
            ranked.append((rank, float(rng.random()), _Stretch(episode, start, start + length)))
    ranked.sort(key=lambda entry: entry[:2])
    ends = np.cumsum([stretch.stop - stretch.start for _, _, stretch in ranked])
    taken = [stretch for _, _, stretch in ranked[: int(np.searchsorted(ends, amount.pairs)) + 1]]
    return sorted(taken, key=lambda stretch: (stretch.episode, stretch.start))


def _folds(train: Sequence[bool], stretches: Sequence[_Stretch]) -> dict[int, int]:
    """By episode: 0 and 1 in turn where it may be fitted, -1 where it is held out."""
    drawn = sorted({stretch.episode for stretch in stretches})
    fitted = [episode for episode in drawn if train[episode]]
    return dict.fromkeys(drawn, -1) | {episode: place % 2 for place, episode in enumerate(fitted)}


def _read(
    store: EpisodeStore,
    ids: Sequence[str],
    folds: dict[int, int],
    codes: Sequence[np.ndarray],
    stretches: Sequence[_Stretch],
    parts: tuple[Part, ...],
    progress: Callable[[float], None],
) -> Pairs:
    spec = store.frame_spec
    scale = max(1.0, max(spec.height, spec.width) / PIXELS)
    size = round(spec.height / scale), round(spec.width / scale)
    by_episode = len(folds) >= FEWEST_EPISODES
    frames, first, classes, edges, unit, fold = [], [], [], [], [], []
    count = 0
    for number, stretch in enumerate(stretches):
        progress(number / len(stretches))
        read = store.frames(ids[stretch.episode]).read(stretch.start, stretch.stop + 1)
        frames.append(np.stack([to_frame(frame, *size) for frame in read]))
        steps = stretch.stop - stretch.start
        first.append(count + np.arange(steps))
        count += steps + 1
        padded = np.pad(codes[stretch.episode], ((0, 0), (FURTHEST, FURTHEST)), constant_values=UNKNOWN)
        places = stretch.start + np.arange(steps)[:, None] + (SHIFTS + FURTHEST)  # (n, S)
        classes.append(padded[:, places].transpose(1, 2, 0))
        edges.append(changed(padded)[:, places].transpose(1, 2, 0))
        unit.append(np.full(steps, stretch.episode if by_episode else number))
        fold.append(np.full(steps, folds[stretch.episode]))
    return Pairs(
        frames=np.concatenate(frames),
        first=np.concatenate(first),
        classes=np.concatenate(classes),
        edges=np.concatenate(edges),
        unit=np.concatenate(unit),
        fold=np.concatenate(fold),
        parts=parts,
        episodes=len(folds),
        by_episode=by_episode,
    )
