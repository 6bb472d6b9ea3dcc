"""What a training wrote down: skipped steps, warnings, a loss that is no number, predictions that collapsed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ahriuwu_cli.core.artifact import Header
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.core.training.watch import SPREAD_RATIO
from ahriuwu_cli.doctor.checks import Subject
from ahriuwu_cli.doctor.findings import Area, counted
from ahriuwu_cli.tokenizer.frozen import is_frozen

BUCKET_SHARE = 0.1
"""Share of the two-hot buckets below which the range is called too wide."""

SECTIONS = {"agent": "agent", "imagination": "imagine"}
"""Under which key of `Header.config` a kind keeps its own section; the others keep it at the top."""


def train_config(header: Header) -> Mapping[str, Any]:
    """The training settings that an artifact was made with."""
    key = SECTIONS.get(header.kind)
    section = header.config if key is None else header.config.get(key, {})
    settings: Mapping[str, Any] = section.get("train", {})
    return settings


def examine_metrics(area: Area, subject: Subject) -> None:
    """Read metrics.jsonl and judge the last log point; warnings that went by are noted."""
    path, header = subject.files.metrics, subject.header
    if is_frozen(header):
        return
    lines = read_metrics(path)
    points = [line for line in lines if "warning" not in line]
    warnings = [line for line in lines if "warning" in line]
    if not points:
        area.note("metrics", f"no log point in {path}")
        return
    last, train = points[-1], train_config(header)
    hint = "lower learning_rate or look at the data, then train anew with --overwrite"
    faults = []
    if not _finite(last.get("loss")):
        faults.append(f"the loss at step {last['step']} is not finite")
    bad, limit = int(last.get("bad_steps") or 0), int(train.get("max_bad_steps", 0))
    if bad > limit:
        faults.append(f"{bad} steps were not finite, more than max_bad_steps = {limit}")
    if last["step"] > int(train.get("warmup_steps", 0)) and _collapsed(last):
        faults.append(
            f"collapsed: predictions hardly differ (spread {last['spread']:.3g}, truth {last['spread_reference']:.3g})"
        )
    if faults:
        area.judge("metrics", faults, "", hint)
    elif bad or warnings:
        said = f"; last warning, at step {warnings[-1]['step']}: {warnings[-1]['warning']}" if warnings else ""
        skipped = f"{bad} of {counted(last['step'], 'step')} skipped as not finite"
        area.note("metrics", f"{skipped}, {counted(len(warnings), 'warning')}{said}")
    else:
        area.ok("metrics", f"loss {last['loss']:.4g} at step {last['step']}, no warnings")
    for name in ("reward", "value"):
        _judge_buckets(area, name, points, header)


def _judge_buckets(area: Area, name: str, points: Sequence[Mapping[str, Any]], header: Header) -> None:
    """Pitfall 23: a two-hot range too wide for its targets, of which few buckets are ever used, or too narrow."""
    used = [count for point in points for count in _numbers(point, f"{name}_buckets_ever", f"{name}_buckets_used")]
    if not used:
        return
    heads = header.config["agent"]["heads"]
    num_buckets, limit = heads["num_buckets"], heads["bucket_limit"]
    text = f"{name} targets use {max(used):.0f} of {num_buckets} buckets"
    clamped = max((share for point in points for share in _numbers(point, f"{name}_clamped")), default=0.0)
    if clamped > 0:
        beyond = f"up to {clamped:.2g} of them lie beyond the range and are clamped: raise agent.heads.bucket_limit"
        area.note("buckets", f"{text}; {beyond} (now {limit:g})")
    elif max(used) < BUCKET_SHARE * num_buckets:
        area.note("buckets", f"{text}: lower agent.heads.bucket_limit (now {limit:g}) or agent.heads.num_buckets")
    else:
        area.ok("buckets", text)


def _numbers(point: Mapping[str, Any], *names: str) -> list[float]:
    """The finite values a log point has under some names."""
    return [float(point[name]) for name in names if _finite(point.get(name))]


def _collapsed(point: Mapping[str, Any]) -> bool:
    """Pitfall 30: the spread of the predictions is nothing beside that of the truth."""
    spread, reference = point.get("spread"), point.get("spread_reference")
    return _finite(spread) and _finite(reference) and spread < SPREAD_RATIO * reference  # type: ignore[operator]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
