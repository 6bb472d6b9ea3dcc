"""Whether a training was still getting better when it ended, kept in its artifact: how its losses went near the end.

Decision: what is looked at is the last fifth of all steps, with `wsd` the fifth before its decay. In the decay every
loss falls, whatever had been learned before; whether more steps would have helped shows at the full learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.training.config import TrainSettings

MOST_POINTS = 256
"""Points a curve has at most; then each two neighbours become one."""
SHARE = 0.2
"""Of the steps, that the trend is looked at over."""


class Curve(Section):
    """One metric over the steps, in few points.

    Attributes:
        each: measurements that make one point.
        points: step and value, both means, and how many measurements they are of.
        best: step and value of the best measurement.
        last: step and value of the last one.
    """

    each: int = Field(default=1, ge=1)
    points: list[tuple[float, float, int]] = Field(default_factory=list)
    best: tuple[int, float] = (0, 0.0)
    last: tuple[int, float] = (0, 0.0)

    def measured(self, step: int, value: float, *, higher: bool = False) -> Curve:
        """The curve with one measurement more; `higher`: more is better."""
        points, each = list(self.points), self.each
        better = not points or (value > self.best[1] if higher else value < self.best[1])
        new = (float(step), value, 1)
        if points and points[-1][2] < each:
            points[-1] = _joined(points[-1], new)
        else:
            if len(points) == MOST_POINTS:
                points, each = [_joined(*points[i : i + 2]) for i in range(0, MOST_POINTS, 2)], 2 * each
            points.append(new)
        return Curve(each=each, points=points, best=(step, value) if better else self.best, last=(step, value))

    def trend(self, start: int, end: int) -> dict[str, float] | None:
        """How it went from step `start` to step `end`, by a straight line through its points there and just beyond.

        Returns:
            `change` along the line and its standard `error` (0 where two points make the line), both as share of the
            line's value at the start; `from` and `to`, the steps; `last`, `best` and `best_step`, of all measurements.
            None where the curve does not reach back to the start or has a single point.
        """
        steps, values = (np.array([point[i] for point in self.points], np.float64) for i in (0, 1))
        before, after = np.flatnonzero(steps <= start), np.flatnonzero(steps >= end)
        if not len(before):
            return None
        chosen = slice(before[-1], after[0] + 1 if len(after) else None)
        x, y = steps[chosen] - start, values[chosen]
        if len(x) < 2:
            return None
        spread = ((x - x.mean()) ** 2).sum()
        slope = ((x - x.mean()) * (y - y.mean())).sum() / spread
        level = y.mean() - slope * x.mean()
        rest = ((y - level - slope * x) ** 2).sum() / (len(x) - 2) if len(x) > 2 else 0.0
        found = {
            "change": slope * (end - start) / abs(level) if level else math.nan,
            "error": math.sqrt(rest / spread) * (end - start) / abs(level) if level else math.nan,
            "from": start,
            "to": end,
            "last": self.last[1],
            "best": self.best[1],
            "best_step": self.best[0],
        }
        numbers = {name: float(value) for name, value in found.items()}
        return numbers if all(map(math.isfinite, numbers.values())) else None


def _joined(one: tuple[float, float, int], other: tuple[float, float, int]) -> tuple[float, float, int]:
    count = one[2] + other[2]
    step, value = (one[i] + (other[i] - one[i]) * other[2] / count for i in (0, 1))
    return step, value, count


def followed(
    curves: Mapping[str, Curve], step: int, metrics: Mapping[str, float], names: Sequence[str], higher: Sequence[str]
) -> dict[str, Curve]:
    """The curves of the metrics in `names` after a log point, where those in `higher` are the better the higher."""
    found = {name: metrics[name] for name in names if math.isfinite(metrics.get(name, math.nan))}
    return {
        **curves,
        **{name: curves.get(name, Curve()).measured(step, x, higher=name in higher) for name, x in found.items()},
    }


def looked_at(step: int, total: int, settings: TrainSettings) -> tuple[int, int]:
    """First and last step of what the trend of a training of `total` steps is over, when `step` are done."""
    width = round(SHARE * step)
    decay = math.floor(total * (1 - settings.decay_fraction)) if settings.schedule == "wsd" else total
    end = min(step, decay)
    return (end - width, end) if end >= 2 * width else (step - width, step)


def trends(curves: Mapping[str, Curve], step: int, total: int, settings: TrainSettings) -> dict[str, dict[str, float]]:
    """By metric, what `Curve.trend` says of it, as far as there is enough to say anything."""
    start, end = looked_at(step, total, settings)
    found = {name: curve.trend(start, end) for name, curve in curves.items()} if start < end else {}
    return {name: trend for name, trend in found.items() if trend is not None}
