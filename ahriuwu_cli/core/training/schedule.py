"""The one learning-rate schedule: linear warm-up, then constant, cosine, or stable with linear decay."""

from __future__ import annotations

import math

from ahriuwu_cli.core.training.config import TrainSettings


def learning_rate(step: int, settings: TrainSettings, total: int | None = None) -> float:
    """Learning rate of step `step` (from 0) of `total` steps (`settings.steps`); never zero within these.

    Warm-up reaches the peak at step `warmup_steps - 1`. Cosine falls from there to zero at
    `total`; wsd stays at the peak and falls linearly to zero over the last `decay_fraction` of
    all steps. Where warm-up and decay overlap the lower of the two holds.
    """
    total = settings.steps if total is None else total
    warmup = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    left = max(0, total - step)  # steps still to do, this one included
    if settings.schedule == "cosine":
        span = max(1, total - settings.warmup_steps)
        after = 0.5 * (1 - math.cos(math.pi * min(1.0, left / span)))
    elif settings.schedule == "wsd":
        after = min(1.0, left / max(1.0, settings.decay_fraction * total))
    else:
        after = 1.0
    return settings.learning_rate * min(warmup, after)
