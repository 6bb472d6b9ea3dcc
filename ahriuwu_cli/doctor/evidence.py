"""How much a result must rest on before the doctor calls it bad: thresholds of the judging checks, with reasons.

Below them a poor result is a note. Decision: a run of a few steps or episodes, which shows that everything works, is no
fault; the same result after real work is one.
"""

from __future__ import annotations

from ahriuwu_cli.core.artifact import Header

MIN_STEPS = 100
"""Training steps; fewer are a trial of the machinery."""
MIN_CONTEXTS = 16
"""Held-out contexts of a dream: 16 contexts of 16 frames give a difference of PSNR to about 0.1 dB."""
MIN_EPISODES = 20
"""Episodes in the real game of each agent; fewer have intervals that nothing could be outside of."""


def is_trained(header: Header | None) -> bool:
    """True for an artifact whose training came to its end after enough steps."""
    if header is None:
        return True
    return bool(header.info.get("finished")) and int(header.info.get("steps", 0)) >= MIN_STEPS
