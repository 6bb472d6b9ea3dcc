"""The `info` part of an episode store's manifest: the environment, the split, and every episode's record."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.names import EpisodeId, Fingerprint, Sha256, TensorFileName, VideoFileName

Split = Literal["train", "heldout"]
Storage = Literal["raw", "video"]
LEFT_OUT_EMPTY = {"events", "skipped", "unfinished", "video", "recording", "origin", "storage", "merged_from"}


EMPTY: tuple[object, ...] = (None, "raw", [], {})
"""What a key has that a store of before does not have."""


class Origin(Section):
    """The recording that an episode was imported from.

    `content` is the SHA-256 of its files and of which part of them it is; the episode is piece number `piece` of the
    `pieces` that it was cut into.
    """

    name: str
    content: Sha256
    piece: int = Field(ge=0)
    pieces: int = Field(ge=1)


class _WithoutEmpty(Section):
    """Leaves such keys out of the manifest when they are empty: with or without, a store has one fingerprint."""

    @model_serializer(mode="wrap")
    def _without_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = dump(self)
        return {name: value for name, value in found.items() if name not in LEFT_OUT_EMPTY or value not in EMPTY}


class VideoFile(Section):
    """The frames of an episode that is stored as video."""

    file: VideoFileName
    sha256: Sha256


class EpisodeRecord(_WithoutEmpty):
    """What the manifest says of one episode.

    `events` has the sum of each of its events; `video` its frames where they are not in `file`; `recording` the number
    of the recording that it was cut from, by which its split is drawn: without it, its own number.
    `origin` says which that was.
    """

    id: EpisodeId
    file: TensorFileName
    num_steps: int = Field(ge=1)
    total_reward: float
    task: str
    split: Split
    policy: str
    seed: int
    sha256: Sha256
    events: dict[str, float] = Field(default_factory=dict)
    video: VideoFile | None = None
    recording: int | None = Field(default=None, ge=0)
    origin: Origin | None = None

    @property
    def number(self) -> int:
        """By which its split is drawn."""
        return int(self.id) if self.recording is None else self.recording


class Unfinished(Section):
    """An episode that has its place in the order but did not end before the recording did; going on plays it."""

    id: EpisodeId
    policy: str
    seed: int


class Skipped(Unfinished):
    """An episode that was played and could not be stored."""

    reason: str


class SplitRule(Section):
    """How episodes are held out."""

    fraction: float = Field(default=0.1, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)


class MergedStore(Section):
    """A store that another one was put together of: how many of its episodes, and of which game they are."""

    fingerprint: Fingerprint
    env: str
    episodes: int = Field(ge=0)


class StoreInfo(_WithoutEmpty):
    """The `info` part of a store's manifest, everything in order of ids; `grown_from` as in core/artifact.py.

    `storage` is that of episodes to come; each record says how its own frames are kept. `merged_from` are the stores
    that it was put together of.
    """

    env: str
    env_options: dict[str, Any]
    tasks: list[str] = Field(default_factory=list)
    events: list[str] = Field(default_factory=list)
    split: SplitRule = Field(default_factory=SplitRule)
    episodes: list[EpisodeRecord] = Field(default_factory=list)
    skipped: list[Skipped] = Field(default_factory=list)
    unfinished: list[Unfinished] = Field(default_factory=list)
    grown_from: list[Fingerprint] = Field(default_factory=list)
    storage: Storage = "raw"
    merged_from: list[MergedStore] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> StoreInfo:
        for name in ("id", "file"):
            values = [getattr(record, name) for record in self.episodes]
            if len(set(values)) != len(values):
                raise ValueError(f"two episodes have one {name}")
        strangers = {record.task for record in self.episodes} - set(self.tasks)
        if strangers:
            raise ValueError(f"an episode has the task {min(strangers)!r}, which is not listed")
        return self
