"""The content of latents and packed latents: every file, finite values, spread, statistics, shards.

Shapes: K latents (one for every `stride` frames), N latent tokens, C channels per token, A action width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ahriuwu_cli.core.artifact import Header, check_fingerprint
from ahriuwu_cli.core.content import hash_file
from ahriuwu_cli.core.specs import ActionSpec, LatentSpec
from ahriuwu_cli.core.tensorfile import read_arrays
from ahriuwu_cli.doctor.checks import Subject
from ahriuwu_cli.doctor.findings import Area, Fault, counted, fault_of
from ahriuwu_cli.episodes.events import event_array
from ahriuwu_cli.episodes.manifest import Split
from ahriuwu_cli.latents.build import measured_episodes
from ahriuwu_cli.latents.manifest import latent_count
from ahriuwu_cli.latents.shards import BLOCK_ARRAYS
from ahriuwu_cli.latents.windows import LatentWindows

MIN_SPREAD = 1e-3
"""A channel whose standard deviation is below this carries nothing."""
TOLERANCE = 1e-4
"""Largest difference allowed between recorded and recomputed channel statistics."""


def _genuine(area: Area, path: Path, header: Header) -> bool:
    """Recompute the fingerprint of a folder from its manifest (which has the hash of every file)."""
    with area.guard("fingerprint"):
        check_fingerprint(path, header, "")
        area.ok("fingerprint", f"{header.fingerprint}, as recomputed from the manifest")
        return True
    return False


def _read_listed(path: Path, listed: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a file, when it is there and the very one that the manifest lists."""
    if not path.is_file():
        raise Fault("missing")
    arrays = read_arrays(path)  # says so when the file is cut short
    if hash_file(path) != listed["sha256"]:
        raise Fault("changed after it was written: its sha256 is not the manifest's")
    return arrays


# ---------------------------------------------------------------- latents


