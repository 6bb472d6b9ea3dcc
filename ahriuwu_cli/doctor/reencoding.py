"""Latents against frames: what each file says it was made from, and a sample of frames through the tokenizer again.

Shapes: F frames, K latents, N latent tokens, C channels.

Latents that were scaled or exchanged and sealed again have right hashes. Encoding everything again costs as much as
building; a sample finds what is wrong everywhere, not one wrong episode among thousands.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch

from ahriuwu_cli.core.content import require_content
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import AhriuwuError
from ahriuwu_cli.core.lineage import is_parent
from ahriuwu_cli.core.tensorfile import read_tensors
from ahriuwu_cli.doctor.checks import Subject
from ahriuwu_cli.doctor.findings import Area, counted
from ahriuwu_cli.episodes.manifest import EpisodeRecord
from ahriuwu_cli.episodes.reading import FrameReader
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.latents.encoded import LatentFile
from ahriuwu_cli.latents.manifest import EncodedEpisode, Latents, read_latents
from ahriuwu_cli.tokenizer.checkpoint import load_tokenizer
from ahriuwu_cli.tokenizer.coding import encode_episode
from ahriuwu_cli.tokenizer.protocol import EncodeStream, Tokenizer

MAX_PIXELS = 1 << 22
"""Pixels that are encoded again at most: a few seconds on a CPU."""
MAX_EPISODES = 64
"""Episodes that frames are taken from, spread over the recording."""
FRAMES_IN_ORDER = 16
"""Frames at an episode's beginning that a tokenizer that looks back is shown."""
MAX_DIFFERENCE = 0.1
"""Root mean square difference in an episode, as share of the channels' spread; bf16 gives about 0.01."""
MAX_SCALE = 0.03
"""How far the latents may be from once those of the frames."""
AGAIN = "move the latents away, then run `ahriuwu latents build` and what follows again"


def examine_origins(area: Area, subject: Subject) -> None:
    """Pitfall 20: every file of latents says that it was made from this episode by this tokenizer."""
    latents, store = _parents(subject)
    if latents is None or store is None:
        return
    known = {record.id: record for record in store.episodes}
    faults, said = [], 0
    for entry in latents.info.episodes:
        try:
            path = require_content(subject.path, entry.file, entry.sha256, again=AGAIN)
            file = LatentFile(path)
            text = file.origin()
            origin = None if text is None else json.loads(text)
            if not isinstance(origin, dict):
                continue  # an older file
            content = file.content()
        except (AhriuwuError, ValueError, KeyError):
            continue  # damaged: `files` says so
        said += 1
        wrong = [
            what
            for what, found, wanted in (
                ("another episode", (origin.get("episode"), origin.get("video")), _hashes(known.get(entry.id))),
                ("another tokenizer", origin.get("tokenizer"), subject.header.parents.get("tokenizer")),
                ("other latents", origin.get("content"), content),
            )
            if found != wanted
        ]
        if wrong:
            faults.append(f"{entry.file} says that it was made from {' and '.join(wrong)}")
    if said:
        area.judge("origins", faults, f"{counted(said, 'file')} made from the episodes and the tokenizer here", AGAIN)


def examine_encoding(area: Area, subject: Subject) -> None:
    """Pitfall 11: a sample of frames gives the latents that are there."""
    latents, store = _parents(subject)
    tokenizer_header = subject.headers.get("tokenizer")
    if latents is None or store is None or tokenizer_header is None:
        return
    if not is_parent(subject.header, tokenizer_header):
        return  # `made from` says so
    try:
        tokenizer, _ = load_tokenizer(subject.run.tokenizer, torch.device("cpu"))
    except AhriuwuError as error:
        area.note("encoding", f"no frame can be encoded again: {error.message}")
        return
    there, again = [], []
    for entry in _sample(latents, tokenizer, store):
        try:
            path = require_content(subject.path, entry.file, entry.sha256, again=AGAIN)
            stored = read_tensors(path)["latents"].float()
            frames = store.frames(entry.id)
        except (AhriuwuError, KeyError):
            continue  # damaged: another check says so
        if len(frames) != entry.num_frames or len(stored) != entry.num_latents:
            continue
        pair = sampled_pair(tokenizer, frames, stored)
        there.append(pair[0].numpy())
        again.append(pair[1].numpy())
    if there:
        _judge(area, there, again, np.array(latents.latent.std))


