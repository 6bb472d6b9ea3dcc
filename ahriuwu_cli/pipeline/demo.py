"""`demo`: the whole road on the built-in game with the tiny preset; finished stages are skipped."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ahriuwu_cli.core.artifact import MANIFEST_NAME, read_header
from ahriuwu_cli.core.errors import AhriuwuError, InputError
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.config import CONFIG_NAME, Run, load_run
from ahriuwu_cli.pipeline.template import init


def run_demo(folder: Path, seed: int, show: Callable[[Report], None]) -> None:
    """Go the road in `folder`, showing a report per stage; a second call goes on where the first stopped.

    Raises:
        InputError: the folder holds a run with another seed.
    """
    config = folder / CONFIG_NAME
    if not config.exists():
        show(init(folder, "tiny", None, seed))
    run = load_run(config)
    if run.config.run.seed != seed:
        raise InputError(
            f"{config} was made with seed {run.config.run.seed}, not {seed}",
            hint=f"use --seed {run.config.run.seed}, or another --dir",
        )
    started = time.monotonic()
    for finished, stage in _road(run):
        if not finished:
            show(stage())
    show(_closing(run, time.monotonic() - started))


def _road(run: Run) -> list[tuple[bool, Callable[[], Report]]]:
    """Every stage that is left to do, in order, as (finished, how to run it)."""

    def training(weights: Path, stage: Callable[..., Report]) -> tuple[bool, Callable[[], Report]]:
        return _finished(weights), lambda: stage(run, resume=_started(weights))

    def once(product: Path, stage: Callable[[Run], Report]) -> tuple[bool, Callable[[], Report]]:
        return product.exists(), partial(stage, run)

    missing = run.config.data.episodes - _recorded(run.episodes)
    return [
        (missing <= 0, partial(_record, run, missing)),
        training(run.tokenizer, stages.train_tokenizer),
        once(run.latents / MANIFEST_NAME, stages.build_latents),
        once(run.packed / MANIFEST_NAME, stages.pack_latents),
        training(run.dynamics, stages.train_dynamics),
        training(run.agent, stages.finetune_agent),
        training(run.imagination, stages.train_imagination),
        once(run.evaluation / "rollout" / "rollout.json", stages.evaluate_rollout),
        once(run.evaluation / "agent" / "agents.json", stages.evaluate_agent),
    ]


def _record(run: Run, missing: int) -> Report:
    """Record the episodes that are not there yet."""
    data = run.config.data.model_copy(update={"episodes": missing})
    rest = replace(run, config=run.config.model_copy(update={"data": data}))
    return stages.record(rest, append=run.episodes.exists())


def _recorded(store: Path) -> int:
    manifest = store / MANIFEST_NAME
    return len(read_header(store, "episodes").info["episodes"]) if manifest.exists() else 0


def _started(weights: Path) -> bool:
    return weights.with_name(f"{weights.stem}.state.safetensors").exists()


def _finished(weights: Path) -> bool:
    if not weights.exists():
        return False
    kind = weights.stem
    try:
        return bool(read_header(weights, kind).info["finished"])  # type: ignore[arg-type]
    except AhriuwuError:
        return False


def _closing(run: Run, seconds: float) -> Report:
    rows = [
        ("the dream beside the truth", str(run.evaluation / "rollout" / "rollout.gif")),
        ("PSNR and SSIM over the horizon", str(run.evaluation / "rollout" / "rollout.png")),
        ("returns in the real game", str(run.evaluation / "agent" / "returns.png")),
        ("the agent playing", str(run.evaluation / "agent" / "imagination.gif")),
        ("check the whole run", f"ahriuwu doctor {run.folder}"),
        ("your own run", "ahriuwu init runs/mine --preset tiny --env ahriuwu/Bricks-v0"),
    ]
    return Report("demo finished", ("what", "where"), rows, {"seconds": seconds}, (f"{seconds / 60:.1f} minutes",))
