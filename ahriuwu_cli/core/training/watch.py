"""Watches a training run for three diseases: non-finite steps, constant clipping, collapsed predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ahriuwu_cli.core.training.config import TrainSettings

CLIP_WINDOW = 100  # steps looked at together
CLIP_SHARE = 0.95  # share of clipped steps in a window that is called constant
SPREAD_RATIO = 0.1  # spread of predictions over spread of the truth below which they have collapsed
FIRST_PAUSE = 10  # windows (or log points) of silence after a warning; doubles with each one


class Watch:
    """Turns what the loop sees into warnings, each kind of them rare.

    Each method returns the text of a warning, or None.
    """

    def __init__(self, settings: TrainSettings) -> None:
        self._settings = settings
        self._steps = 0
        self._clipped = 0
        self._clip_quiet = _Quiet()
        self._spread_quiet = _Quiet()

    def state(self) -> dict[str, list[int]]:
        """What has been seen so far, so that a resumed run warns where an unbroken one does."""
        return {
            "window": [self._steps, self._clipped],
            "clip_quiet": self._clip_quiet.state(),
            "spread_quiet": self._spread_quiet.state(),
        }

    def load_state(self, state: Mapping[str, Sequence[int]]) -> None:
        """Take back what `state` returned."""
        self._steps, self._clipped = state["window"]
        self._clip_quiet.load_state(state["clip_quiet"])
        self._spread_quiet.load_state(state["spread_quiet"])

    def bad_step(self, step: int, count: int, reason: str) -> str | None:
        """Report the `count`-th skipped step: the first, second, fourth, eighth, ... of them."""
        if count & (count - 1):
            return None
        return (
            f"step {step}: {reason}; the step was skipped ({count} so far, training stops after "
            f"{self._settings.max_bad_steps})"
        )

    def gradient(self, norm: float) -> str | None:
        """Look at the norm of a step's gradient before clipping."""
        self._steps += 1
        self._clipped += norm > self._settings.clip_norm
        if self._steps < CLIP_WINDOW:
            return None
        share, self._steps, self._clipped = self._clipped / self._steps, 0, 0
        if not self._clip_quiet.speak(share > CLIP_SHARE):
            return None
        return (
            f"{share:.0%} of the last {CLIP_WINDOW} gradients were clipped at {self._settings.clip_norm:g} "
            f"(last norm {norm:.3g}): raise clip_norm or lower learning_rate"
        )

    def metrics(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """Look at the averages of a log point for a spread that has collapsed."""
        spread, reference = metrics.get("spread"), metrics.get("spread_reference")
        if spread is None or reference is None or step <= self._settings.warmup_steps:
            return None
        if not self._spread_quiet.speak(spread < SPREAD_RATIO * reference):
            return None
        return (
            f"predictions hardly differ from each other (spread {spread:.3g}, truth {reference:.3g}): "
            "the model may have collapsed to the mean"
        )


class _Quiet:
    """Says when to repeat a warning: at first sight, then after pauses that double; forgets when all is well."""

    def __init__(self) -> None:
        self._wait = 0
        self._pause = FIRST_PAUSE

    def state(self) -> list[int]:
        return [self._wait, self._pause]

    def load_state(self, state: Sequence[int]) -> None:
        self._wait, self._pause = state

    def speak(self, wrong: bool) -> bool:
        if not wrong:
            self._wait, self._pause = 0, FIRST_PAUSE
            return False
        if self._wait > 0:
            self._wait -= 1
            return False
        self._wait, self._pause = self._pause, 2 * self._pause
        return True