class Spread:
    """Sums over latents (K, N, C) in double precision, per token and channel."""

    def __init__(self) -> None:
        self.count = 0
        self._total: np.ndarray | float = 0.0
        self._square: np.ndarray | float = 0.0

    def add(self, latents: np.ndarray) -> None:
        """Take the latents (K, N, C) of one episode."""
        values = latents.astype(np.float64)
        self.count += len(values)
        self._total = self._total + values.sum(axis=0)
        self._square = self._square + np.square(values).sum(axis=0)

    def channels(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (C,) and standard deviation (C,) of each channel over frames and tokens."""
        mean = np.mean(self._total, axis=0) / self.count
        square = np.mean(self._square, axis=0) / self.count
        return mean, np.sqrt(np.maximum(square - mean**2, 0))

    def over_frames(self) -> float:
        """The largest standard deviation that any place (token, channel) has over the frames."""
        mean, square = np.asarray(self._total) / self.count, np.asarray(self._square) / self.count
        return float(np.sqrt(np.maximum(square - mean**2, 0)).max())


def examine_latents(area: Area, subject: Subject) -> None:
    """Read the latents of every episode: files, shapes, finite values, spread, recorded statistics."""
    path, header = subject.path, subject.header
    _genuine(area, path, header)
    with area.guard("files"):
        spec = LatentSpec.model_validate(header.specs["latent"])
        faults, train, first = [], Spread(), Spread()
        for index, entry in enumerate(header.info["episodes"]):
            try:
                latents = _episode_latents(path, entry, spec)
            except Exception as error:  # one damaged file must not hide the state of the others
                faults.append(fault_of(entry["file"], error))
                continue
            if entry["split"] == "train":
                train.add(latents)
                if index < measured_episodes(header):
                    first.add(latents)
        number = counted(len(header.info["episodes"]), "episode")
        area.judge("files", faults, f"{number}; sha256, shapes and counts as listed, all values finite")
        if train.count:
            _judge_spread(area, train)
        if first.count and not faults:
            _judge_statistics(area, first, spec)


def _episode_latents(folder: Path, entry: Mapping[str, Any], spec: LatentSpec) -> np.ndarray:
    """The latents (K, N, C) of one episode, when they are what the manifest says."""
    latents = _read_listed(folder / entry["file"], entry)["latents"]  # (K, N, C)
    wanted = (latent_count(entry), spec.num_tokens, spec.dim_token)
    if latents.shape != wanted:
        raise Fault(f"latents are {latents.shape}; the manifest says {wanted}")
    if not np.isfinite(latents).all():
        raise Fault("latents are not finite")
    return latents


def _judge_spread(area: Area, train: Spread) -> None:
    """Pitfall 30: latents that do not depend on the frame, and channels that say nothing."""
    _, std = train.channels()
    dead = np.flatnonzero(std < MIN_SPREAD)
    hint = "train the tokenizer longer or differently (smaller learning_rate, mask_max, dim_token) and build again"
    faults = []
    if len(dead):
        names = ", ".join(map(str, dead[:8])) + (", ..." if len(dead) > 8 else "")
        faults.append(
            f"tokenizer collapsed: {len(dead)} of {len(std)} channels have a spread below {MIN_SPREAD:g} ({names})"
        )
    elif train.over_frames() < MIN_SPREAD:
        faults.append("tokenizer collapsed: all frames have the same latents")
    area.judge("spread", faults, f"standard deviation of the channels {std.min():.3g} to {std.max():.3g}", hint)


def _judge_statistics(area: Area, train: Spread, spec: LatentSpec) -> None:
    """The recorded mean and spread, by which the dynamics normalise, are those of the training split.

    Of latents that have grown, those of the training split of the first build.
    """
    mean, std = train.channels()
    faults = []
    for name, found, recorded in (("mean", mean, spec.mean), ("std", std.clip(MIN_SPREAD), spec.std)):
        if len(recorded) != len(found):
            faults.append(f"{name} is not recorded")
            continue
        gap = np.abs(found - np.array(recorded))
        if gap.max() > TOLERANCE:
            worst = int(gap.argmax())
            faults.append(f"{name} of channel {worst} is recorded as {recorded[worst]:.4g}, found {found[worst]:.4g}")
    area.judge("statistics", faults, "recorded mean and spread per channel are those of the training split")


# ---------------------------------------------------------------- packed


def examine_packed(area: Area, subject: Subject) -> None:
    """Read every shard, check where the episodes lie in them, and open both splits as training does."""
    path, header = subject.path, subject.header
    genuine = _genuine(area, path, header)
    faults: list[str] = []
    with area.guard("shards"):
        latent = LatentSpec.model_validate(header.specs["latent"])
        action = ActionSpec.model_validate(header.specs["action"])
        for number, shard in enumerate(header.info["shards"]):
            try:
                _check_shard(path / shard["file"], shard, latent, action, header.info.get("events", ()))
            except Exception as error:  # one damaged file must not hide the state of the others
                faults.append(fault_of(shard["file"], error))
            faults += _place_faults(number, shard, header)
        shards = counted(len(header.info["shards"]), "shard")
        area.judge("shards", faults, f"{shards}; sha256 and shapes as listed, no gaps, all values finite")
    if genuine and not faults:
        with area.guard("windows"):
            lengths = {split: _read_all(LatentWindows(path, split)) for split in get_args(Split)}
            area.ok("windows", ", ".join(f"{count:,} {split} latents" for split, count in lengths.items()))


def _check_shard(
    path: Path, shard: Mapping[str, Any], latent: LatentSpec, action: ActionSpec, events: Sequence[str]
) -> None:
    arrays = _read_listed(path, shard)
    rows = latent_count(shard)
    shapes = dict.fromkeys(BLOCK_ARRAYS, (rows,)) | {
        "latents": (rows, latent.num_tokens, latent.dim_token),
        "action": (rows, action.dim),
    }
    shapes |= {event_array(name): (rows,) for name in events}
    if arrays.keys() != shapes.keys():
        raise Fault(f"has arrays {', '.join(sorted(arrays))}; expected {', '.join(sorted(shapes))}")
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise Fault(f"{name} is {array.shape}; expected {shapes[name]}")
        if not np.isfinite(array).all():
            raise Fault(f"{name} is not finite")


def _place_faults(number: int, shard: Mapping[str, Any], header: Header) -> list[str]:
    """The episodes of a shard must lie end to end and fill it."""
    places = sorted(
        (entry["start"], latent_count(entry), entry["id"])
        for entry in header.info["episodes"]
        if entry["shard"] == number
    )
    end = 0
    for start, length, name in places:
        if start != end:
            return [f"{shard['file']}: episode {name} begins at row {start}, the one before it ends at {end}"]
        end = start + length
    if end != latent_count(shard):
        return [f"{shard['file']}: episodes end at row {end} of {latent_count(shard)}"]
    return []


def _read_all(windows: LatentWindows) -> int:
    """Read every episode of a split through the real loader; returns the number of latents."""
    for index, episode in enumerate(windows.episodes):
        windows.read([(index, 0)], episode.num_latents)
    return windows.sampler.num_latents
