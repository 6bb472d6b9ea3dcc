"""`bench sampler`: a dream that goes on frame by frame, decoded as it goes, beside the least time it could take."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ahriuwu_cli.bench.compiled import compare_compiled
from ahriuwu_cli.bench.config import BenchConfig
from ahriuwu_cli.bench.dream import DecodedDream, fitting_tokenizer
from ahriuwu_cli.bench.flops import Cost, decode_pass, dynamics_pass, num_parameters
from ahriuwu_cli.bench.machine import Machine
from ahriuwu_cli.bench.measured import Findings, Item
from ahriuwu_cli.bench.profile import profile_work
from ahriuwu_cli.bench.timing import PeakMemory, Spread, memory_in_use, no_collection, seconds_of
from ahriuwu_cli.bench.tokenizer import look_back
from ahriuwu_cli.core.device import apply_threads, resolve_runtime
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.training.stage import seed_everything

TENTHS = 10


def bench_sampler(config: BenchConfig, *, profile: bool = False) -> Report:
    """Measure frames one by one: the dream, the decoding, both; their floor; and whether cost and memory stay.

    Raises:
        ConfigError: the tokenizer's latents are not those of the work, or its frames do not fit it.
        DeviceError: the device is absent or cannot compute in the precision.
    """
    apply_threads(config.run)
    machine, findings = Machine(resolve_runtime(config.run), config.timing), Findings()
    fitting_tokenizer(config)  # what does not fit is refused before anything is measured
    machine.visit()
    memory = PeakMemory(machine.runtime.device)
    seed_everything(config.run.seed)
    world = DecodedDream(config, machine.runtime)
    run = _go_on(config, machine, world)
    peak = memory.bytes()
    machine.visit()
    costs = frame_costs(config, world)
    findings.items += _items(config, machine, run, costs, world, peak)
    findings.notes += _notes(machine, findings.items, costs, run)
    if machine.runtime.compile:
        compare_compiled(config, machine, findings, costs.dream_flops)
    if profile:
        findings.profiles.append(profile_work(findings.items[0].name, world.frame, machine.runtime.device))
    return findings.report("sampler", config, ("frame", "latent", "tokenizer", "dynamics", "sampler"), machine)


# ---------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Run:
    """Seconds of every frame's dream and decoding, and the memory in use after each tenth of the frames."""

    dream: Sequence[float]
    decode: Sequence[float]
    memory: Sequence[int | None]

    @property
    def frame(self) -> list[float]:
        """Seconds of every frame, both together."""
        return [dream + decode for dream, decode in zip(self.dream, self.decode, strict=True)]

    def tenth(self, which: int) -> float:
        """Median seconds of a frame in one tenth of the run, counted from 0."""
        size = len(self.dream) // TENTHS
        return statistics.median(self.frame[which * size : (which + 1) * size])

    @property
    def growth(self) -> int | None:
        """Bytes by which memory in use grew from the end of the first tenth to the end of the last."""
        first, last = self.memory[0], self.memory[-1]
        return None if first is None or last is None else last - first


def _go_on(config: BenchConfig, machine: Machine, world: DecodedDream) -> Run:
    """Frame after frame; the machine's peak is looked at between tenths, so that weights stay where they are."""
    device, size = machine.runtime.device, config.sampler.frames // TENTHS
    for _ in range(config.timing.warmup + look_back(world.tokenizer)):
        world.frame()
    seconds = np.full((2, TENTHS * size), np.nan)  # filled at once: notes must not pass for growing memory
    memory = []
    with no_collection():
        for tenth in range(TENTHS):
            for index in range(tenth * size, (tenth + 1) * size):
                seconds[0, index] = seconds_of(world.dream, device)
                seconds[1, index] = seconds_of(world.decode, device)
            memory.append(memory_in_use(device))
            machine.sample()
    return Run(seconds[0].tolist(), seconds[1].tolist(), memory)


# ---------------------------------------------------------------- what it could take


