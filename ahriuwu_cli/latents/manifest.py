"""What the manifests of latents and of packed latents list, read and checked as a whole.

A name that leads out of the folder, an episode beyond the end of its shard or a task that is not listed is refused
here, before a file is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from ahriuwu_cli.core.artifact import Header, check_fingerprint, read_header
from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.loading import reading
from ahriuwu_cli.core.names import EpisodeId, Fingerprint, Sha256, TensorFileName
from ahriuwu_cli.core.specs import ActionSpec, FrameSpec, LatentSpec
from ahriuwu_cli.episodes.alignment import num_whole_latents
from ahriuwu_cli.episodes.manifest import Split


def latent_count(entry: Mapping[str, Any]) -> int:
    """Latents of an episode or a shard, as a manifest says; older ones know one latent per frame only."""
    count: int = entry["num_latents"] if "num_latents" in entry else entry["num_frames"]
    return count


class _Counted(Section):
    """An entry that has a number of latents, whether its manifest says so or only knows frames."""

    @model_validator(mode="before")
    @classmethod
    def _with_count(cls, entry: Any) -> Any:
        if isinstance(entry, Mapping) and "num_latents" not in entry and "num_frames" in entry:
            return {**entry, "num_latents": entry["num_frames"]}
        return entry


class EncodedEpisode(_Counted):
    """The latents of one episode, in a file of their own."""

    id: EpisodeId
    file: TensorFileName
    num_frames: int = Field(ge=1)
    num_latents: int = Field(ge=1)
    split: Split
    sha256: Sha256


class LatentsInfo(Section):
    """The `info` part of a latents manifest."""

    episodes: list[EncodedEpisode]
    measured_episodes: int | None = Field(default=None, ge=0)
    grown_from: list[Fingerprint] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_of_each(self) -> LatentsInfo:
        _require_different([episode.id for episode in self.episodes])
        return self


class PlacedEpisode(_Counted):
    """Where one episode lies: `num_latents` rows from `start` in shard number `shard`."""

    id: EpisodeId
    shard: int = Field(ge=0)
    start: int = Field(ge=0)
    num_frames: int = Field(ge=1)
    num_latents: int = Field(ge=1)
    split: Split
    task: int = Field(ge=0)


class Shard(_Counted):
    """One file of many episodes."""

    file: TensorFileName
    num_latents: int = Field(ge=1)
    num_frames: int | None = Field(default=None, ge=1)
    sha256: Sha256


class PackedInfo(Section):
    """The `info` part of a manifest of packed latents."""

    tasks: list[str]
    episodes: list[PlacedEpisode]
    shards: list[Shard]
    events: list[str] = Field(default_factory=list)
    grown_from: list[Fingerprint] = Field(default_factory=list)

    @model_validator(mode="after")
    def _inside_the_shards(self) -> PackedInfo:
        _require_different([episode.id for episode in self.episodes])
        for episode in self.episodes:
            if episode.shard >= len(self.shards):
                raise ValueError(f"episode {episode.id} lies in shard {episode.shard} of {len(self.shards)}")
            rows = self.shards[episode.shard].num_latents
            if episode.start + episode.num_latents > rows:
                end = episode.start + episode.num_latents
                raise ValueError(f"episode {episode.id} ends at row {end} of {rows} of its shard")
            if episode.task >= len(self.tasks):
                raise ValueError(f"episode {episode.id} has task {episode.task} of {len(self.tasks)}")
        return self


def _require_different(ids: Sequence[str]) -> None:
    if len(set(ids)) != len(ids):
        raise ValueError("two episodes have one id")


@dataclass(frozen=True)
class PackedEpisode:
    """Where one episode lies: `num_latents` rows from `start` in shard number `shard`.

    `num_whole` of its latents cover frames of the episode alone; the last one may reach past its end. `task` is
    the place of the task it was recorded under among those of the store.
    """

    id: str
    shard: int
    start: int
    num_latents: int
    num_whole: int
    split: Split
    task: int

    @classmethod
    def of(cls, placed: PlacedEpisode, stride: int) -> PackedEpisode:
        """From an entry of a packed manifest."""
        whole = num_whole_latents(placed.num_frames, stride)
        return cls(num_whole=whole, **placed.model_dump(exclude={"num_frames"}))


@dataclass(frozen=True)
class Latents:
    """Latents, one file for each episode."""

    header: Header
    info: LatentsInfo
    latent: LatentSpec


@dataclass(frozen=True)
class Packed:
    """Packed latents."""

    header: Header
    info: PackedInfo
    action: ActionSpec
    frame: FrameSpec
    latent: LatentSpec


def read_latents(folder: Path) -> Latents:
    """What a folder of latents says of itself; the files are looked at when they are read.

    Raises:
        InputError: nothing is there.
        ArtifactError: changed, damaged, of another kind, or a manifest that makes no sense.
    """
    header = read_header(folder, "latents")
    check_fingerprint(folder, header, "")
    with reading(folder):
        return Latents(
            header,
            LatentsInfo.model_validate(header.info, strict=True),
            LatentSpec.model_validate(header.specs["latent"]),
        )


def read_packed(folder: Path) -> Packed:
    """What packed latents say of themselves; the shards are looked at when they are read.

    Raises:
        InputError: nothing is there.
        ArtifactError: changed, damaged, of another kind, or a manifest that makes no sense.
    """
    header = read_header(folder, "packed")
    check_fingerprint(folder, header, "")
    with reading(folder):
        return Packed(
            header,
            PackedInfo.model_validate(header.info, strict=True),
            ActionSpec.model_validate(header.specs["action"]),
            FrameSpec.model_validate(header.specs["frame"]),
            LatentSpec.model_validate(header.specs["latent"]),
        )
