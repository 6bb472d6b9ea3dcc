"""What a training wrote down: skipped steps, warnings, a loss that is no number, predictions that collapsed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.artifact import Header
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.core.training.watch import SPREAD_RATIO
from ahriuwu_cli.pipeline.doctor.findings import Area, counted

SECTIONS = {"agent": "agent", "imagination": "imagine"}
"""Under which key of `Header.config` a kind keeps its own section; the others keep it at the top."""


def train_config(header: Header) -> Mapping[str, Any]:
    """The training settings that an artifact was made with."""
    key = SECTIONS.get(header.kind)
    section = header.config if key is None else header.config.get(key, {})
    settings: Mapping[str, Any] = section.get("train", {})
    return settings


def examine_metrics(area: Area, path: Path, header: Header) -> None:
    """Read metrics.jsonl and judge the last log point; warnings that went by are noted."""
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


def _collapsed(point: Mapping[str, Any]) -> bool:
    """Pitfall 30: the spread of the predictions is nothing beside that of the truth."""
    spread, reference = point.get("spread"), point.get("spread_reference")
    return _finite(spread) and _finite(reference) and spread < SPREAD_RATIO * reference  # type: ignore[operator]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