@dataclass(frozen=True)
class FrameCosts:
    """What a frame must do.

    Attributes:
        blocks: how many blocks each forward pass of the dynamics goes through, as the sampler calls it.
        passes: what each of these passes must do.
        decode: one decoding.
    """

    blocks: Sequence[int]
    passes: Sequence[Cost]
    decode: Cost

    @property
    def dream_flops(self) -> int:
        """Operations of all passes."""
        return sum(cost.flops for cost in self.passes)

    def floors(self, machine: Machine) -> tuple[float, float]:
        """Least seconds of the dream and of the decoding of one frame."""
        limits = machine.peak, machine.bandwidth, machine.weight_bytes
        return sum(cost.floor(*limits) for cost in self.passes), self.decode.floor(*limits)


def frame_costs(config: BenchConfig, world: DecodedDream) -> FrameCosts:
    """Watch one frame being dreamed and count; not the first, which has nothing of its own behind it."""
    batch, context, past = config.sampler.batch_size, config.sampler.context_length, look_back(world.tokenizer)
    world.frame()
    blocks: list[int] = []
    watch = world.model.register_forward_pre_hook(lambda _, given: blocks.append(given[1].shape[1]))  # tau (B, T)
    world.frame()
    watch.remove()
    passes = [dynamics_pass(world.model, batch, length, context) for length in blocks]
    return FrameCosts(blocks, passes, decode_pass(world.tokenizer, batch, 1, past))


def _items(
    config: BenchConfig, machine: Machine, run: Run, costs: FrameCosts, world: DecodedDream, peak: int | None
) -> list[Item]:
    frames = config.sampler.batch_size * world.tokenizer.latent_spec.stride
    dream_floor, decode_floor = costs.floors(machine)
    parts = (num_parameters(world.model), num_parameters(world.tokenizer))
    dream_flops = costs.dream_flops
    rows = (
        (
            "frame: dream and decode",
            run.frame,
            dream_flops + costs.decode.flops,
            sum(parts),
            dream_floor + decode_floor,
        ),
        (f"dream alone, K = {config.sampler.steps}", run.dream, dream_flops, parts[0], dream_floor),
        ("decode alone", run.decode, costs.decode.flops, parts[1], decode_floor),
    )
    items = []
    for name, samples, flops, parameters, floor in rows:
        spread = Spread.of(samples)
        more = {"floor_seconds": floor, "ratio_to_floor": spread.median / floor}
        items.append(Item(name, spread, frames, flops, peak, parameters, more=more))
    whole = {
        "blocks_per_pass": list(costs.blocks),
        "frames_in_a_row": len(run.dream),
        "first_tenth_seconds": run.tenth(0),
        "last_tenth_seconds": run.tenth(TENTHS - 1),
        "memory_growth_bytes": run.growth,
    }
    items[0].more.update(whole)
    return items


def _notes(machine: Machine, items: Sequence[Item], costs: FrameCosts, run: Run) -> list[str]:
    """The floor in words, and the steadiness of the run."""
    weights, flops = costs.passes[0].weights * machine.weight_bytes, costs.dream_flops / sum(costs.blocks)
    passes = " + ".join(map(str, costs.blocks))
    ratios = ", ".join(
        f"{item.name}: {item.more['ratio_to_floor']:.2f}x of {_ms(item.more['floor_seconds'])}" for item in items
    )
    grown = "unknown here" if run.growth is None else f"{run.growth / 2**20:+.1f} MiB"
    return [
        f"a frame is {len(costs.passes)} passes of the dynamics over {passes} blocks; the floor of a pass is the "
        f"longer of reading {weights / 1e6:,.1f} MB of weights ({_ms(weights / machine.bandwidth)}) and computing "
        f"{flops / 1e9:.2f} GFLOP a block ({_ms(flops / machine.peak)})",
        f"time beside the floor: {ratios}",
        f"{len(run.dream):,} frames in a row: median {_ms(run.tenth(0))} a frame in the first tenth, "
        f"{_ms(run.tenth(TENTHS - 1))} in the last; memory {grown} from the first to the last",
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"
