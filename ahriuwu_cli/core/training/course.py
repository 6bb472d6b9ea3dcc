"""How far a training has come by its own held-out measurements: what was best, and where it ends before all steps.

It ends for want of progress, or because its time is used up (budget.py).

Decision: a plateau does not stop a training with `wsd` at once. Most of what the decay gains is seen only in the decay,
so a plateau at step p plans an earlier end instead, p / (1 - decay_fraction): the schedule is then, from the first step
to the last, that of a training whose `steps` had been this number, and its decay begins at p. The other schedules end.
With little time left the same is done at the last p from which such an end comes in time.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.training.config import TrainSettings
from ahriuwu_cli.core.training.heldout import Evaluation
from ahriuwu_cli.core.training.stage import Goal

Reason = Literal["steps", "progress", "minutes"]

LATE = 0.05
"""Share of the budget that a decay may run over before it is cut short: what a step takes is known no better."""


class Course(Section):
    """What the measurements so far have come to; part of the saved state.

    Attributes:
        end: steps in all, when fewer than `train.steps` are planned.
        cause: why there are fewer.
        minutes: the budget for which there are.
        references: by metric, the value from which the next improvement counts.
        waited: measurements since one of them has improved.
        kept: the best measurement by the goal; step 0: none yet.
    """

    end: int | None = Field(default=None, ge=1)
    cause: Reason = "progress"
    minutes: float = Field(default=0.0, ge=0)
    references: dict[str, float] = Field(default_factory=dict)
    waited: int = Field(default=0, ge=0)
    kept: Evaluation = Field(default_factory=Evaluation)

    def total(self, settings: TrainSettings) -> int:
        """Steps in all, as far as is known now."""
        return settings.steps if self.end is None else min(self.end, settings.steps)

    def stopped(self, settings: TrainSettings) -> Reason:
        """What ends this training."""
        return self.cause if self.total(settings) < settings.steps else "steps"

    def measured(self, found: Evaluation, goal: Goal, settings: TrainSettings) -> Course:
        """The course after a measurement; one without a value of the goal, or too early to say anything, is ignored."""
        if goal.name not in found.values or found.step <= goal.after:
            return self
        best = self.kept.values.get(goal.name)
        kept = found if best is None or goal.better(found.values[goal.name], best) else self.kept
        improved = {name: found.values[name] for name in goal.names() if self._improves(name, found, goal, settings)}
        waited = 0 if improved or found.step <= settings.warmup_steps else self.waited + 1
        end = self.end
        if end is None and 0 < settings.patience <= waited:
            end = _end_after(found.step, settings)
        references = self.references | improved
        return self.model_copy(update={"end": end, "references": references, "waited": waited, "kept": kept})

    def timed(self, step: int, left: float, lap: float | None, minutes: float, settings: TrainSettings) -> Course:
        """The course when `left` seconds of the budget remain after `step` steps, one of which takes `lap` seconds."""
        total = self.total(settings)
        fits = step + int(max(0.0, left) / lap) if lap else step if left <= 0 else total
        if fits >= total:
            return self
        if step < _stable(settings) * total:
            later = _end_after(step + 1, settings)
            if later is not None and later <= fits:
                return self
        elif lap and (total - step) * lap <= left + LATE * 60 * minutes:
            return self
        end = max(step, min(fits, _end_after(step, settings) or fits))
        return self.model_copy(update={"end": end, "cause": "minutes", "minutes": minutes})

    def under(self, minutes: float) -> Course:
        """The course of a training that goes on with a budget: a larger one than it ended for lets it go on."""
        if self.cause != "minutes" or 0 < minutes <= self.minutes:
            return self
        return self.model_copy(update={"end": None, "cause": "progress", "minutes": 0.0})

    def _improves(self, name: str, found: Evaluation, goal: Goal, settings: TrainSettings) -> bool:
        """By `min_gain` of the goal's reference.

        Decision: of the goal's also where another metric improves. A loss that has next to nothing to predict (no game
        ever ends) falls by the same share again and again for ever.
        """
        value, reference = found.values.get(name), self.references.get(name)
        if value is None or reference is None:
            return value is not None
        gain = settings.min_gain * abs(self.references[goal.name])
        return value > reference + gain if goal.higher else value < reference - gain


def _end_after(step: int, settings: TrainSettings) -> int | None:
    """Steps in all when no further step is to be made at the full learning rate; None: none is left to be made."""
    stable = _stable(settings)
    end = math.ceil(step / stable) if stable > 0 else settings.steps
    return end if end < settings.steps else None


def _stable(settings: TrainSettings) -> float:
    """Share of the steps before the decay."""
    return 1 - settings.decay_fraction if settings.schedule == "wsd" else 1.0
