"""`bench latents`: building and packing latents of made-up episodes on disk, and reading windows of them.

Shapes: B windows, T frames per window, F frames of an episode.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ahriuwu_cli.bench.config import BenchConfig
from ahriuwu_cli.bench.dynamics import work_specs
from ahriuwu_cli.bench.flops import encode_pass, num_parameters
from ahriuwu_cli.bench.machine import Machine
from ahriuwu_cli.bench.measured import Findings, Item
from ahriuwu_cli.bench.profile import profile_work
from ahriuwu_cli.bench.timing import PeakMemory, Spread, measure
from ahriuwu_cli.bench.tokenizer import build_tokenizer, given_frames
from ahriuwu_cli.bench.windows import compare_windows
from ahriuwu_cli.core.artifact import write_weights
from ahriuwu_cli.core.device import apply_threads, resolve_runtime
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.core.training.stage import seed_everything
from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.latents.build import build_latents
from ahriuwu_cli.latents.config import LatentsSection
from ahriuwu_cli.latents.pack import pack_latents
from ahriuwu_cli.latents.windows import LatentWindows
from ahriuwu_cli.tokenizer.protocol import Tokenizer

WINDOWS = 50
"""Batches of windows in one repeat: one alone takes too little time to be measured well."""


def bench_latents(config: BenchConfig, *, profile: bool = False) -> Report:
    """Measure the three ways of latents: `latents build`, `latents pack` and the windows that training reads.

    Raises:
        ConfigError: the frames do not fit the tokenizer.
        DeviceError: the device is absent or cannot compute in the precision.
    """
    apply_threads(config.run)
    machine, findings = Machine(resolve_runtime(config.run), config.timing), Findings()
    seed_everything(config.run.seed)
    tokenizer = build_tokenizer(config, config.tokenizer.model)
    machine.visit()
    with tempfile.TemporaryDirectory(prefix="ahriuwu-bench-") as folder:
        _measure_in(Path(folder), config, tokenizer, machine, findings, profile=profile)
    compare_windows(config, machine, findings)
    machine.visit()
    return findings.report("latents", config, ("frame", "latent", "tokenizer", "dynamics", "latents"), machine)


def _measure_in(
    folder: Path, config: BenchConfig, tokenizer: Tokenizer, machine: Machine, findings: Findings, *, profile: bool
) -> None:
    """All items, with their artifacts in `folder`."""
    work, runtime = config.latents, machine.runtime
    batch, length = config.dynamics.batch_size, config.dynamics.length
    episodes, weights = folder / "episodes", folder / "tokenizer.safetensors"
    latents, packed = folder / "latents", folder / "packed"
    _write_episodes(episodes, config, tokenizer.frame)
    _write_tokenizer(weights, episodes, tokenizer)
    settings, frames = LatentsSection(batch_size=work.batch_size), work.episodes * work.episode_frames

    def build() -> None:
        shutil.rmtree(latents, ignore_errors=True)  # what is there already would be kept
        build_latents(episodes, weights, latents, settings, runtime)

    def pack() -> None:
        pack_latents(episodes, latents, packed, settings)

    build()
    pack()
    windows, rng = LatentWindows(packed, "train"), np.random.default_rng(config.run.seed)

    def read() -> None:
        for _ in range(WINDOWS):
            windows.read(windows.sampler.draw(rng, batch, length), length).to(runtime.device)

    cost = work.episodes * encode_pass(tokenizer, 1, work.episode_frames).flops
    steps: tuple[tuple[str, Callable[[], None], int, int | None, int | None], ...] = (
        (f"build: {work.episodes} episodes encoded and written", build, frames, cost, num_parameters(tokenizer)),
        ("pack: latents and blocks joined in a shard", pack, frames, None, None),
        (f"windows: {WINDOWS} batches of {batch} x {length} read", read, WINDOWS * batch * length, None, None),
    )
    for name, step, count, flops, parameters in steps:
        memory = PeakMemory(runtime.device)
        seconds = measure(step, config.timing.repeats, config.timing.warmup, runtime.device, between=machine.sample)
        findings.items.append(Item(name, Spread.of(seconds), count, flops, memory.bytes(), parameters))
        if profile:
            findings.profiles.append(profile_work(name, step, runtime.device))


def _write_episodes(path: Path, config: BenchConfig, frame_spec: FrameSpec) -> None:
    """Episodes of random frames and actions, cut off at their last step."""
    num_frames, shape = config.latents.episode_frames, config.latent
    _, action_spec = work_specs(config)
    store = EpisodeStore.create(path, action_spec, frame_spec, "made up", {})
    rng = np.random.default_rng(config.run.seed)
    frames, steps = given_frames(config, 1, num_frames)[0].numpy(), num_frames - 1
    for index in range(config.latents.episodes):
        never = np.zeros(steps, dtype=bool)
        episode = Episode(
            frames=np.roll(frames, index, axis=0),
            actions=rng.integers(shape.num_actions, size=(steps, 1)).astype(np.float32),
            action_valid=~never,
            rewards=np.zeros(steps, dtype=np.float32),
            terminals=never,
            truncations=np.arange(steps) == steps - 1,
            timestamps=np.arange(num_frames) / frame_spec.fps,
            task="made up",
            seed=index,
            policy="random",
        )
        store.append([episode])


def _write_tokenizer(path: Path, episodes: Path, tokenizer: Tokenizer) -> None:
    """The fresh tokenizer as an artifact that `latents build` takes."""
    write_weights(
        path,
        "tokenizer",
        tokenizer.state_dict(),
        config={"model": tokenizer.config.model_dump()},
        specs={"frame": tokenizer.frame.model_dump(), "latent": tokenizer.latent_spec.model_dump()},
        parents={"episodes": EpisodeStore.open(episodes).fingerprint},
    )
