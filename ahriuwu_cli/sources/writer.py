"""Writing a recording into a store as it goes: in the order of the seeds, several episodes at a time."""

from __future__ import annotations

from pathlib import Path

from ahriuwu_cli.core.specs import ActionSpec, FrameSpec
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.store import EpisodeStore

FLUSH_EPISODES = 16  # finished episodes that are written together, with one new manifest


class SeedOrderWriter:
    """Puts episodes, which end in any order, into the store in the order of their seeds.

    The store is made with the first episodes, so that a recording that fails before leaves nothing.

    Attributes:
        store: the store, None until something was written.
        num_written: episodes written.
    """

    def __init__(
        self,
        folder: Path,
        store: EpisodeStore | None,
        data: DataSection,
        seed: int,
        action_spec: ActionSpec,
        frame_spec: FrameSpec,
    ) -> None:
        self.store = store
        self.num_written = 0
        self._folder = folder
        self._data = data
        self._seed = seed
        self._specs = (action_spec, frame_spec)
        self._waiting: dict[int, Episode] = {}
        self._next = 0

    def add(self, index: int, episode: Episode) -> None:
        """Take the episode of the seed at place `index`; writes when enough are there in order."""
        self._waiting[index] = episode
        end = self._next
        while end in self._waiting:
            end += 1
        while end - self._next >= FLUSH_EPISODES:
            self._flush(list(range(self._next, self._next + FLUSH_EPISODES)))

    def close(self) -> None:
        """Write all that is left, in order."""
        self._flush(sorted(self._waiting))

    def _flush(self, indices: list[int]) -> None:
        if not indices:
            return
        if self.store is None:
            self.store = EpisodeStore.create(
                self._folder,
                *self._specs,
                self._data.env,
                self._data.env_options,
                heldout_fraction=self._data.heldout_fraction,
                split_seed=self._seed,
                config={"data": self._data.model_dump(mode="json"), "seed": self._seed},
            )
        self.store.append([self._waiting[index] for index in indices])
        self.num_written += len(indices)
        self._next = indices[-1] + 1
        for index in indices:
            del self._waiting[index]
