"""Episodes that show the same play, however they were encoded: found by a difference hash of a few of their frames.

Shapes: K sketched frames of an episode, C = SIDE * SIDE values of one.

A frame's hash is how the brightness of SIDE x SIDE cells changes to the right. Unlike the usual difference hash it
keeps by how much: what is the same in all frames of an episode is taken off, so that plays of one game are told apart
by what moves, and what an encoder does to the background does not count. Two episodes are apart by 1 minus the
correlation of what is left. Sketched are frames 0, s, 2 s, ... with s a power of two, so that copies of somewhat
different length have the same ones; nothing else is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from ahriuwu_cli.core.errors import AhriuwuError
from ahriuwu_cli.episodes.frames import to_frame
from ahriuwu_cli.episodes.reading import FrameReader
from ahriuwu_cli.episodes.store import EpisodeStore

SIDE = 16
FEWEST, MOST = 16, 32
"""Frames of an episode that are sketched, where it has so many; below MOST."""
OTHER_LENGTH = 0.1
"""Share by which the lengths of two episodes may differ that are compared."""
SAME = 0.1
"""How far apart episodes may be that are called alike."""
OF_USUAL = 0.25
"""And as a share of how far apart two episodes of the store usually are."""
ENOUGH = 20
"""Pairs from which on it is known how far that is."""
STILL = 0.5
"""Mean square of what moves, below which nothing does: such episodes are not compared."""
SOME = 4096
"""Pairs of a comparison that are looked at to know how far apart they usually are."""
SAMPLED = 100
"""Episodes of before that those of an import are compared with; to look at all of them is the doctor's."""
SHOWN = 5
"""Pairs that are told one by one."""
AT_ONCE = 512
"""Episodes of each side that are compared together: so many take 17 MB."""


