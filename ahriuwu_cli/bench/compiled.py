"""`bench sampler` with run.compile: one dream eager and compiled, frame by frame in turn, and when compiling pays."""

from __future__ import annotations

from torch import Tensor

from ahriuwu_cli.bench.config import BenchConfig
from ahriuwu_cli.bench.dream import DecodedDream
from ahriuwu_cli.bench.flops import num_parameters
from ahriuwu_cli.bench.machine import Machine
from ahriuwu_cli.bench.measured import Findings, Item
from ahriuwu_cli.bench.timing import Spread, no_collection, seconds_of
from ahriuwu_cli.core.training.compilation import Tell, is_compiled, without_kept_code
from ahriuwu_cli.core.training.stage import seed_everything

NAMES = ("dream alone, eager", "dream alone, compiled")

FIRST = 2
"""Frames that are compared. In the second a pass goes over two blocks, and then everything has been compiled."""


def compare_compiled(config: BenchConfig, machine: Machine, findings: Findings, flops: int) -> None:
    """Add a row of each, the largest difference of their frames, and after how many frames compiling has paid.

    Where nothing could be compiled, a note says why and nothing is added. `flops` are those of one frame's dream.
    """
    with without_kept_code():
        eager, plain, shown = _first_frames(config, machine, None)
        compiled, cold, found = _first_frames(config, machine, findings.notes.append)
    if not is_compiled(compiled.model):
        return
    seconds = _in_turn(config, machine, (eager, compiled))
    spreads = [Spread.of(samples) for samples in seconds]
    saved = spreads[0].median - spreads[1].median
    difference = max(float((one - other).abs().max()) for one, other in zip(shown, found, strict=True))
    more = {
        "compile_seconds": cold - plain,
        "largest_difference": difference,
        "largest_value": max(float(one.abs().max()) for one in shown),
        "speed_beside_eager": spreads[0].median / spreads[1].median,
        "break_even_frames": (cold - plain) / saved if saved > 0 else None,
    }
    parameters, frames = num_parameters(eager.model), config.sampler.batch_size
    for name, spread, facts in zip(NAMES, spreads, ({}, more), strict=True):
        findings.items.append(Item(name, spread, frames, flops, parameters=parameters, more=facts))
    findings.notes.append(_note(more, frames))


def _first_frames(
    config: BenchConfig, machine: Machine, compiled: Tell | None
) -> tuple[DecodedDream, float, list[Tensor]]:
    """A dream, the seconds until its first frames were there, and these (B, N, C); equal but for the compiling."""
    seed_everything(config.run.seed)
    worlds: list[DecodedDream] = []
    shown = []

    def begin() -> None:
        worlds.append(DecodedDream(config, machine.runtime, compiled))
        for _ in range(FIRST):
            worlds[0].dream()
            shown.append(worlds[0].z.float().cpu())

    seconds = seconds_of(begin, machine.runtime.device)
    return worlds[0], seconds, shown


def _in_turn(config: BenchConfig, machine: Machine, worlds: tuple[DecodedDream, ...]) -> list[list[float]]:
    """Seconds of every frame of each world; what else the machine does falls on all of them alike."""
    seconds: list[list[float]] = [[] for _ in worlds]
    with no_collection():
        for index in range(config.timing.warmup + config.sampler.frames):
            for world, samples in zip(worlds, seconds, strict=True):
                took = seconds_of(world.dream, machine.runtime.device)
                if index >= config.timing.warmup:
                    samples.append(took)
    return seconds


def _note(facts: dict[str, float | None], frames: int) -> str:
    pays = "which nothing earns back: compiled is not faster here"
    if facts["break_even_frames"] is not None:
        pays = f"earned back after {facts['break_even_frames']:,.0f} frames of {frames} dreams"
    return (
        f"compiled code is {facts['speed_beside_eager']:.2f} times as fast; the first frames differ by "
        f"{facts['largest_difference']:.1e} at most, in numbers up to {facts['largest_value']:.1f}; compiling took "
        f"{facts['compile_seconds']:.1f} s (less where torch has kept the code of an earlier run), {pays}"
    )
