"""Pitfall 35: whether the metrics of an imagination training show that the dream was exploited."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.doctor.checks import Subject
from ahriuwu_cli.doctor.findings import Area

OUTSIDE_SHARE = 0.1
"""Share of imagined steps outside the data above which it is said."""
GAP_SHARE = 0.5
"""Imagined above real reward per step, as share of the larger of the two, above which it is said."""


def examine_imagined(area: Area, subject: Subject) -> None:
    """Look at the last log point that has each number; trainings that measured none say nothing."""
    points = [line for line in read_metrics(subject.files.metrics) if "warning" not in line]
    outside = _last(points, "outside")
    if outside is not None:
        share = f"{outside['outside']:.0%} of imagined steps at step {outside['step']} are outside the recorded data"
        signs = ", ".join(
            f"{name} {outside[key]:.0%}"
            for name, key in (("reward", "outside_reward"), ("latents", "outside_latent"))
            if _finite(outside.get(key))
        )
        if outside["outside"] > OUTSIDE_SHARE:
            area.note("outside", f"{share} ({signs}): the dream may be exploited; see imagine.guard.cut, imagine.beta")
        else:
            area.ok("outside", share)
    real = _last(points, "reward_gap")
    if real is not None:
        wanted, got = real["imagined_reward_per_step"], real["real_reward_per_step"]
        text = f"reward per step at step {real['step']}: imagined {wanted:.3g}, in the real game {got:.3g}"
        if wanted - got > GAP_SHARE * max(abs(wanted), abs(got)):
            area.note(
                "real game", f"{text}: the dream promises more than it keeps; see imagine.guard.cut, imagine.beta"
            )
        else:
            area.ok("real game", text)


def _last(points: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """The last log point with a finite number of that name."""
    return next((point for point in reversed(points) if _finite(point.get(name))), None)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
