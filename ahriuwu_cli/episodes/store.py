"""The episode store: a folder with a manifest and the files of each episode (files.py), split by whole episode.

The split is part of the manifest and so of the fingerprint: whatever was made from a store names the
very split it was made with.

What is being recorded is noted in a journal first (recording.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ahriuwu_cli.core import artifact, content, lineage
from ahriuwu_cli.core.errors import BusyError, InputError, StorageError
from ahriuwu_cli.core.loading import reading
from ahriuwu_cli.core.lock import contents, exclusive, is_ours
from ahriuwu_cli.core.specs import ActionSpec, FrameSpec
from ahriuwu_cli.episodes.episode import Episode, Tracks
from ahriuwu_cli.episodes.files import copy_episode, open_frames, read_tracks, write_episode
from ahriuwu_cli.episodes.journal import JOURNAL_NAME, Journal
from ahriuwu_cli.episodes.listing import divided, listed
from ahriuwu_cli.episodes.manifest import (
    EpisodeRecord,
    MergedStore,
    Origin,
    Skipped,
    Split,
    SplitRule,
    Storage,
    StoreInfo,
    Unfinished,
    VideoFile,
)
from ahriuwu_cli.episodes.reading import FrameReader
from ahriuwu_cli.episodes.split import split_of

OPEN_FILES = 32
"""Episodes whose frames are kept open for the next reading."""


class EpisodeStore:
    """Episodes of one environment on disk. Make one with `create` or `open`."""

    def __init__(self, folder: Path, header: artifact.Header, info: StoreInfo) -> None:
        self.folder = folder
        self.header = header
        self.action_spec = ActionSpec.model_validate(header.specs["action"])
        self.frame_spec = FrameSpec.model_validate(header.specs["frame"])
        self._info = info
        self._records = {record.id: record for record in info.episodes}
        self._checked: set[str] = set()  # ids whose file and values were right since this store was opened
        self._readers: dict[str, FrameReader] = {}  # open ones by id, the last one used last
        self._opening = Lock()
        self._grown_from = lineage.outgrown(header) if info.episodes else []  # of what is appended from here on

    @classmethod
    def create(
        cls,
        folder: Path,
        action_spec: ActionSpec,
        frame_spec: FrameSpec,
        env: str,
        env_options: dict[str, Any],
        *,
        heldout_fraction: float = 0.1,
        split_seed: int = 0,
        config: dict[str, Any] | None = None,
        storage: Storage = "raw",
        merged_from: Sequence[MergedStore] = (),
    ) -> EpisodeStore:
        """Write the manifest of an empty store.

        Raises:
            InputError: the folder already holds something.
        """
        if folder.exists() and (not folder.is_dir() or contents(folder)):
            raise InputError(
                f"{folder} is not an empty folder; a new episode store needs one",
                hint="give another folder, or append to the store that is there",
            )
        rule = SplitRule(fraction=heldout_fraction, seed=split_seed)
        info = StoreInfo(env=env, env_options=env_options, split=rule, storage=storage, merged_from=list(merged_from))
        specs = {"action": action_spec.model_dump(mode="json"), "frame": frame_spec.model_dump(mode="json")}
        header = artifact.write_manifest(
            folder, "episodes", config=config or {}, specs=specs, parents={}, info=info.model_dump(mode="json")
        )
        return cls(folder, header, info)

    @classmethod
    def open(cls, folder: Path, *, settle: bool = True) -> EpisodeStore:
        """Read a store's manifest; the episode files are looked at when they are read.

        What a killed recording has left in the journal goes into the manifest first, unless `settle` is False. While a
        recording runs, the store is what the manifest lists so far.

        Raises:
            InputError: nothing is there.
            ArtifactError: no episode store, of another format, changed or damaged.
        """
        header = artifact.read_header(folder, "episodes")
        artifact.check_fingerprint(folder, header, "")
        with reading(folder):
            store = cls(folder, header, StoreInfo.model_validate(header.info, strict=True))
        if settle and (folder / JOURNAL_NAME).exists() and not is_ours(folder):
            with suppress(BusyError, InputError, StorageError), exclusive(folder):  # else it is what is listed
                return cls._reopened(folder)
        return store

    @classmethod
    def _reopened(cls, folder: Path) -> EpisodeStore:
        """The store as it is now that nobody else can change it, with nothing in its journal."""
        store = cls.open(folder)
        store.settle()
        return store

    # ------------------------------------------------------------ what is in it

    @property
    def fingerprint(self) -> str:
        """Fingerprint over specs, environment, every episode's content, and the split."""
        return self.header.fingerprint

    @property
    def env(self) -> str:
        """Gymnasium id of the environment that was played."""
        return self._info.env

    @property
    def env_options(self) -> dict[str, Any]:
        """Keyword arguments of gymnasium.make."""
        return dict(self._info.env_options)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in order of first appearance; an episode's task index is its place here."""
        return list(self._info.tasks)

    @property
    def events(self) -> list[str]:
        """Names of the events of all episodes, in order of first appearance."""
        return list(self._info.events)

    @property
    def split_rule(self) -> SplitRule:
        """Fraction and seed of the held-out split."""
        return self._info.split

    @property
    def merged_from(self) -> list[MergedStore]:
        """The stores that it was put together of; none for most."""
        return list(self._info.merged_from)

    @property
    def storage(self) -> Storage:
        """How the frames of episodes to come are kept."""
        return self._info.storage

    @property
    def episodes(self) -> list[EpisodeRecord]:
        """Every episode's record, in order of recording."""
        return list(self._info.episodes)

    @property
    def num_episodes(self) -> int:
        """How many are listed."""
        return len(self._info.episodes)

    @property
    def num_in_journal(self) -> int:
        """How many are on disk and not listed yet: of a recording that runs, or that was killed."""
        return len(Journal.read(self.folder, self.fingerprint).records)

    @property
    def skipped(self) -> list[Skipped]:
        """Episodes that were played and could not be stored."""
        return list(self._info.skipped)

    @property
    def unfinished(self) -> list[Unfinished]:
        """Episodes that a stopped recording has left out; going on with it plays them."""
        return list(self._info.unfinished)

    @property
    def next_number(self) -> int:
        """The number of the first episode after all that have a place in the order."""
        info = self._info
        ids = [record.id for record in info.episodes] + [item.id for item in (*info.skipped, *info.unfinished)]
        return 1 + max(map(int, ids), default=-1)

    def ids(self, split: Split) -> list[str]:
        """Ids of the episodes of one split, in order."""
        return [record.id for record in self._info.episodes if record.split == split]

    def record(self, episode_id: str) -> EpisodeRecord:
        """Find the manifest's record of an episode.

        Raises:
            InputError: no episode has that id.
        """
        found = self._records.get(episode_id)
        if found is None:
            raise InputError(
                f"{self.folder} has no episode {episode_id!r}; it has {len(self._records)}",
                hint="ids have six digits and start at 000000",
            )
        return found

    def tracks(self, episode_id: str) -> Tracks:
        """Everything of one episode but its frames; hashes are checked once for each change, values once by a store.

        Raises:
            InputError: no episode has that id.
            ArtifactError: the file is missing, cut short, or not the one the manifest lists.
            DataError: the values break the specs, an action outside its range say.
        """
        tracks = read_tracks(self.folder, self.record(episode_id))
        if episode_id not in self._checked:
            tracks.validate(self.action_spec, self.frame_spec)
            self._checked.add(episode_id)
        return tracks

    def frames(self, episode_id: str) -> FrameReader:
        """The frames of one episode, to be read piece by piece; the reader is kept open for the next call.

        Raises:
            InputError: no episode has that id.
            ArtifactError: see `tracks`.
        """
        with self._opening:
            reader = self._readers.pop(episode_id, None)
            if reader is None:
                reader = open_frames(self.folder, self.record(episode_id), self.frame_spec)
            self._readers[episode_id] = reader  # the last one used stands last
            if len(self._readers) > OPEN_FILES:
                self._readers.pop(next(iter(self._readers)))
        return reader

    def read(self, episode_id: str) -> Episode:
        """Read one episode with all its frames, for what cannot be had piece by piece.

        Raises:
            InputError, ArtifactError, DataError: see `tracks`.
        """
        tracks, reader = self.tracks(episode_id), self.frames(episode_id)
        return Episode(**vars(tracks), frames=reader.read(0, len(reader)))

    # ------------------------------------------------------------ changing it

    def append(self, episodes: Sequence[Episode]) -> list[str]:
        """Check and store episodes, then list them in the manifest in one atomic write; returns their ids.

        The new episodes are divided between the splits; those already there keep theirs. The store as it was when
        it was opened is remembered as what it has grown from, however many times something is appended.

        Raises:
            BusyError: another process is writing to the store, or has written to it since it was opened.
            DataError: an episode does not fit the specs (then none of them is stored).
        """
        if not episodes:
            return []
        for episode in episodes:
            episode.validate(self.action_spec, self.frame_spec)
        with self._changing():
            start = self.next_number
            records = [
                self._write(f"{start + index:06d}", episode, [episode.frames]) for index, episode in enumerate(episodes)
            ]
            self.list_episodes(records)
        return [record.id for record in records]

    def set_split(self, fraction: float, seed: int) -> None:
        """Divide all episodes anew, at random by `seed`; both splits get at least one where there are two.

        What it has grown from is forgotten: what was made from that may have seen what is held out.

        Raises:
            BusyError: see `append`.
            InputError: the fraction is not between 0 and 1.
        """
        if not 0 < fraction < 1:
            raise InputError(f"held-out fraction is {fraction}; expected between 0 and 1", hint="0.1 is usual")
        with self._changing():
            info = divided(self._info, SplitRule(fraction=fraction, seed=seed))
            if (info.split, info.episodes) != (self._info.split, self._info.episodes):
                self._rewrite(info)
                self._grown_from = lineage.outgrown(self.header) if info.episodes else []

    def settle(self) -> None:
        """List what the journal of a killed recording says; for whoever has the folder exclusively."""
        journal = Journal.read(self.folder, self.fingerprint)
        if journal.head is not None:
            self.list_episodes(journal.records, journal.skipped, journal.planned())
        journal.remove()

    def list_episodes(
        self, new: Sequence[EpisodeRecord], skipped: Sequence[Skipped] = (), planned: Sequence[Unfinished] = ()
    ) -> None:
        """Write the manifest with further episodes whose files are there; see `listing.listed`."""
        info = listed(self._info.model_copy(update={"grown_from": self._grown_from}), new, skipped, planned)
        if (info.episodes, info.skipped) != (self._info.episodes, self._info.skipped):
            self._rewrite(info)
            self._grown_from = list(info.grown_from)

    def write(
        self,
        episode_id: str,
        tracks: Tracks,
        pieces: Iterable[np.ndarray],
        recording: int | None = None,
        origin: Origin | None = None,
    ) -> EpisodeRecord:
        """Check an episode and write its files, which nothing lists yet.

        Args:
            episode_id: its place in the store.
            tracks: all but its frames.
            pieces: its frames in order, as many (n, H, W, 3) uint8 at a time as one likes.
            recording: number of the recording that it was cut from; None where it is one of its own.
            origin: which recording that is, where it was imported.

        Raises:
            DataError: it does not fit the specs.
            StorageError: it cannot be written.
        """
        tracks.validate(self.action_spec, self.frame_spec)
        return self._write(episode_id, tracks, pieces, recording, origin)

    def copy(
        self,
        episode_id: str,
        source: EpisodeStore,
        record: EpisodeRecord,
        recording: int | None = None,
        tracks: Tracks | None = None,
    ) -> EpisodeRecord:
        """Write the files of an episode of another store, with the frames bit for bit, which nothing lists yet.

        Args:
            episode_id: its place in this store.
            source: the other store, of frames of the same size and rate.
            record: its record there.
            recording: see `write`.
            tracks: what it has here beside frames; None where that stays as it is.

        Raises:
            DataError: it does not fit the specs.
            ArtifactError: a file of the other store is damaged.
            StorageError: it cannot be written.
        """
        assert source.frame_spec == self.frame_spec
        own = tracks or source.tracks(record.id)
        own.validate(self.action_spec, self.frame_spec)
        as_it_is = tracks is None and episode_id == record.id
        files = copy_episode(self.folder, episode_id, own, self.frame_spec, source.folder, record, as_it_is=as_it_is)
        return self._recorded(episode_id, own, files, recording, record.origin)

    # ------------------------------------------------------------ the manifest

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Have the folder exclusively, with the store in it as this object knows it."""
        with exclusive(self.folder):
            if artifact.read_header(self.folder, "episodes").fingerprint != self.fingerprint:
                raise BusyError(f"{self.folder} was changed since it was opened", hint="run the same command again")
            self.settle()
            yield

    def _write(
        self,
        episode_id: str,
        tracks: Tracks,
        pieces: Iterable[np.ndarray],
        recording: int | None = None,
        origin: Origin | None = None,
    ) -> EpisodeRecord:
        files = write_episode(self.folder, episode_id, tracks, pieces, self.frame_spec, self._info.storage)
        return self._recorded(episode_id, tracks, files, recording, origin)

    def _recorded(
        self,
        episode_id: str,
        tracks: Tracks,
        files: tuple[Path, VideoFile | None],
        recording: int | None,
        origin: Origin | None,
    ) -> EpisodeRecord:
        """What the manifest is to say of an episode whose files are there."""
        path, video = files
        return EpisodeRecord(
            id=episode_id,
            file=path.name,
            num_steps=tracks.num_steps,
            total_reward=tracks.total_reward,
            task=tracks.task,
            split=split_of(int(episode_id) if recording is None else recording, self._info.split),
            policy=tracks.policy,
            seed=tracks.seed,
            sha256=content.hash_file(path),
            events={name: float(values.sum(dtype=np.float64)) for name, values in sorted(tracks.events.items())},
            video=video,
            recording=recording,
            origin=origin,
        )

    def _rewrite(self, info: StoreInfo) -> None:
        self.header = artifact.write_manifest(
            self.folder,
            "episodes",
            config=self.header.config,
            specs=self.header.specs,
            parents=self.header.parents,
            info=info.model_dump(mode="json"),
        )
        self._info = info
        self._records = {record.id: record for record in info.episodes}
