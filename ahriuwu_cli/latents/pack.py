"""`latents pack`: latents and aligned blocks of all episodes in a few large shards, made for random windows.

Shapes: K latents of an episode (one for every `stride` frames), N latent tokens, C channels per token, A action width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ahriuwu_cli.core.artifact import GROWN_FROM, MANIFEST_NAME, Header, write_manifest
from ahriuwu_cli.core.content import hash_file, require_content
from ahriuwu_cli.core.errors import ArtifactError, DataError
from ahriuwu_cli.core.files import keeping, write_atomically
from ahriuwu_cli.core.lineage import grown_from, has_grown, outgrown, require_parent
from ahriuwu_cli.core.lock import exclusive
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.specs import LatentSpec
from ahriuwu_cli.core.tensorfile import TensorFileWriter
from ahriuwu_cli.episodes.alignment import arrived, num_latents, to_blocks
from ahriuwu_cli.episodes.episode import Tracks
from ahriuwu_cli.episodes.events import event_array
from ahriuwu_cli.episodes.manifest import EpisodeRecord
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.latents.config import NOT_CONTENT, LatentsSection
from ahriuwu_cli.latents.encoded import FINITE_HINT, LATENTS, ROWS, LatentFile
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
    members = _divided(store, encoded, settings.shard_frames)
    name = f"{header.fingerprint}_{settings.shard_frames}"
    entries: list[dict[str, Any]] = []
    shards: list[dict[str, Any]] = []
    for number, part in enumerate(members):
        path, start = out / f"shard_{name}_{number:04d}.safetensors", 0
        write_atomically(path, partial(_fill, _Sources(store, latents, built.latent), part))
        for record, entry in part:
            entries.append(
                {
                    "id": record.id,
                    "shard": number,
                    "start": start,
                    "num_frames": record.num_steps + 1,
                    "num_latents": entry.num_latents,
                    "split": record.split,
                    "task": store.tasks.index(record.task),
                }
            )
            start += entry.num_latents
        shards.append({"file": path.name, "num_latents": start, "sha256": hash_file(path)})
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
    names = {shard["file"] for shard in shards}
    for old in out.glob("shard_*.safetensors"):
        if old.name not in names:
            old.unlink()
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


Member = tuple[EpisodeRecord, EncodedEpisode]
"""An episode and its latents."""


@dataclass(frozen=True)
class _Sources:
    """What is packed: a store, the folder of its latents and their spec."""

    store: EpisodeStore
    folder: Path
    spec: LatentSpec

    def latents(self, record: EpisodeRecord, entry: EncodedEpisode) -> LatentFile:
        """The latents of one episode, as the manifest lists them: a build that stopped leaves newer files."""
        path = require_content(self.folder, entry.file, entry.sha256, again=BUILD)
        file, spec, frames = LatentFile(path), self.spec, record.num_steps + 1
        if file.shape[1:] != (spec.num_tokens, spec.dim_token):
            raise ArtifactError(
                f"{path} has latents {file.shape}; expected {spec.num_tokens} x {spec.dim_token} each", hint=BUILD
            )
        if not len(file) == entry.num_latents == num_latents(frames, spec.stride):
            pace = "" if spec.stride == 1 else f" of {spec.stride} frames each"
            raise ArtifactError(
                f"episode {record.id} has {frames} frames but {len(file)} latents{pace}",
                hint="run `ahriuwu latents build` again",
            )
        return file


def _divided(store: EpisodeStore, encoded: Mapping[str, EncodedEpisode], limit: int) -> list[list[Member]]:
    """All episodes in order, by shard: one is full when it has `limit` latents."""
    shards: list[list[Member]] = []
    rows = limit
    for record in store.episodes:
        entry = encoded.get(record.id)
        if entry is None:
            raise ArtifactError(f"there are no latents of episode {record.id}", hint=BUILD)
        if rows >= limit:
            shards.append([])
            rows = 0
        shards[-1].append((record, entry))
        rows += entry.num_latents
    return shards


def _fill(sources: _Sources, members: Sequence[Member], temporary: Path) -> None:
    """Write one shard, an episode at a time."""
    store, spec = sources.store, sources.spec
    total = sum(entry.num_latents for _, entry in members)
    with temporary.open("r+b") as stream:
        writer: TensorFileWriter | None = None
        row = 0
        for record, entry in members:
            blocks = blocks_of(store.tracks(record.id), spec.stride, store.events)
            file = sources.latents(record, entry)
            for place, piece in enumerate(file.pieces()):
                if writer is None:
                    layout = {name: (array.dtype, (total, *array.shape[1:])) for name, array in blocks.items()}
                    layout[LATENTS] = (piece.dtype, (total, *piece.shape[1:]))
                    writer = TensorFileWriter(stream, layout, {})
                if not np.isfinite(piece).all():
                    raise DataError(f"{sources.folder / entry.file} has latents that are not finite", hint=FINITE_HINT)
                writer.put(LATENTS, row + place * ROWS, piece)
            assert writer is not None, "an episode has latents"
            for name, array in blocks.items():
                writer.put(name, row, array)
            row += entry.num_latents


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
