"""`ahriuwu bench ...`: how fast this machine trains and dreams, beside what it could do at best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ahriuwu_cli.cli.options import AsJson
from ahriuwu_cli.cli.output import render

if TYPE_CHECKING:
    from ahriuwu_cli.bench.config import BenchConfig

app = typer.Typer(
    help="Measure speed and memory on set work.",
    epilog="All benches work on the same reference: CPU, fp32, 2 threads, a model of 9M parameters. Change it with "
    "--set or --config, as in -s run.device=cuda -s run.precision=bf16 -s dynamics.model.dim=1024.",
)

WorkFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="A TOML file with other work.", show_default="the reference work")
]
WorkChanges = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Other work, as in -s dynamics.model.dim=512. Repeatable."),
]
Repeats = Annotated[int | None, typer.Option(help="timing.repeats: timed repeats of every item.")]
Warmup = Annotated[int | None, typer.Option(help="timing.warmup: repeats before them that are not timed.")]
Profile = Annotated[bool, typer.Option("--profile", help="Say which operators the time goes to.")]


@app.command()
def tokenizer(
    config: WorkFile = None,
    overrides: WorkChanges = None,
    repeats: Repeats = None,
    warmup: Warmup = None,
    profile: Profile = False,
    as_json: AsJson = False,
) -> None:
    """Time training steps of the tokenizer and its two streams, at two patch sizes."""
    work = _work(config, overrides, {"timing.repeats": repeats, "timing.warmup": warmup})

    from ahriuwu_cli.bench.tokenizer import bench_tokenizer

    render(bench_tokenizer(work, profile=profile), as_json)


@app.command()
def dynamics(
    config: WorkFile = None,
    overrides: WorkChanges = None,
    repeats: Repeats = None,
    warmup: Warmup = None,
    profile: Profile = False,
    as_json: AsJson = False,
) -> None:
    """Time training steps of the world model on given latents, without and with bootstrap targets."""
    work = _work(config, overrides, {"timing.repeats": repeats, "timing.warmup": warmup})

    from ahriuwu_cli.bench.dynamics import bench_dynamics

    render(bench_dynamics(work, profile=profile), as_json)


@app.command()
def sampler(
    config: WorkFile = None,
    overrides: WorkChanges = None,
    frames: Annotated[int | None, typer.Option(help="sampler.frames: timed frames, in one go.")] = None,
    warmup: Warmup = None,
    profile: Profile = False,
    as_json: AsJson = False,
) -> None:
    """Time the frames of a dream, decoded as they come, and show that cost and memory stay the same."""
    work = _work(config, overrides, {"sampler.frames": frames, "timing.warmup": warmup})

    from ahriuwu_cli.bench.sampler import bench_sampler

    render(bench_sampler(work, profile=profile), as_json)


@app.command()
def latents(
    config: WorkFile = None,
    overrides: WorkChanges = None,
    repeats: Repeats = None,
    warmup: Warmup = None,
    profile: Profile = False,
    as_json: AsJson = False,
) -> None:
    """Time building and packing latents, and reading windows of them for training."""
    work = _work(config, overrides, {"timing.repeats": repeats, "timing.warmup": warmup})

    from ahriuwu_cli.bench.latents import bench_latents

    render(bench_latents(work, profile=profile), as_json)


@app.command()
def data(
    config: WorkFile = None,
    overrides: WorkChanges = None,
    repeats: Repeats = None,
    warmup: Warmup = None,
    as_json: AsJson = False,
) -> None:
    """Time random clips of recorded frames: raw, as video, and from a JPEG file for each frame."""
    work = _work(config, overrides, {"timing.repeats": repeats, "timing.warmup": warmup})

    from ahriuwu_cli.bench.data import bench_data

    render(bench_data(work), as_json)


def _work(config: Path | None, overrides: list[str] | None, flags: dict[str, int | None]) -> BenchConfig:
    """The reference work with a file, overrides and flags laid over it."""
    from ahriuwu_cli.bench.config import load_bench
    from ahriuwu_cli.pipeline.config import as_overrides

    return load_bench(config, [*(overrides or ()), *as_overrides(flags)])
