"""`latents pack`: latents and aligned blocks of all episodes in a few large shards, made for random windows.

Shapes: K latents of an episode (one for every `stride` frames), N latent tokens, C channels per token, A action width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ahriuwu_cli.core.artifact import GROWN_FROM, MANIFEST_NAME, Header, write_manifest
from ahriuwu_cli.core.content import hash_file, require_content
from ahriuwu_cli.core.errors import ArtifactError, DataError
from ahriuwu_cli.core.files import keeping
from ahriuwu_cli.core.lineage import grown_from, has_grown, outgrown, require_parent
from ahriuwu_cli.core.loading import reading
from ahriuwu_cli.core.lock import exclusive
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.specs import LatentSpec
from ahriuwu_cli.core.tensorfile import read_arrays, write_tensors
from ahriuwu_cli.episodes.alignment import arrived, num_latents, to_blocks
from ahriuwu_cli.episodes.episode import Tracks
from ahriuwu_cli.episodes.events import event_array
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.latents.build import FINITE_HINT
from ahriuwu_cli.latents.config import NOT_CONTENT, LatentsSection
from ahriuwu_cli.latents.manifest import EncodedEpisode, read_latents, read_packed
from ahriuwu_cli.latents.shards import BLOCK_ARRAYS

BUILD = "run `ahriuwu latents build` to the end"


def pack_latents(episodes: Path, latents: Path, out: Path, settings: LatentsSection) -> Report:
    """Write shards and manifest into `out`; an earlier pack there is good until the new manifest replaces it.

    When `out` holds a pack of what the latents have grown from, the new one has grown from it.

    Raises:
        ArtifactError: the latents are of other episodes or of a part of them, their counts differ, or a file is not
            the one that their manifest lists.
        BusyError: another process is writing to `out`.
        StorageError: a file cannot be written; an earlier pack is as it was.
    """
    with exclusive(out), keeping("an earlier pack is as it was: run the same command again"):
        return _pack(episodes, latents, out, settings)


def _pack(episodes: Path, latents: Path, out: Path, settings: LatentsSection) -> Report:
    store = EpisodeStore.open(episodes)
    built = read_latents(latents)
    header, stride = built.header, built.latent.stride
    require_parent(latents, header, episodes, store.header)
    encoded = {entry.id: entry for entry in built.info.episodes}
    if has_grown(header, store.header):
        raise ArtifactError(
            f"{latents} was made with episodes {header.parents['episodes']}, but {episodes} has grown since to "
            f"{store.fingerprint}: {len(encoded)} of {len(store.episodes)} episodes are encoded",
            hint="run `ahriuwu latents build` first; it encodes only what was added",
        )
    writer = _ShardWriter(out, f"{header.fingerprint}_{settings.shard_frames}", settings.shard_frames)
    entries: list[dict[str, Any]] = []
    for record in store.episodes:
        episode = store.tracks(record.id)
        array = _read_latents(latents, encoded.get(record.id), built.latent)
        if len(array) != num_latents(episode.num_frames, stride):
            pace = "" if stride == 1 else f" of {stride} frames each"
            raise ArtifactError(
                f"episode {record.id} has {episode.num_frames} frames but {len(array)} latents{pace}",
                hint="run `ahriuwu latents build` again",
            )
        shard, start = writer.add(blocks_of(episode, stride, store.events) | {"latents": array})
        entries.append(
            {
                "id": record.id,
                "shard": shard,
                "start": start,
                "num_frames": episode.num_frames,
                "num_latents": len(array),
                "split": record.split,
                "task": store.tasks.index(record.task),
            }
        )
    shards = writer.finish()
    config = settings.model_dump(exclude=NOT_CONTENT)
    written = write_manifest(
        out,
        "packed",
        config=config,
        specs=header.specs | {"action": store.action_spec.repeated(stride).model_dump()},
        parents=header.parents | {"latents": header.fingerprint},
        info={"tasks": store.tasks, "episodes": entries, "shards": shards}
        | ({"events": store.events} if store.events else {})
        | _growth(out, header, config),
    )
    writer.remove_others()
    frames = sum(entry["num_frames"] for entry in entries)
    latents_in_all = sum(entry["num_latents"] for entry in entries)
    held = sum(entry["num_frames"] for entry in entries if entry["split"] == "heldout")
    rows = [
        ("episodes", str(len(entries))),
        ("frames, train", f"{frames - held:,}"),
        ("frames, held out", f"{held:,}"),
        ("latents", f"{latents_in_all:,}"),
        ("shards", str(len(shards))),
        ("fingerprint", written.fingerprint),
    ]
    data = {
        "episodes": len(entries),
        "frames": frames,
        "latents": latents_in_all,
        "shards": len(shards),
        "fingerprint": written.fingerprint,
    }
    return Report("packed latents", ("what", "value"), rows, data)


def _growth(out: Path, latents: Header, config: dict[str, Any]) -> dict[str, Any]:
    """What a pack of `latents` in the place of the one at `out` says of having grown from that."""
    if not (out / MANIFEST_NAME).is_file():
        return {}
    try:
        before = read_packed(out).header
    except ArtifactError:
        return {}  # damaged: nothing can be said of it
    if before.config != config:
        return {}
    if has_grown(before, latents):
        return {GROWN_FROM: outgrown(before)}
    return {GROWN_FROM: grown_from(before)} if before.parents.get("latents") == latents.fingerprint else {}


def _read_latents(folder: Path, entry: EncodedEpisode | None, spec: LatentSpec) -> np.ndarray:
    """Latents (K, N, C) of one episode, as the manifest lists them: a build that stopped leaves newer files."""
    if entry is None:
        raise ArtifactError(f"{folder} lacks an episode of the store", hint=BUILD)
    path = require_content(folder, entry.file, entry.sha256, again=BUILD)
    with reading(path):
        latents = read_arrays(path)["latents"]
        finite = np.isfinite(latents).all()
    if latents.shape[1:] != (spec.num_tokens, spec.dim_token):
        raise ArtifactError(
            f"{path} has latents {latents.shape}; expected {spec.num_tokens} x {spec.dim_token} each", hint=BUILD
        )
    if not finite:
        raise DataError(f"{path} has latents that are not finite", hint=FINITE_HINT)
    return latents


def blocks_of(episode: Tracks, stride: int, events: list[str]) -> dict[str, np.ndarray]:
    """Aligned arrays of length K, those of all the store's events among them; flags as uint8."""
    blocks = to_blocks(
        actions=episode.actions,
        action_valid=episode.action_valid,
        rewards=episode.rewards,
        terminals=episode.terminals,
        stride=stride,
    )
    arrays = {name: getattr(blocks, name) for name in BLOCK_ARRAYS}
    arrays |= {event_array(name): arrived(episode.event(name), stride) for name in events}
    return {name: array.astype(np.uint8) if array.dtype == bool else array for name, array in arrays.items()}


