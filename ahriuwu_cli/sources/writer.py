"""A recording's way into its store, which is made with the first episode; every episode has its place beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.core.specs import ActionSpec, FrameSpec
from ahriuwu_cli.episodes.config import NOT_RECORDED, DataSection
from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.recording import Recording
from ahriuwu_cli.episodes.store import EpisodeStore


class RecordingWriter:
    """Puts episodes, which end in any order, into the store; a recording that fails before the first leaves nothing.

    Args:
        folder: of the store, which this process has exclusively.
        store: what is there; None makes one with the first episode.
        data: settings of the recording; those of the first one are kept in the store.
        seed: of the recording, and of the split of a new store.
        specs: of actions and frames.
        policy: who plays.
        seeds: of the planned episodes, in order; those that an earlier recording of the same policy left unfinished
            take their places, the others come after all that is there.

    Attributes:
        folder: as given.
        store: the store, None until an episode was stored.
        skipped: why episodes could not be stored, in order of ending.
    """

    def __init__(
        self,
        folder: Path,
        store: EpisodeStore | None,
        data: DataSection,
        seed: int,
        specs: tuple[ActionSpec, FrameSpec],
        policy: str,
        seeds: Sequence[int],
    ) -> None:
        self.store = store
        self.skipped: list[str] = []
        self.folder, self._data, self._seed, self._specs, self._policy = folder, data, seed, specs, policy
        self._ids = _places(store, policy, seeds)
        self._seeds = dict(zip(self._ids, seeds, strict=True))
        self._recording: Recording | None = None
        self._early: list[tuple[int, str]] = []  # skipped before there was a store
        self._in_hand: tuple[int, Episode] | None = None

    @property
    def num_stored(self) -> int:
        """Episodes of this recording that are on disk."""
        return 0 if self._recording is None else len(self._recording.stored)

    def kept(self) -> str:
        """What is stored, in words."""
        return f"{self.num_stored} of {len(self._ids)} episodes are stored in {self.folder}"

    def going_on(self) -> str:
        """How to record what is neither stored nor skipped, in words."""
        left = len(self._ids) - self.num_stored - len(self.skipped)
        return f"go on with the same command and `--append --episodes {left}`" if left else "none is missing"

    def add(self, index: int, episode: Episode) -> None:
        """Store the episode of the seed at place `index`, or skip it where it breaks its declaration.

        Raises:
            StorageError: it cannot be written.
        """
        self._in_hand = index, episode
        try:
            episode.validate(*self._specs)
        except DataError as error:
            self.skip(index, error)
        else:
            self._begun().add(self._ids[index], episode, [episode.frames])
        self._in_hand = None

    def skip(self, index: int, error: DataError) -> None:
        """Note that the episode at place `index` was played and cannot be stored."""
        self.skipped.append(error.message)
        if self.store is None:
            self._early.append((index, error.message))
        else:
            self._begun().skip(self._ids[index], error.message)

    def close(self, *, finish: bool = False) -> None:
        """List all that is stored; `finish` stores the episode first that an interrupt has caught on its way."""
        if finish and self._in_hand is not None:
            self.add(*self._in_hand)
        if self._recording is not None:
            self._recording.close()

    def _begun(self) -> Recording:
        if self._recording is None:
            if self.store is None:
                self.store = EpisodeStore.create(
                    self.folder,
                    *self._specs,
                    self._data.env,
                    self._data.env_options,
                    heldout_fraction=self._data.heldout_fraction,
                    split_seed=self._seed,
                    storage=self._data.kept_as,
                    config={"data": self._data.model_dump(mode="json", exclude=NOT_RECORDED), "seed": self._seed},
                )
            self._recording = Recording(self.store, self._policy, self._seeds)
            for index, reason in self._early:
                self._recording.skip(self._ids[index], reason)
        return self._recording


def _places(store: EpisodeStore | None, policy: str, seeds: Sequence[int]) -> list[str]:
    """Ids of the episodes with these seeds."""
    waiting = {} if store is None else {item.seed: item.id for item in store.unfinished if item.policy == policy}
    free = 0 if store is None else store.next_number
    ids = []
    for seed in seeds:
        if seed not in waiting:
            ids.append(f"{free:06d}")
            free += 1
        else:
            ids.append(waiting[seed])
    return ids
