"""`latents build`: every episode of a store through the tokenizer, one file each, with statistics per channel.

Shapes: F frames of an episode, K latents (one for every `stride` frames), N latent tokens, C channels per token.

Decision: latents of a store that has grown keep the statistics of the first build. The dynamics live in the space that
these statistics normalise; under others every model made from the earlier latents would mean something else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ahriuwu_cli.core.artifact import (
    GROWN_FROM,
    MANIFEST_NAME,
    Header,
    write_manifest,
)
from ahriuwu_cli.core.content import hash_file
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ArtifactError, DataError
from ahriuwu_cli.core.files import keeping
from ahriuwu_cli.core.lineage import grown_from, is_parent, outgrown
from ahriuwu_cli.core.lock import exclusive
from ahriuwu_cli.core.progress import tracked
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.specs import FrameSpec, LatentSpec
from ahriuwu_cli.episodes.alignment import num_latents
from ahriuwu_cli.episodes.reading import pieces
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.latents.config import NOT_CONTENT, LatentsSection
from ahriuwu_cli.latents.encoded import LatentFile, is_made_from, write_latents
from ahriuwu_cli.latents.manifest import read_latents
from ahriuwu_cli.tokenizer.checkpoint import load_tokenizer
from ahriuwu_cli.tokenizer.coding import encode_pieces


def build_latents(
    episodes: Path, tokenizer_path: Path, out: Path, settings: LatentsSection, runtime: Runtime
) -> Report:
    """Encode all episodes into `out`. Files already there, whole and from the same tokenizer and episode, are kept.

    When `out` holds latents of an earlier part of the store, what comes out has grown from them: see above.

    Raises:
        ArtifactError: the frames of the store are not those the tokenizer was made for.
        BusyError: another process is writing to `out`.
        DataError: the store has no training episode to measure.
        StorageError: a file cannot be written; those that are whole are kept.
    """
    with exclusive(out), keeping("what is encoded is kept: run the same command again"):
        return _build(episodes, tokenizer_path, out, settings, runtime)


def _build(episodes: Path, tokenizer_path: Path, out: Path, settings: LatentsSection, runtime: Runtime) -> Report:
    store = EpisodeStore.open(episodes)
    if not store.ids("train"):
        raise DataError(
            f"{episodes} has no training episode", hint="record episodes with `ahriuwu data record`, or import more"
        )
    tokenizer, header = load_tokenizer(tokenizer_path, runtime.device)
    runtime.serve(tokenizer)
    require_frames(store.frame_spec, header.specs["frame"], tokenizer_path)
    spec = tokenizer.latent_spec
    entries, moments = [], _Moments(spec.dim_token)
    for record in tracked("latents", store.episodes, "episodes"):
        path, count = out / f"{record.id}.safetensors", num_latents(record.num_steps + 1, spec.stride)
        source = {"tokenizer": header.fingerprint, "episode": record.sha256, "dtype": settings.dtype}
        if record.video is not None:
            source["video"] = record.video.sha256
        if not is_made_from(path, source):
            frames = map(torch.from_numpy, pieces(store.frames(record.id), settings.batch_size))
            latents = encode_pieces(tokenizer, frames, runtime)
            write_latents(path, latents, (count, spec.num_tokens, spec.dim_token), source, record.id)
        if record.split == "train":
            for piece in LatentFile(path).pieces():
                moments.add(piece.astype(np.float32))
        entries.append(
            {
                "id": record.id,
                "file": path.name,
                "num_frames": record.num_steps + 1,
                "num_latents": count,
                "split": record.split,
                "sha256": hash_file(path),
            }
        )
    config = settings.model_dump(exclude={"shard_frames", *NOT_CONTENT})
    before = _earlier(out, store, header, config, entries)
    spec = spec.model_copy(update=moments.statistics() if before is None else _statistics(before))
    written = write_manifest(
        out,
        "latents",
        config=config,
        specs={"latent": spec.model_dump(), "frame": store.frame_spec.model_dump()},
        parents={"episodes": store.header.fingerprint, "tokenizer": header.fingerprint},
        info={"episodes": entries} | ({} if before is None else _growth(before, len(entries))),
    )
    return _report(written, spec)


def require_frames(found: FrameSpec, wanted: dict[str, object], tokenizer_path: Path) -> None:
    """Refuse frames of another size than the tokenizer's."""
    expected = FrameSpec.model_validate(wanted)
    if (found.height, found.width) != (expected.height, expected.width):
        raise ArtifactError(
            f"episodes have {found.height}x{found.width} frames; "
            f"{tokenizer_path} was made for {expected.height}x{expected.width}",
            hint="record at that size or train a tokenizer on these episodes",
        )