class Sketch:
    """The hashes of an episode's frames.

    Args:
        num_frames: of the episode.
    """

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames
        self.stride = 1 << max(0, (max(1, num_frames) // FEWEST).bit_length() - 1)
        self._row = 0
        self._hashes: list[np.ndarray] = []

    @property
    def places(self) -> range:
        """Numbers of the frames that are sketched."""
        return range(0, self.num_frames, self.stride)

    def add(self, frames: np.ndarray) -> None:
        """Take the next frames (n, H, W, 3) uint8."""
        start = -self._row % self.stride
        for frame in frames[start :: self.stride]:
            self.add_hash(frame)
        self._row += len(frames)

    def add_hash(self, frame: np.ndarray) -> None:
        """Take the next of the frames that are sketched (H, W, 3) uint8."""
        self._hashes.append(_hash(frame))

    def hashes(self, stride: int) -> np.ndarray:
        """Of frames 0, stride, 2 stride, ... (K, C) int8; `stride` is a multiple of its own."""
        return np.stack(self._hashes[:: stride // self.stride])


def _hash(frame: np.ndarray) -> np.ndarray:
    """How brightness changes to the right (C,) int8, in steps of 2."""
    grey = to_frame(frame, SIDE, SIDE + 1).astype(np.int16).sum(axis=2)  # (SIDE, SIDE + 1), three times brightness
    changes: np.ndarray = np.diff(grey, axis=1) // 6
    return changes.astype(np.int8).reshape(-1)


@dataclass(frozen=True)
class _Group:
    """Episodes of one side of the split, at one stride."""

    names: list[str]
    strides: np.ndarray  # (n,) their own
    lengths: np.ndarray  # (n,)
    values: np.ndarray  # (n, MOST * C) float32, without what is in all frames; zero where there is no frame
    there: np.ndarray  # (n, MOST) 1 where there is one
    energy: np.ndarray  # (n, MOST) sums of squares of each frame


class Lookalikes:
    """Sketches of a store's episodes; `take` or `watch` each, then ask for `pairs`."""

    def __init__(self) -> None:
        self._sketches: dict[str, Sketch] = {}

    @property
    def known(self) -> set[str]:
        """Episodes that were sketched."""
        return set(self._sketches)

    def sample(self, episode: str, frames: FrameReader) -> None:
        """Sketch a stored episode; only the frames that are needed are read.

        Raises:
            ArtifactError, DataError: it is missing or damaged.
        """
        sketch = Sketch(len(frames))
        for place in sketch.places:
            sketch.add_hash(frames.read(place, place + 1)[0])
        self._sketches[episode] = sketch

    def watch(self, episode: str, num_frames: int, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The pieces of an episode, sketched as they pass."""
        sketch = Sketch(num_frames)
        for piece in pieces:
            sketch.add(piece)
            yield piece
        self._sketches[episode] = sketch

    def pairs(self, splits: Mapping[str, str]) -> list[tuple[str, str]]:
        """Episodes on both sides of the split that show the same play, the likest first.

        Args:
            splits: of every episode that counts; those that were not sketched are passed over.
        """
        sides: dict[str, list[str]] = defaultdict(list)
        for episode in sorted(self._sketches.keys() & splits.keys()):
            sides[splits[episode]].append(episode)
        if len(sides) < 2:
            return []
        few, many = sorted(sides.values(), key=len)[:2]
        found: list[tuple[float, str, str]] = []
        usual: list[np.ndarray] = []
        for stride in sorted({self._sketches[episode].stride for episode in few + many}):
            for one in self._groups(few, stride):
                for other in self._groups(many, stride):
                    found += _near(one, other, stride, usual)
        number = sum(map(len, usual))
        limit = min(SAME, OF_USUAL * float(np.median(np.concatenate(usual)))) if number >= ENOUGH else SAME
        return [(left, right) for apart, left, right in sorted(found) if apart <= limit]

    def _groups(self, episodes: list[str], stride: int) -> Iterator[_Group]:
        """Those of the episodes that are known at a stride: their own, or half of it."""
        names = [each for each in episodes if self._sketches[each].stride in (stride, stride // 2)]
        for start in range(0, len(names), AT_ONCE):
            yield self._group(names[start : start + AT_ONCE], stride)

    def _group(self, names: list[str], stride: int) -> _Group:
        sketches = [self._sketches[each] for each in names]
        values = np.zeros((len(names), MOST, SIDE * SIDE), np.float32)
        there = np.zeros((len(names), MOST), np.float32)
        for row, sketch in enumerate(sketches):
            hashes = sketch.hashes(stride)
            values[row, : len(hashes)], there[row, : len(hashes)] = hashes - hashes.mean(axis=0), 1
        return _Group(
            names,
            np.array([sketch.stride for sketch in sketches]),
            np.array([sketch.num_frames for sketch in sketches]),
            values.reshape(len(names), MOST * SIDE * SIDE),
            there,
            np.square(values).sum(axis=2),
        )


def _near(left: _Group, right: _Group, stride: int, usual: list[np.ndarray]) -> Iterator[tuple[float, str, str]]:
    """Pairs that may be alike, with how far apart they are; `usual` takes that of some pairs."""
    common = left.there @ right.there.T
    energies = left.energy @ right.there.T, left.there @ right.energy.T  # of the frames that both have
    moving = np.minimum(*energies) / np.maximum(common, 1)
    lengths = np.maximum(left.lengths[:, None], right.lengths[None])
    fits = (np.abs(left.lengths[:, None] - right.lengths[None]) <= OTHER_LENGTH * lengths) & (moving > STILL)
    # pairs of two episodes that both have half the stride are those of another call
    fits &= np.maximum(left.strides[:, None], right.strides[None]) == stride
    product = left.values @ right.values.T
    apart = 1 - product / np.sqrt(np.maximum(energies[0] * energies[1], 1))
    if fits.any():
        usual.append(apart[fits][:: max(1, int(fits.sum()) // SOME)])
    for row, column in np.argwhere(fits & (apart <= SAME)).tolist():
        yield float(apart[row, column]), left.names[row], right.names[column]


def compared(store: EpisodeStore, fresh: Lookalikes) -> tuple[list[tuple[str, str]], int]:
    """Pairs on both sides of the split with an episode that was just stored, and how many were not looked at.

    Args:
        store: with all episodes.
        fresh: has the sketches of those that were just stored, and takes those of some others.
    """
    splits = {record.id: record.split for record in store.episodes}
    new = fresh.known & splits.keys()
    if not new:
        return [], 0
    others = [record.id for record in store.episodes if record.id not in new]
    for episode in others[-SAMPLED:]:
        with suppress(AhriuwuError):  # one that is damaged is the doctor's to tell
            fresh.sample(episode, store.frames(episode))
    pairs = [pair for pair in fresh.pairs(splits) if new & set(pair)]
    return pairs, max(0, len(others) - SAMPLED)


def twice(store: EpisodeStore, pairs: Sequence[tuple[str, str]], unseen: int) -> list[str]:
    """What is to be told of pairs, with the recordings that they are from, and of episodes that were not looked at."""
    records = {record.id: record for record in store.episodes}
    lines = []
    for pair in pairs[:SHOWN]:
        left, right = (
            f"{each} ({records[each].split}{'' if (origin := records[each].origin) is None else f', {origin.name}'})"
            for each in pair
        )
        lines.append(f"{left} and {right} show the same play: one of them does not belong in the store")
    if len(pairs) > SHOWN:
        lines.append(f"and {len(pairs) - SHOWN} more such pairs (--json has all)")
    if unseen:
        lines.append(f"{unseen} older episodes were not looked at for the same play; `ahriuwu doctor` looks at all")
    return lines
