"""Reading windows of packed latents, beside the least that can be done and what loaders of single frames do.

Shapes: R rows (latents) of a shard, B windows, T latents of a window, N latent tokens, C channels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from ahriuwu_cli.bench.config import BenchConfig, WindowsWork
from ahriuwu_cli.bench.machine import Machine
from ahriuwu_cli.bench.measured import Findings, Item
from ahriuwu_cli.bench.timing import PeakMemory, Spread, measure
from ahriuwu_cli.core.artifact import write_manifest
from ahriuwu_cli.core.content import hash_file
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec, LatentSpec
from ahriuwu_cli.core.tensorfile import write_tensors
from ahriuwu_cli.latents.windows import LatentWindows

NUM_EPISODES = 4
Places = Sequence[tuple[int, int]]  # (episode, first latent)


def compare_windows(config: BenchConfig, machine: Machine, findings: Findings) -> None:
    """Time the same random windows read three ways, for each layout of latents."""
    work = config.latents.windows
    for tokens, channels in work.layouts:
        with tempfile.TemporaryDirectory(prefix="ahriuwu-bench-") as name:
            _compare(Path(name), work, tokens, channels, config, machine, findings)


def _compare(
    folder: Path, work: WindowsWork, tokens: int, channels: int, config: BenchConfig, machine: Machine,
    findings: Findings,
) -> None:  # fmt: skip
    rng = np.random.default_rng(config.run.seed)
    latents = rng.standard_normal((work.rows, tokens, channels), np.float32).astype(np.float16)
    _write_packed(folder, latents)
    np.save(folder / "plain.npy", latents)
    (folder / "frames").mkdir()
    for row, latent in enumerate(latents):
        np.save(folder / "frames" / f"{row:06d}.npy", latent)
    windows, plain = LatentWindows(folder, "train"), np.load(folder / "plain.npy", mmap_mode="r")
    size, length = work.rows // NUM_EPISODES, work.length

    def packed(places: Places) -> torch.Tensor:
        return windows.read(list(places), length).latents

    def mapped(places: Places) -> torch.Tensor:
        starts = [episode * size + start for episode, start in places]
        return torch.from_numpy(np.stack([plain[row : row + length].astype(np.float32) for row in starts]))

    def single(places: Places) -> torch.Tensor:
        rows = [range(episode * size + start, episode * size + start + length) for episode, start in places]
        read = [[np.load(folder / "frames" / f"{row:06d}.npy") for row in window] for window in rows]
        return torch.from_numpy(np.stack([np.stack(window) for window in read]).astype(np.float32))

    speeds = {}
    ways: dict[str, Callable[[Places], torch.Tensor]] = {
        "packed": packed, "plain memory map": mapped, "an NPY file each": single
    }  # fmt: skip
    for name, read in ways.items():
        memory, draws = PeakMemory(machine.runtime.device), np.random.default_rng(config.run.seed)

        def step(read: Callable[[Places], torch.Tensor] = read, draws: np.random.Generator = draws) -> None:
            episodes = draws.integers(NUM_EPISODES, size=work.batch_size)
            starts = draws.integers(size - length + 1, size=work.batch_size)
            read(list(zip(episodes.tolist(), starts.tolist(), strict=True)))

        seconds = Spread.of(
            measure(step, config.timing.repeats, config.timing.warmup, machine.runtime.device, between=machine.sample)
        )
        speeds[name] = work.batch_size / seconds.median
        title = f"{name}: {work.batch_size} windows of {length} x {tokens} x {channels}"
        more = {"windows_per_second": speeds[name], "num_tokens": tokens, "dim_token": channels}
        findings.items.append(Item(title, seconds, work.batch_size * length, None, memory.bytes(), None, more=more))
    packed_speed = speeds["packed"]
    findings.notes.append(
        f"windows of {length} x {tokens} x {channels}: packed {packed_speed:,.0f} a second, "
        f"{packed_speed / speeds['plain memory map']:.2f} times a plain memory map, "
        f"{packed_speed / speeds['an NPY file each']:.0f} times an NPY file for each frame"
    )


def _write_packed(folder: Path, latents: np.ndarray) -> None:
    """Packed latents (R, N, C) float16 of NUM_EPISODES episodes, with all blocks that belong to them."""
    rows, tokens, channels = latents.shape
    size = rows // NUM_EPISODES
    never = torch.zeros(rows, dtype=torch.uint8)
    arrays = {
        "latents": torch.from_numpy(latents),
        "action": torch.zeros(rows, 1),
        "action_valid": never,
        "reward": torch.zeros(rows),
        "reward_valid": never,
        "terminal": never,
    }
    path = folder / "shard_0000.safetensors"
    write_tensors(path, arrays, {})
    places = [
        {"id": f"{number:06d}", "shard": 0, "start": number * size, "num_frames": size, "num_latents": size,
         "split": "train", "task": 0}
        for number in range(NUM_EPISODES)
    ]  # fmt: skip
    write_manifest(
        folder,
        "packed",
        config={},
        specs={
            "action": ActionSpec(components=(ActionComponent(name="none", type="binary"),)).model_dump(),
            "frame": FrameSpec(height=64, width=64, fps=20.0).model_dump(),
            "latent": LatentSpec(
                num_tokens=tokens, dim_token=channels, layout="grid", mean=(0.0,) * channels, std=(1.0,) * channels
            ).model_dump(),
        },
        parents={},
        info={
            "tasks": ["made up"],
            "episodes": places,
            "shards": [{"file": path.name, "num_latents": rows, "sha256": hash_file(path)}],
        },
    )
