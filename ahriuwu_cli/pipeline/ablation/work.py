"""The work behind the table: the base's artifacts, then each item trained and judged, unless that is done."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, cast

from pydantic import ValidationError

from ahriuwu_cli.core.artifact import Kind, read_header
from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.device import apply_threads, resolve_runtime
from ahriuwu_cli.core.files import write_json
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.training.files import RunFiles
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.core.training.state import differences
from ahriuwu_cli.evaluation.dreaming import load_dreamer
from ahriuwu_cli.evaluation.fidelity import MEASURES, measure_fidelity
from ahriuwu_cli.evaluation.video_distance import load_video_features
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.ablation.plan import Item
from ahriuwu_cli.pipeline.chain import is_current
from ahriuwu_cli.pipeline.config import Run
from ahriuwu_cli.pipeline.unfinished import latents_left, recording_left

CADENCES = ("log_every", "checkpoint_every", "max_bad_steps")
"""Settings of a training that leave its weights as they are."""


# ---------------------------------------------------------------- the base


def prepare(base: Run) -> None:
    """Record, train the tokenizer, encode and pack, as far as that is not done."""
    for stage in recording_left(base):
        _say(stage().title)
    _train_unless_done(base, "tokenizer", base.config.tokenizer, stages.train_tokenizer)
    for stage in latents_left(base):
        _say(stage().title)


# ---------------------------------------------------------------- one item


def work_on(item: Item, seed: int) -> None:
    """Train an item and judge it on the contexts of `seed`, as far as that is not done."""
    _train_unless_done(item.run, "dynamics", item.run.config.dynamics, partial(_train_and_count, item), str(item))
    if read_result(item, seed) is None:
        _say(f"{item}: judging at K = {', '.join(map(str, item.steps))}")
        _judge(item, seed)


def _train_unless_done(
    run: Run, kind: Kind, section: Section, stage: Callable[..., Report], name: str | None = None
) -> None:
    if is_trained(run, kind, section):
        return
    resume = _can_resume(run, kind, section)
    _say(f"{name or kind}: {'going on with its training' if resume else 'training'}")
    stage(run, resume=resume, overwrite=not resume)


def is_trained(run: Run, kind: Kind, section: Section) -> bool:
    """True when the weights are finished, of this config and seed, and of the parents that are here."""
    weights = getattr(run, kind)
    if not is_current(run, weights, kind):
        return False
    header = read_header(weights, kind)
    state = RunFiles(weights.parent, kind).state
    seed = read_header(state, "state").info["seed"] if state.is_file() else run.config.run.seed
    return header.info["finished"] and seed == run.config.run.seed and _same(header.config, section)


def _can_resume(run: Run, kind: Kind, section: Section) -> bool:
    state = RunFiles(getattr(run, kind).parent, kind).state
    if not is_current(run, state, "state"):
        return False
    header = read_header(state, "state")
    as_saved = not list(differences(header.config, json.loads(section.model_dump_json())))
    return as_saved and header.info["seed"] == run.config.run.seed and _same(header.config, section)


def _same(saved: dict[str, Any], section: Section) -> bool:
    """True when a saved config means the same training; what it does not say is at its default."""
    try:
        before = type(section).model_validate(saved).model_dump()
    except ValidationError:
        return False
    now = section.model_dump()
    for settings in (before, now):
        for name in CADENCES:
            settings["train"].pop(name)
    return before == now


def _train_and_count(item: Item, run: Run, *, resume: bool, overwrite: bool) -> Report:
    """Train the dynamics and add the processor time it took, of all threads, to what it took before."""
    before = _read(item.cost).get("cpu_seconds", 0.0) if resume else 0.0
    started = time.process_time()
    try:
        return stages.train_dynamics(run, resume=resume, overwrite=overwrite)
    finally:
        write_json(item.cost, {"cpu_seconds": before + time.process_time() - started})


# ---------------------------------------------------------------- results


def _judge(item: Item, seed: int) -> None:
    run = item.run
    apply_threads(run.config.run)
    runtime = resolve_runtime(run.config.run)
    dreamer = load_dreamer(run.dynamics, run.tokenizer, run.packed, run.episodes, run.config.eval, runtime, seed=seed)
    about = {
        "variant": item.variant.name,
        "seed": item.seed,
        "precision": runtime.precision,
        "device": runtime.device.type,
    }
    network = load_video_features(run.config.eval.video_features)
    measured = measure_fidelity(dreamer, item.steps, network)
    write_json(item.result, about | {"asked": _asked(item, seed), "cost": _cost(item)} | measured)


def read_result(item: Item, seed: int) -> dict[str, Any] | None:
    """An item's measures; None unless they are of its weights as they are now, and of the present questions."""
    if not is_trained(item.run, "dynamics", item.run.config.dynamics):
        return None
    result = _read(item.result)
    return result if result.get("asked") == _asked(item, seed) else None


def _asked(item: Item, seed: int) -> dict[str, Any]:
    """What a result answers; another answer is needed when any of it changes."""
    settings = item.run.config.eval
    return {
        "fingerprint": read_header(item.run.dynamics, "dynamics").fingerprint,
        "steps": list(item.steps),
        "contexts": settings.contexts,
        "context_length": settings.context_length,
        "horizon": settings.horizon,
        "video_features": settings.video_features,
        "seed": seed,
        "measures": MEASURES,
    }


def _cost(item: Item) -> dict[str, float]:
    """Median seconds of a training step, and processor seconds of the whole training."""
    lines = read_metrics(RunFiles(item.run.dynamics.parent, "dynamics").metrics)
    speeds = [line["steps_per_second"] for line in lines if line.get("steps_per_second")]
    return {
        "seconds_per_step": median(1 / speed for speed in speeds) if speeds else float("nan"),
        "cpu_seconds": _read(item.cost).get("cpu_seconds", float("nan")),
    }


def _read(path: Any) -> dict[str, Any]:
    """A JSON object; empty when it is not there or not whole."""
    try:
        return cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
