"""Plays that are there twice: in train and held out, to the pixel or nearly, and frames that belong to another play.

Shapes: T steps, F = T + 1 frames, H x W pixels.

One changed pixel gives a file another hash, so near copies are looked for by what survives it: the sequence of actions
and rewards, and a few single frames. What these bring together is compared pixel by pixel. What was encoded
anew, at another quality or size, is found by how it looks (sources/lookalikes.py).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from ahriuwu_cli.core.errors import AhriuwuError
from ahriuwu_cli.doctor.findings import Area, counted, first_few
from ahriuwu_cli.episodes.episode import Tracks
from ahriuwu_cli.episodes.manifest import EpisodeRecord
from ahriuwu_cli.episodes.reading import FrameReader, pieces
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.lookalikes import Lookalikes

NUM_FRAMES = 8
"""Single frames by which an episode is known."""
MIN_SHARED = NUM_FRAMES // 2
"""Of these, as many must be equal for two episodes to be compared."""
MAX_ALIKE = 8
"""A frame that more episodes have at the same place tells nothing about them."""
MAX_COMPARED = 500
"""Pairs that are compared at most; more alike than that is a game in which most plays are."""
MAX_CHANGED = 1e-3
"""Share of the values of all frames that a near copy may differ in."""
MIN_STEPS = 8
"""Decision: in fewer steps, actions that change nothing can give two plays the same frames."""
OTHER_ACTIONS = 0.25
"""Share of actions that must differ for equal frames to be called those of another play."""


@dataclass
class Plays:
    """What all episodes are known by. `take` each, then `judge`."""

    exact: dict[bytes, set[str]] = field(default_factory=lambda: defaultdict(set))  # content -> splits it is in
    lookalikes: Lookalikes = field(default_factory=Lookalikes)
    _records: dict[str, EpisodeRecord] = field(default_factory=dict)
    _by_play: dict[bytes, list[str]] = field(default_factory=lambda: defaultdict(list))
    _by_frame: dict[tuple[int, int, bytes], list[str]] = field(default_factory=lambda: defaultdict(list))

    def take(self, record: EpisodeRecord, tracks: Tracks, frames: FrameReader) -> bool:
        """Remember an episode by a few hashes; says whether something moves in it."""
        self._records[record.id] = record
        self._by_play[_hash(tracks.actions, tracks.rewards)].append(record.id)
        count, digest, moves, row = len(frames), hashlib.sha256(), False, 0
        places = np.linspace(1, count - 1, NUM_FRAMES).round().astype(int).tolist()
        first = frames.read(0, 1)
        for piece in self.lookalikes.watch(record.id, count, pieces(frames)):
            digest.update(piece.tobytes())
            moves = moves or bool((piece != first).any())
            for place in [place for place in places if row <= place < row + len(piece)]:
                ids = self._by_frame[count, place, _hash(piece[place - row])]
                if record.id not in ids[-1:] and len(ids) <= MAX_ALIKE:
                    ids.append(record.id)
            row += len(piece)
        digest.update(_hash(tracks.actions))
        self.exact[digest.digest()].add(record.split)
        return moves

    def judge(self, area: Area, store: EpisodeStore) -> None:
        """Pitfall 7: no play is both in train and held out; no play has the frames of another."""
        leaked = sum(len(splits) > 1 for splits in self.exact.values())
        faults = [f"{counted(leaked, 'play')} both in train and heldout, frame by frame"] if leaked else []
        near, foreign = [], []
        likeness: dict[tuple[str, str], str | None] = {}
        for left, right in self._pairs():
            try:
                kind = likeness[left, right] = _likeness(store, left, right)
            except AhriuwuError:
                continue  # damaged: `files` says so
            splits = {self._records[left].split, self._records[right].split}
            if kind == "copy" and len(splits) > 1:
                near.append(f"{left} and {right}")
            elif kind == "foreign":
                foreign.append(f"{left} and {right}")
        if near:
            faults.append(f"but for at most {MAX_CHANGED:.1%} of their pixels the same play: {first_few(near)}")
        hint = "record with other seeds or a less predictable policy"
        area.judge("leaks", faults, "no play is both in train and heldout, nor nearly", hint)
        self._judge_looks(area, store, {frozenset(pair) for pair, kind in likeness.items() if kind == "copy"})
        if foreign:
            area.problem(
                "foreign frames",
                f"episodes with the same frames but other actions: {first_few(foreign)}",
                "one of each has the frames of the other: restore it, or record anew and make what follows again",
            )

    def _judge_looks(self, area: Area, store: EpisodeStore, told: set[frozenset[str]]) -> None:
        """Name the pairs that look alike and were not told of yet."""
        pairs = self.lookalikes.pairs({name: record.split for name, record in self._records.items()})
        pairs = [pair for pair in pairs if frozenset(pair) not in told]
        if pairs:
            area.note(
                "lookalikes",
                f"{counted(len(pairs), 'pair')} in train and heldout that show the same play: "
                + first_few([f"{left} and {right}" for left, right in pairs]),
                f"look at them (`ahriuwu data view {store.folder}`); a recording that is there twice is imported once",
            )

    def _pairs(self) -> Iterator[tuple[str, str]]:
        """Pairs of episodes that may be one play, the exact copies apart."""
        shared: dict[tuple[str, str], int] = defaultdict(int)
        for ids in self._by_frame.values():
            if len(ids) <= MAX_ALIKE:
                for pair in combinations(ids, 2):
                    shared[pair] += 1
        pairs = {pair for pair, count in shared.items() if count >= MIN_SHARED or self._is_short(pair[0])}
        for ids in self._by_play.values():
            pairs |= set(combinations(ids[:MAX_ALIKE], 2))
        yield from sorted(pairs)[:MAX_COMPARED]

    def _is_short(self, episode: str) -> bool:
        """True where fewer frames than NUM_FRAMES are there to share."""
        return self._records[episode].num_steps < NUM_FRAMES


def _likeness(store: EpisodeStore, left: str, right: str) -> str | None:
    """`copy`: nearly the same play, though not bit by bit; `foreign`: nearly the same frames, other actions."""
    first, second = store.tracks(left), store.tracks(right)
    if first.num_frames != second.num_frames:
        return None
    pairs = zip(pieces(store.frames(left)), pieces(store.frames(right)), strict=True)
    spec = store.frame_spec
    values, changed = first.num_frames * spec.height * spec.width * 3, 0
    for one, two in pairs:
        changed += int((one != two).sum())
        if changed > MAX_CHANGED * values:
            return None
    other = float((first.actions != second.actions).any(axis=1).mean())
    if other == 0 and np.array_equal(first.rewards, second.rewards):
        return "copy" if changed else None
    return "foreign" if first.num_steps >= MIN_STEPS and other >= OTHER_ACTIONS else None


def _hash(*arrays: np.ndarray) -> bytes:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()