def _hashes(record: EpisodeRecord | None) -> tuple[str | None, str | None]:
    """Of an episode's file, and of its video where it has one."""
    return (None, None) if record is None else (record.sha256, record.video.sha256 if record.video else None)


def _parents(subject: Subject) -> tuple[Latents | None, EpisodeStore | None]:
    """The latents and the store they were made from; None where one is damaged, absent or another."""
    episodes = subject.headers.get("episodes")
    if episodes is None or not is_parent(subject.header, episodes):
        return None, None
    try:
        return read_latents(subject.path), EpisodeStore.open(subject.run.episodes, settle=False)
    except AhriuwuError:
        return None, None


def _sample(latents: Latents, tokenizer: Tokenizer, store: EpisodeStore) -> list[EncodedEpisode]:
    """Episodes spread over all there are, as many as MAX_PIXELS allow."""
    frames = FRAMES_IN_ORDER if _looks_back(tokenizer) else 2
    size = store.frame_spec.height * store.frame_spec.width
    number = int(np.clip(MAX_PIXELS // (frames * size), 1, MAX_EPISODES))
    entries = latents.info.episodes
    chosen = np.unique(np.linspace(0, len(entries) - 1, min(number, len(entries))).round().astype(int))
    return [entries[index] for index in chosen]


def _looks_back(tokenizer: Tokenizer) -> bool:
    """True when a latent depends on more than its own frame: then only an episode's beginning can be encoded alone."""
    return type(tokenizer.encode_stream()) is not EncodeStream


def sampled_pair(tokenizer: Tokenizer, frames: FrameReader, stored: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (K', N, C) of some frames as they are there, and as the tokenizer gives them now."""
    runtime = Runtime(torch.device("cpu"), "fp32")
    if not _looks_back(tokenizer):
        places = [len(frames) // 2, len(frames) - 1]
        shown = [torch.from_numpy(frames.read(place, place + 1)) for place in places]
        return stored[places], encode_episode(tokenizer, shown, runtime)
    stride = tokenizer.latent_spec.stride
    whole = min(
        1 + (FRAMES_IN_ORDER - 1) // stride, 1 + (len(frames) - 1) // stride
    )  # latents of frames that are there
    again = encode_episode(tokenizer, [torch.from_numpy(frames.read(0, 1 + stride * (whole - 1)))], runtime)
    return stored[:whole], again[:whole]


def _judge(area: Area, there: Sequence[np.ndarray], again: Sequence[np.ndarray], spread: np.ndarray) -> None:
    """Compare latents (K, N, C) of some episodes in units of the channels' spread (C,), each for itself."""
    parts = [(np.ravel(old / spread), np.ravel(new / spread)) for old, new in zip(there, again, strict=True)]
    worst = max(float(np.sqrt(np.square(old - new).mean())) for old, new in parts)
    old, new = (np.concatenate(part) for part in zip(*parts, strict=True))
    scale = float(old @ new / max(float(new @ new), 1e-12))
    sample = f"{counted(sum(map(len, there)), 'latent')} of {counted(len(there), 'episode')}"
    text = f"{sample} encoded again: at most {worst:.2g} of the spread away from what is there"
    if worst <= MAX_DIFFERENCE and abs(scale - 1) <= MAX_SCALE:
        area.ok("encoding", text)
        return
    scaled = f", which is {scale:.3g} times as large" if abs(scale - 1) > MAX_SCALE else ""
    area.problem("encoding", f"{text}{scaled}: the latents are not of these frames", AGAIN)
