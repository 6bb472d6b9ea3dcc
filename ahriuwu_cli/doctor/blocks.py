"""Packed latents against what they were packed from: every block recomputed from the recording, every latent compared.

Shapes: K latents of an episode, N latent tokens, C channels.

A shard that was changed and sealed again has right hashes; only its content can say that an action is not the one that
was taken, or that a reward came a step later. Frames are not read for this, so it costs little.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ahriuwu_cli.core.artifact import Kind
from ahriuwu_cli.core.content import require_content
from ahriuwu_cli.core.errors import AhriuwuError
from ahriuwu_cli.core.lineage import is_parent
from ahriuwu_cli.core.tensorfile import read_arrays
from ahriuwu_cli.doctor.checks import Subject
from ahriuwu_cli.doctor.findings import Area, counted
from ahriuwu_cli.episodes.episode import Tracks
from ahriuwu_cli.episodes.events import event_of
from ahriuwu_cli.episodes.files import read_tracks
from ahriuwu_cli.episodes.manifest import EpisodeRecord
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.latents.manifest import PlacedEpisode, read_latents, read_packed
from ahriuwu_cli.latents.pack import blocks_of
from ahriuwu_cli.latents.shards import Shards

KINDS: tuple[Kind, ...] = ("episodes", "latents")
AGAIN = "run `ahriuwu latents pack` again"


def examine_blocks(area: Area, subject: Subject) -> None:
    """Pitfalls 12, 13, 34: packed actions, rewards and ends are those recorded, packed latents those built.

    Episodes and shards that are damaged have a finding elsewhere and are passed over.
    """
    parents = [kind for kind in KINDS if kind in subject.headers]
    if not all(is_parent(subject.header, subject.headers[kind]) for kind in parents):
        return  # `made from` says so
    try:
        packed = read_packed(subject.path)
        shards = Shards(subject.path, packed)
    except AhriuwuError:
        return
    faults, compared = [], 0
    recorded = _recordings(subject) if "episodes" in parents else {}
    built = _latents(subject) if "latents" in parents else {}
    for entry in packed.info.episodes:
        wanted: dict[str, np.ndarray] = {}
        try:
            if entry.id in recorded:
                wanted |= blocks_of(recorded[entry.id](), packed.latent.stride, packed.info.events)
            if entry.id in built:
                wanted["latents"] = built[entry.id]()
            faults += _differences(shards, entry, wanted)
        except AhriuwuError:
            continue
        compared += bool(wanted)
    if compared or faults:
        whose = f"those of {' and '.join(parents)}"
        area.judge("blocks", faults, f"block by block, {counted(compared, 'episode')}: {whose}", AGAIN)


class _Reader:
    """What an episode was, read when it is asked for."""

    def __init__(self, store: EpisodeStore, record: EpisodeRecord) -> None:
        self._store, self._record = store, record

    def __call__(self) -> Tracks:
        """The episode without its frames."""
        return read_tracks(self._store.folder, self._record)


class _LatentReader:
    """The latents of an episode, read when they are asked for."""

    def __init__(self, folder: Path, file: str, sha256: str) -> None:
        self._folder, self._file, self._sha256 = folder, file, sha256

    def __call__(self) -> np.ndarray:
        """(K, N, C)."""
        path = require_content(self._folder, self._file, self._sha256, again="build again")
        return read_arrays(path)["latents"]


def _recordings(subject: Subject) -> Mapping[str, _Reader]:
    store = EpisodeStore.open(subject.run.episodes, settle=False)
    return {record.id: _Reader(store, record) for record in store.episodes}


def _latents(subject: Subject) -> Mapping[str, _LatentReader]:
    entries = read_latents(subject.run.latents).info.episodes
    return {entry.id: _LatentReader(subject.run.latents, entry.file, entry.sha256) for entry in entries}


def _differences(shards: Shards, entry: PlacedEpisode, wanted: Mapping[str, np.ndarray]) -> list[str]:
    """In words: the first block of each array that is not as it should be; those of one episode in one sentence."""
    found = []
    for name, array in wanted.items():
        packed = shards.rows(entry.shard, name, entry.start, entry.start + entry.num_latents)
        if packed.shape != array.shape:
            found.append(f"{name} is {packed.shape}, expected {array.shape}")
        elif not np.array_equal(packed, array):
            different = (packed != array).reshape(len(array), -1).any(axis=1)
            first = int(different.argmax())
            found.append(f"{_plain(name)} of block {first}{_values(packed[first], array[first])}")
    return [f"episode {entry.id}: {'; '.join(found)}"] if found else []


def _plain(name: str) -> str:
    """An array's name in the words of the recording."""
    return event_of(name) or name


def _values(packed: np.ndarray, wanted: np.ndarray) -> str:
    if packed.size > 8:
        return " differ from those that were built"
    return f" is {packed.tolist()}, the recording has {wanted.tolist()}"
