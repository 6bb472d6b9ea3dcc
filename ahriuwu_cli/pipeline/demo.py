"""`demo`: the whole road on the built-in game with the tiny preset; what is finished and current is skipped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ahriuwu_cli.core.artifact import Kind, read_header
from ahriuwu_cli.core.errors import InputError, TrainingInterrupted
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.config import CONFIG_NAME, Run, load_run
from ahriuwu_cli.pipeline.template import init
from ahriuwu_cli.pipeline.unfinished import Work, latents_left, recording_left, training_left


def run_demo(folder: Path, seed: int, show: Callable[[Report], None]) -> None:
    """Go the road in `folder`, showing a report per stage; a second call goes on where the first stopped.

    The settings are those of the folder's run.toml, which the first call writes from the preset tiny. What
    was made from parents that are no longer there as they were is made again.

    Raises:
        InputError: the folder holds a run with another seed.
        TrainingInterrupted: Ctrl-C or SIGTERM; what is done is kept.
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
    try:
        for stage in _left_to_do(run):
            show(stage())
    except TrainingInterrupted as stop:
        raise TrainingInterrupted(stop.message, hint="run the same command again to go on") from stop
    show(_closing(run, time.monotonic() - started))


def _left_to_do(run: Run) -> Work:
    """Every stage that is not finished, in order; each is looked at when those before it are done."""
    config = run.config
    yield from recording_left(run)
    yield from training_left(run, "tokenizer", config.tokenizer.train, stages.train_tokenizer)
    yield from latents_left(run)
    yield from training_left(run, "dynamics", config.dynamics.train, stages.train_dynamics)
    yield from training_left(run, "agent", config.agent.train, stages.finetune_agent)
    yield from training_left(run, "imagination", config.imagine.train, stages.train_imagination)
    if _said(run.evaluation / "rollout" / "rollout.json", "fingerprint") != _fingerprint(run.dynamics, "dynamics"):
        yield partial(stages.evaluate_rollout, run)
    played = {"bc": _fingerprint(run.agent, "agent"), "imagination": _fingerprint(run.imagination, "imagination")}
    said = _said(run.evaluation / "agent" / "agents.json", "fingerprints")
    if not isinstance(said, dict) or not played.items() <= said.items():  # others may have played too
        yield partial(stages.evaluate_agent, run)


def _fingerprint(weights: Path, kind: Kind) -> str:
    return read_header(weights, kind).fingerprint


def _said(results: Path, key: str) -> object:
    """What an evaluation's JSON says under `key`; None when it is not there or not whole."""
    try:
        return json.loads(results.read_text(encoding="utf-8")).get(key)
    except (OSError, ValueError):
        return None


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
