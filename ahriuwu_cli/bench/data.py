"""`bench data`: random clips of recorded frames, raw, as video and as a JPEG file for each frame, on disk.

Shapes: F frames of an episode, B clips, T frames per clip, H x W pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from ahriuwu_cli.bench.config import BenchConfig, DataWork
from ahriuwu_cli.bench.machine import Machine
from ahriuwu_cli.bench.measured import Findings, Item
from ahriuwu_cli.bench.timing import PeakMemory, Spread, measure
from ahriuwu_cli.core.device import apply_threads, resolve_runtime
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec
from ahriuwu_cli.episodes.episode import Tracks
from ahriuwu_cli.episodes.manifest import Storage
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.tokenizer.clips import Clip, ClipReader, ClipSampler

GRAIN = 2.0
"""Spread of the noise on every pixel: without it a made-up picture would cost a codec next to nothing."""
JPEG_QUALITY = 95
FPS = 20.0

Read = Callable[[list[Clip]], np.ndarray]


def bench_data(config: BenchConfig) -> Report:
    """Measure how fast random clips are read, and what frames cost on disk, for each size and storage.

    Raises:
        DeviceError: the device is absent.
    """
    apply_threads(config.run)
    machine, findings, work = Machine(resolve_runtime(config.run), config.timing), Findings(), config.data
    machine.visit()
    for size in work.sizes:
        with tempfile.TemporaryDirectory(prefix="ahriuwu-bench-") as folder:
            _measure(Path(folder), config, size, machine, findings)
        moving_picture.cache_clear()
    machine.visit()
    return findings.report("data", config, ("data",), machine)


def _measure(folder: Path, config: BenchConfig, size: int, machine: Machine, findings: Findings) -> None:
    work = config.data
    true = moving_picture(work.episode_frames, size)
    stores = {storage: _store(folder / storage, work, size, storage) for storage in ("raw", "video")}
    _write_pictures(folder / "jpeg", stores["raw"], work, size)
    for length in work.clip_lengths:
        rng = np.random.default_rng(config.run.seed)
        sampler = ClipSampler(stores["raw"], length)
        readers: dict[str, Read] = {
            "raw": _reader(stores["raw"], length),
            "video": _reader(stores["video"], length),
            "JPEG files": partial(_read_pictures, folder / "jpeg", length),
        }
        for name, read in readers.items():
            memory = PeakMemory(machine.runtime.device)
            seconds = measure(
                partial(_read_random, read, sampler, rng, work.clips),
                config.timing.repeats,
                config.timing.warmup,
                machine.runtime.device,
                between=machine.sample,
            )
            spread = Spread.of(seconds)
            more = {"clips_per_second": work.clips / spread.median, "size": size, "clip_length": length}
            title = f"{name}, {size}x{size}: {work.clips} clips of {length}"
            findings.items.append(Item(title, spread, work.clips * length, peak_bytes=memory.bytes(), more=more))
    for name, pattern in (("raw", "raw/*.safetensors"), ("video", "video/*.mp4"), ("JPEG files", "jpeg/*/*.jpg")):
        total = sum(path.stat().st_size for path in folder.glob(pattern)) / (work.episodes * work.episode_frames)
        guess = readers[name]([Clip("000000", start) for start in range(0, work.episode_frames - length + 1, length)])
        shown = true[: guess.shape[0] * length].reshape(guess.shape)
        error = float(np.mean((guess.astype(np.float64) - shown) ** 2))
        quality = "exact" if error == 0 else f"PSNR {10 * np.log10(255**2 / error):.1f} dB"
        findings.notes.append(f"{name}, {size}x{size}: {total:,.0f} bytes for each frame, {quality}")


def _read_random(read: Read, sampler: ClipSampler, rng: np.random.Generator, count: int) -> None:
    read(sampler.draw(rng, count))


@lru_cache(maxsize=1)
def moving_picture(count: int, size: int) -> np.ndarray:
    """A panning scene with moving boxes and grain, (F, H, W, 3) uint8, the same every time."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(40, 200, (9, 17, 3))
    wide = np.asarray(Image.fromarray(coarse.astype(np.uint8)).resize((2 * size, size), Image.Resampling.BICUBIC))
    place, speed = rng.uniform(0, size, (8, 2)), rng.normal(0, size / 60, (8, 2))
    colour, side = rng.integers(0, 256, (8, 3)), max(2, size // 12)
    frames = np.empty((count, size, size, 3), np.uint8)
    for number in range(count):
        frame = np.roll(wide, -(number * size // 128), axis=1)[:, :size].astype(np.float32)
        for at, paint in zip((place + number * speed) % (size - side), colour, strict=True):
            top, left = at.astype(int)
            frame[top : top + side, left : left + side] = paint
        frames[number] = (frame + rng.normal(0, GRAIN, frame.shape)).clip(0, 255).round()
    return frames


def _store(folder: Path, work: DataWork, size: int, storage: Storage) -> EpisodeStore:
    """Episodes of the picture, each begun at another frame of it."""
    spec = ActionSpec(components=(ActionComponent(name="none", type="binary"),))
    frame = FrameSpec(height=size, width=size, fps=FPS)
    store = EpisodeStore.create(folder, spec, frame, "made up", {}, storage=storage)
    picture, steps = moving_picture(work.episode_frames, size), work.episode_frames - 1
    records = []
    for number in range(work.episodes):
        tracks = Tracks(
            actions=np.zeros((steps, 1), np.float32),
            action_valid=np.zeros(steps, bool),
            rewards=np.zeros(steps, np.float32),
            terminals=np.zeros(steps, bool),
            truncations=np.arange(steps) == steps - 1,
            timestamps=np.arange(steps + 1) / FPS,
            task="made up",
            seed=number,
            policy="nobody",
        )
        records.append(store.write(f"{number:06d}", tracks, [np.roll(picture, -number, axis=0)]))
    store.list_episodes(records)
    return store


def _reader(store: EpisodeStore, length: int) -> Read:
    reader = ClipReader(store, length)
    return lambda clips: reader.read(clips).numpy()


def _write_pictures(folder: Path, store: EpisodeStore, work: DataWork, size: int) -> None:
    picture = moving_picture(work.episode_frames, size)
    for number in range(work.episodes):
        place = folder / f"{number:06d}"
        place.mkdir(parents=True)
        for frame, pixels in enumerate(np.roll(picture, -number, axis=0)):
            Image.fromarray(pixels).save(place / f"{frame:06d}.jpg", quality=JPEG_QUALITY)


def _read_pictures(folder: Path, length: int, clips: list[Clip]) -> np.ndarray:
    """Clips (B, T, H, W, 3) as a loader of folders of pictures reads them."""
    found = []
    for clip in clips:
        names = [folder / clip.episode / f"{clip.start + step:06d}.jpg" for step in range(length)]
        found.append(np.stack([np.asarray(Image.open(name).convert("RGB")) for name in names]))
    return np.stack(found)
