"""How a training ended: whether its losses still fell (core/training/trend.py), or one on held-out play had risen."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ahriuwu_cli.core.artifact import Header
from ahriuwu_cli.doctor.checks import Subject
from ahriuwu_cli.doctor.findings import Area
from ahriuwu_cli.doctor.metrics import SECTIONS
from ahriuwu_cli.tokenizer.frozen import is_frozen

FALLING = 0.04
"""A loss that falls by a larger share in a fifth of the training had not come to its end."""
SURE_ERRORS = 2
"""Standard errors that its fall must have, not to be taken for noise."""
RISEN = 1.05
"""A loss this many times as large as its least one was better before."""

POLICY = ("heldout_policy", "policy_loss")
CURVES: dict[str, tuple[tuple[str, str], ...]] = {
    "tokenizer": (("heldout_mse", "mse"),),
    "dynamics": (("heldout_flow", "flow"),),
    "agent": (POLICY, ("heldout_reward", "reward_loss"), ("heldout_continue", "continue_loss")),
    "scratch": (POLICY,),
}
"""Losses that are looked at, by area: on held-out play, or where that was not measured those of training."""


def judge_course(area: Area, subject: Subject) -> None:
    """Look at every loss that a finished training has a trend of; older artifacts are said to have none."""
    header, pairs = subject.header, CURVES.get(subject.name, ())
    if not pairs or is_frozen(header) or not header.info.get("finished"):
        return
    if "trend" not in header.info:
        text = "its header does not say how its losses went: whether they still fell cannot be judged"
        area.note("course", text, "train it again where it matters; older versions did not keep it")
        return
    trends: Mapping[str, Mapping[str, float]] = header.info["trend"]
    told = [next(((name, trends[name]) for name in names if name in trends), None) for names in pairs]
    if not any(told):
        area.note("course", "too few measurements to say whether its losses still fell at the end")
    for name, trend in filter(None, told):
        _judge_trend(area, header, name, trend)


def _judge_trend(area: Area, header: Header, name: str, trend: Mapping[str, float]) -> None:
    section, steps = f"{SECTIONS.get(header.kind, header.kind)}.train", int(header.info.get("steps", 0))
    start, end, last, best = (trend.get(key, math.nan) for key in ("from", "to", "last", "best"))
    more = "run.minutes" if header.info.get("stopped") == "minutes" else f"{section}.steps"
    change, error = trend.get("change", math.nan), trend.get("error", math.nan)
    when = f"from step {start:.0f} to step {end:.0f}{', where the decay began' if end < steps else ''}"
    if -change > max(FALLING, SURE_ERRORS * error):
        area.note("course", f"{name} still fell by {-change:.1%} {when}; {last:.3g} at the end", f"raise {more}")
    elif name.startswith("heldout_") and last > RISEN * best and "kept_step" not in header.info:
        text = f"{name} was {best:.3g} at step {trend.get('best_step', math.nan):.0f} and is {last:.3g} at the end"
        area.note("course", text, f"lower {section}.steps, or record more episodes (data.episodes)")
    else:
        area.ok("course", f"{name} {last:.3g} at the end; {change:+.1%} {when}")
