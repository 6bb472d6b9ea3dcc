"""How long a training may take, how long it has taken, and how long one of its steps takes: `[run] minutes`.

Where training ends for it is planned as at a plateau (course.py), so that the decay of `wsd` fits in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

SHARES = {"tokenizer": 0.15, "dynamics": 0.4, "agent": 0.2, "imagination": 0.25}
"""What each kind of training has of a run's minutes; the baseline from scratch has as much as the agent, on top.

Decision: fixed shares, and what a stage leaves is not handed on. A stage then has the same time whatever ran before it,
on this machine or another, and the agents of a study have equal time. They are about what the examples' stages take.
"""


@dataclass(frozen=True)
class Budget:
    """Wall-clock time of one training, measurements and checkpoints in it and all breaks left out.

    Attributes:
        minutes: 0 for no limit.
        clock: seconds since whenever.
    """

    minutes: float = 0.0
    clock: Callable[[], float] = time.monotonic

    def share(self, kind: str) -> Budget:
        """What a stage has of a run's."""
        return replace(self, minutes=self.minutes * SHARES[kind])


UNLIMITED = Budget()


class Stopwatch:
    """The time that a training has taken, that before a resume included.

    Args:
        clock: seconds since whenever.
        before: seconds that earlier processes took.
        step: steps they made.
    """

    def __init__(self, clock: Callable[[], float], before: float = 0.0, step: int = 0) -> None:
        self._clock, self.before, self._step = clock, before, step
        self._started = clock()
        self._first: tuple[int, float] | None = None

    @property
    def seconds(self) -> float:
        """So far."""
        return self.before + self._clock() - self._started

    def lap(self, step: int) -> float | None:
        """Seconds of a step, now that `step` are done: the mean over those of this process, None while none is known.

        Its first step is left out, which does what is done once (compiling); until it has made another those before
        the resume count.
        """
        now = self.seconds
        if self._first is None and step > self._step:
            self._first = step, now
        if self._first is not None and step > self._first[0]:
            return (now - self._first[1]) / (step - self._first[0])
        return self.before / self._step if self._step else None
