"""Episodes on their way into a store, in whatever order they end: each is on disk, and noted, as soon as it ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ahriuwu_cli.core.lock import is_ours
from ahriuwu_cli.episodes.episode import Tracks
from ahriuwu_cli.episodes.journal import Journal
from ahriuwu_cli.episodes.manifest import Origin, Skipped
from ahriuwu_cli.episodes.store import EpisodeStore

FOLD_EPISODES = 16
"""The journal goes into the manifest when it has so many lines, or half as many as the manifest lists episodes."""


class Recording:
    """A recording into a store that this process has exclusively.

    An episode is a file, then a line of the journal, and in the manifest now and then and at the end, so that many
    episodes do not cost as many manifests. Whatever ends the process, the next command that opens the store finds all.

    Args:
        store: where episodes go.
        policy: who plays.
        seeds: the seed of every planned episode by its id; ids are places in the order of the store.

    Attributes:
        stored: ids of the episodes that are on disk.
        skipped: reasons by id of those that could not be stored.
    """

    def __init__(self, store: EpisodeStore, policy: str, seeds: Mapping[str, int]) -> None:
        assert is_ours(store.folder), "a recording has the store to itself"
        store.settle()
        self.store = store
        self.stored: set[str] = set()
        self.skipped: dict[str, str] = {}
        self._policy, self._seeds = policy, seeds
        self._journal = Journal(store.folder)
        self._journal.begin(store.fingerprint, policy, seeds)

    def add(
        self,
        episode_id: str,
        tracks: Tracks,
        pieces: Iterable[np.ndarray],
        recording: int | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Check and store one episode (see EpisodeStore.write); the same one again, after an interrupt, does no harm.

        Raises:
            DataError: it does not fit the specs (then nothing is stored).
            StorageError: it cannot be written (then nothing is stored).
        """
        self._journal.add(self.store.write(episode_id, tracks, pieces, recording, origin))
        self.stored.add(episode_id)
        self._fold()

    def skip(self, episode_id: str, reason: str) -> None:
        """Note that a planned episode was played and cannot be stored: going on does not play it again."""
        self._journal.skip(Skipped(id=episode_id, policy=self._policy, seed=self._seeds[episode_id], reason=reason))
        self.skipped[episode_id] = reason
        self._fold()

    def close(self) -> None:
        """List everything in the manifest; where that fails the journal has it, and the next command lists it."""
        self._list()
        self._journal.remove()

    def _fold(self) -> None:
        waiting = len(self._journal.records) + len(self._journal.skipped)
        if waiting >= max(FOLD_EPISODES, self.store.num_episodes // 2):
            self._list()
            self._journal.begin(self.store.fingerprint, self._policy, self._seeds)

    def _list(self) -> None:
        self.store.list_episodes(self._journal.records, self._journal.skipped, self._journal.planned())