# ---------------------------------------------------------------- growth


def measured_episodes(header: Header) -> int:
    """How many of the first episodes the statistics of these latents are of (of those, the training split)."""
    return int(header.info.get("measured_episodes", len(header.info["episodes"])))


def _earlier(
    out: Path, store: EpisodeStore, tokenizer: Header, config: dict[str, Any], entries: list[dict[str, Any]]
) -> Header | None:
    """The latents at `out`, when what they hold is the beginning of `entries`; None when there are no such latents."""
    if not (out / MANIFEST_NAME).is_file():
        return None
    try:
        before = read_latents(out).header
    except ArtifactError:
        return None  # damaged: it is made again
    same = before.config == config and before.parents.get("tokenizer") == tokenizer.fingerprint
    if not same or not is_parent(before, store.header):
        return None
    there = [_content(entry) for entry in before.info["episodes"]]
    return before if there == [_content(entry) for entry in entries[: len(there)]] else None


def _content(entry: dict[str, Any]) -> tuple[str, str, str]:
    return entry["id"], entry["split"], entry["sha256"]


def _statistics(before: Header) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation per channel as they are there."""
    spec = LatentSpec.model_validate(before.specs["latent"])
    return {"mean": spec.mean, "std": spec.std}


def _growth(before: Header, num_episodes: int) -> dict[str, Any]:
    """What latents of `num_episodes` say of having grown from `before`."""
    measured = measured_episodes(before)
    added = num_episodes > len(before.info["episodes"])
    found: dict[str, Any] = {GROWN_FROM: outgrown(before) if added else grown_from(before)}
    return found if num_episodes == measured else found | {"measured_episodes": measured}


# ---------------------------------------------------------------- one file


class _Moments:
    """Running count, sum and sum of squares per channel, in double precision."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.total = np.zeros(channels)
        self.square = np.zeros(channels)

    def add(self, latents: np.ndarray) -> None:
        """latents (K, N, C)."""
        flat = latents.reshape(-1, latents.shape[-1]).astype(np.float64)
        self.count += len(flat)
        self.total += flat.sum(axis=0)
        self.square += np.square(flat).sum(axis=0)

    def statistics(self) -> dict[str, tuple[float, ...]]:
        """Mean and standard deviation (at least 1e-3) per channel."""
        mean = self.total / self.count
        std = np.sqrt(np.maximum(self.square / self.count - mean**2, 0)).clip(1e-3)
        return {"mean": tuple(float(v) for v in mean), "std": tuple(float(v) for v in std)}


def _report(written: Header, spec: LatentSpec) -> Report:
    entries, measured = written.info["episodes"], measured_episodes(written)
    frames, latents = (sum(entry[key] for entry in entries) for key in ("num_frames", "num_latents"))
    pace = "frame" if spec.stride == 1 else f"{spec.stride} frames"
    rows = [
        ("episodes", str(len(entries))),
        ("frames", f"{frames:,}"),
        ("latents", f"{latents:,}, one per {pace}"),
        ("tokens of a latent", f"{spec.num_tokens} x {spec.dim_token} ({spec.layout})"),
        ("mean of channel means", f"{np.mean(spec.mean):+.3f}"),
        ("mean of channel spreads", f"{np.mean(spec.std):.3f}"),
        ("fingerprint", written.fingerprint),
    ]
    data = {
        "episodes": len(entries),
        "frames": frames,
        "latents": latents,
        "latent": spec.model_dump(),
        "fingerprint": written.fingerprint,
        "measured_episodes": measured,
    }
    notes = [f"means and spreads are those of the first {measured} episodes: remove the folder to measure them anew"]
    return Report("latents", ("what", "value"), rows, data, notes if measured < len(entries) else [])
