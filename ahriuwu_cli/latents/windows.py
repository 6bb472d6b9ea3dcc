"""Windows of packed latents: the one data source of dynamics, agent and imagination.

Shapes: B windows, W latents per window, F = W + lookahead blocks, N latent tokens, C channels, A action width.
A block belongs to one latent, which covers as many frames as the latents' stride says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ahriuwu_cli.core.artifact import Header, check_fingerprint, read_header
from ahriuwu_cli.core.errors import ArtifactError, DataError
from ahriuwu_cli.core.specs import ActionSpec, FrameSpec, LatentSpec
from ahriuwu_cli.episodes.alignment import num_whole_latents

Split = Literal["train", "heldout"]

BLOCK_ARRAYS = ("action", "action_valid", "reward", "reward_valid", "terminal")


@dataclass(frozen=True)
class LatentBatch:
    """Windows of blocks (see episodes/alignment.py for what block t holds).

    Attributes:
        latents: (B, W, N, C) fp32 as the tokenizer gave them.
        action: (B, F, A) fp32; action_valid: (B, F) bool.
        reward: (B, F) fp32; reward_valid: (B, F) bool.
        terminal: (B, F) bool.
        valid: (B, W) bool, False for padding after an episode's end.
        task: (B,) int64.
    """

    latents: Tensor
    action: Tensor
    action_valid: Tensor
    reward: Tensor
    reward_valid: Tensor
    terminal: Tensor
    valid: Tensor
    task: Tensor

    def to(self, device: torch.device) -> LatentBatch:
        """The same batch on a device."""
        return LatentBatch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


@dataclass(frozen=True)
class PackedEpisode:
    """Where one episode lies: `num_latents` rows from `start` in shard number `shard`.

    `num_whole` of its latents cover frames of the episode alone; the last one may reach past its end.
    """

    id: str
    shard: int
    start: int
    num_latents: int
    num_whole: int
    split: Split
    task: int

    @classmethod
    def of(cls, entry: Mapping[str, Any], stride: int) -> PackedEpisode:
        """From an entry of a packed manifest."""
        place = {name: entry[name] for name in ("id", "shard", "start", "split", "task")}
        whole = num_whole_latents(entry["num_frames"], stride)
        return cls(num_latents=latent_count(entry), num_whole=whole, **place)


def latent_count(entry: Mapping[str, Any]) -> int:
    """Latents of an episode or a shard, as a manifest says; older ones know one latent per frame only."""
    count: int = entry["num_latents"] if "num_latents" in entry else entry["num_frames"]
    return count


class LatentWindows:
    """Random and fixed windows over the packed episodes of one split.

    Shards stay open and are read by slice; what is returned is a copy.

    Args:
        folder: a packed artifact.
        split: which episodes.

    Raises:
        InputError, ArtifactError: the folder is missing, damaged or of another kind.
        DataError: the split has no episode.
    """

    def __init__(self, folder: Path, split: Split) -> None:
        self.header: Header = read_header(folder, "packed")
        check_fingerprint(folder, self.header, "")
        specs, info = self.header.specs, self.header.info
        self.action_spec = ActionSpec.model_validate(specs["action"])
        self.frame_spec = FrameSpec.model_validate(specs["frame"])
        self.latent_spec = LatentSpec.model_validate(specs["latent"])
        self.tasks: list[str] = info["tasks"]
        stride = self.latent_spec.stride
        self.episodes = [PackedEpisode.of(entry, stride) for entry in info["episodes"] if entry["split"] == split]
        if not self.episodes:
            raise DataError(
                f"{folder} has no {split} episode",
                hint="record more episodes or change the split with `ahriuwu data split`",
            )
        self._shards = [_open_shard(folder / shard["file"]) for shard in info["shards"]]
        self._ends = np.cumsum([episode.num_latents for episode in self.episodes])
        self._rewarding: list[tuple[int, int]] | None = None

    @property
    def num_latents(self) -> int:
        """Latents in the split."""
        return int(self._ends[-1])

    def draw(
        self, rng: np.random.Generator, count: int, length: int, *, lookahead: int = 0, rewarding: bool = False
    ) -> LatentBatch:
        """Random windows. Latents are equally likely to be inside one, give or take half near an episode's ends.

        Args:
            rng: the source of randomness, and all of it.
            count: B.
            length: W; episodes shorter than that are padded.
            lookahead: further blocks without latents, for multi-token targets.
            rewarding: only windows that hold a block with a positive reward; all windows when there is none.
        """
        pool = self.rewarding_blocks() if rewarding else []
        places = []
        for _ in range(count):
            if pool:
                index, block = pool[int(rng.integers(len(pool)))]
            else:
                position = int(rng.integers(self.num_latents))
                index = int(np.searchsorted(self._ends, position, side="right"))
                block = position - int(self._ends[index]) + self.episodes[index].num_latents
            # A window around the block, moved inside the episode where it would stick out.
            start = block - int(rng.integers(length))
            start = max(0, min(start, self.episodes[index].num_latents - length))
            places.append((index, start))
        return self.read(places, length, lookahead)

    def draw_contexts(self, rng: np.random.Generator, count: int, length: int) -> LatentBatch:
        """Random full windows (B, length) of latents after which the episode goes on: starts of dreams.

        Raises:
            DataError: every episode of the split is too short.
        """
        return self.read(self.draw_places(rng, count, length + 1), length)

    def draw_places(self, rng: np.random.Generator, count: int, length: int) -> list[tuple[int, int]]:
        """Random (episode index, start) of windows that lie wholly inside an episode, each equally likely.

        A last latent that reaches past its episode's end is in no such window: it shows frames that never were.

        Raises:
            DataError: every episode of the split is shorter.
        """
        starts = np.array([max(0, episode.num_whole - length + 1) for episode in self.episodes])
        ends = np.cumsum(starts)
        if not ends[-1]:
            longest, stride = max(episode.num_whole for episode in self.episodes), self.latent_spec.stride
            unit = "frames" if stride == 1 else f"whole latents (of {stride} frames each)"
            raise DataError(
                f"the longest episode has {longest} {unit}; windows of {length} are asked for",
                hint="lower context_length or horizon, or record longer episodes",
            )
        indices = np.searchsorted(ends, positions := rng.integers(ends[-1], size=count), side="right")
        return [(int(i), int(position - ends[i] + starts[i])) for i, position in zip(indices, positions, strict=True)]

    def has_ends(self) -> bool:
        """True when some episode of the split ends in a terminal."""
        return any(self._slice(episode, "terminal", 0, episode.num_latents).any() for episode in self.episodes)

    def rewarding_blocks(self) -> list[tuple[int, int]]:
        """(episode index, block) of every block that arrived with a positive reward."""
        if self._rewarding is None:
            found = []
            for index, episode in enumerate(self.episodes):
                reward = self._slice(episode, "reward", 0, episode.num_latents)
                found += [(index, int(block)) for block in np.flatnonzero(reward > 0)]
            self._rewarding = found
        return self._rewarding

    def read(self, places: list[tuple[int, int]], length: int, lookahead: int = 0) -> LatentBatch:
        """The windows that start at (episode index, latent), padded after an episode's end."""
        rows = [self._window(self.episodes[index], start, length, lookahead) for index, start in places]
        stacked = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        return LatentBatch(**stacked)

    def _window(self, episode: PackedEpisode, start: int, length: int, lookahead: int) -> dict[str, np.ndarray]:
        assert 0 <= start < episode.num_latents
        latents = self._slice(episode, "latents", start, start + length).astype(np.float32)
        blocks = {name: self._slice(episode, name, start, start + length + lookahead) for name in BLOCK_ARRAYS}
        present = len(latents)
        out = {name: _pad(array, length + lookahead) for name, array in blocks.items()}
        for name in ("action_valid", "reward_valid", "terminal"):
            out[name] = out[name].astype(bool)
        out["latents"] = _pad(latents, length)
        out["valid"] = np.arange(length) < present
        out["task"] = np.asarray(episode.task, np.int64)
        return out

    def _slice(self, episode: PackedEpisode, name: str, start: int, stop: int) -> np.ndarray:
        stop = min(stop, episode.num_latents)
        tensor = self._shards[episode.shard].get_slice(name)
        return np.array(tensor[episode.start + start : episode.start + stop])


def _pad(array: np.ndarray, length: int) -> np.ndarray:
    """Zeros after the end up to `length` rows."""
    missing = length - len(array)
    return array if missing <= 0 else np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])


def _open_shard(path: Path) -> Any:
    try:
        return safe_open(str(path), framework="np")
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", hint="run `ahriuwu latents pack` again") from error
