"""The work behind the table: each item trained and judged, unless that is done."""

from __future__ import annotations

from statistics import median
from typing import Any

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.device import apply_threads, resolve_runtime
from ahriuwu_cli.core.files import write_json
from ahriuwu_cli.core.training.files import RunFiles
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.evaluation.dreaming import load_dreamer
from ahriuwu_cli.evaluation.fidelity import MEASURES, measure_fidelity
from ahriuwu_cli.evaluation.video_distance import load_video_features
from ahriuwu_cli.experiments.ablation.plan import Item
from ahriuwu_cli.experiments.plans import Training, read_json, say
from ahriuwu_cli.pipeline import stages


def work_on(item: Item, seed: int) -> None:
    """Train an item and judge it on the contexts of `seed`, as far as that is not done."""
    _training(item).finish()
    if read_result(item, seed) is None:
        say(f"{item}: judging at K = {', '.join(map(str, item.steps))}")
        _judge(item, seed)


def _training(item: Item) -> Training:
    run = item.run
    sections = {"": run.config.dynamics}
    return Training(run, "dynamics", run.dynamics, sections, stages.train_dynamics, str(item), item.cost)


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
    if not _training(item).is_done():
        return None
    result = read_json(item.result)
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
        "cpu_seconds": _training(item).cpu_seconds(),
    }