class _ShardWriter:
    """Collects episodes and writes a shard whenever `limit` latents are reached.

    `name` stands in the files' names and differs where their content does, so that no shard of another pack is
    written over.
    """

    def __init__(self, folder: Path, name: str, limit: int) -> None:
        self.folder, self.name, self.limit = folder, name, limit
        self.shards: list[dict[str, Any]] = []
        self._parts: list[dict[str, np.ndarray]] = []
        self._rows = 0

    def add(self, arrays: dict[str, np.ndarray]) -> tuple[int, int]:
        """Append an episode; returns its shard number and first row."""
        if self._rows >= self.limit:
            self._flush()
        place = len(self.shards), self._rows
        self._parts.append(arrays)
        self._rows += len(arrays["latents"])
        return place

    def finish(self) -> list[dict[str, Any]]:
        """Write what is left and return the list of shards."""
        self._flush()
        return self.shards

    def remove_others(self) -> None:
        """Remove the shards of an earlier pack."""
        names = {shard["file"] for shard in self.shards}
        for old in self.folder.glob("shard_*.safetensors"):
            if old.name not in names:
                old.unlink()

    def _flush(self) -> None:
        if not self._parts:
            return
        path = self.folder / f"shard_{self.name}_{len(self.shards):04d}.safetensors"
        joined = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        write_tensors(path, {name: torch.from_numpy(array) for name, array in joined.items()}, {})
        self.shards.append({"file": path.name, "num_latents": self._rows, "sha256": hash_file(path)})
        self._parts, self._rows = [], 0
