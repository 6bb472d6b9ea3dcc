"""PNG of who beats whom: for each game the pooled returns of its agents, worst first, with training seeds as dots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ahriuwu_cli.core.pictures.figures import new_figure, save_figure
from ahriuwu_cli.evaluation.plots import AGENT_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ORDER = ("random", "repeat-last", "dataset", "scratch", "bc", "imagination")
"""Bars from left to right; the expert is a line."""
LABELS = {
    "random": "random",
    "repeat-last": "repeat last",
    "dataset": "dataset",
    "scratch": "BC from scratch",
    "bc": "WM+BC",
    "imagination": "imagination",
    "expert": "expert",
}
WIDTH = 7.5  # inches; 900 pixels
HEIGHT = 3.6  # inches of one row of panels
MAX_COLUMNS = 3
SLANTED_COLUMNS = 2  # from so many on, names below the bars are slanted
DARK = "#333333"


@dataclass(frozen=True)
class Rung:
    """One agent: its mean over training seeds, the interval's ends (None when unknown), each seed's mean."""

    mean: float
    low: float | None
    high: float | None
    per_seed: tuple[float, ...]

    @classmethod
    def of(cls, agent: Mapping[str, Any]) -> Rung:
        """From an entry of `pool_returns`."""
        return cls(agent["mean"], agent["low"], agent["high"], tuple(agent["per_seed"]))


@dataclass(frozen=True)
class Bracket:
    """What is said of imagination beside WM+BC: the seed-level p-value, the training seeds behind it, the verdict."""

    p_value: float
    num_seeds: int
    verdict: str

    def __str__(self) -> str:
        p_text = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.2g}"
        return f"{self.verdict}\n{p_text}, {self.num_seeds} seed{'' if self.num_seeds == 1 else 's'}"


@dataclass(frozen=True)
class Panel:
    """One game.

    Attributes:
        title: its name.
        rungs: by agent.
        bracket: over imagination and WM+BC; None for none.
        confidence: level of the intervals.
    """

    title: str
    rungs: Mapping[str, Rung]
    bracket: Bracket | None
    confidence: float


def plot_ladder(path: Path, panels: Sequence[Panel]) -> None:
    """Draw the panels side by side as a PNG of README width, written atomically.

    Raises:
        ValueError: no panel, or one without an agent of ORDER.
    """
    if not panels:
        raise ValueError("there is no panel; expected at least one")
    for panel in panels:
        if not set(ORDER) & set(panel.rungs):
            raise ValueError(f"panel {panel.title!r} has agents {list(panel.rungs)}; expected some of {list(ORDER)}")
    rows = math.ceil(len(panels) / MAX_COLUMNS)
    columns = math.ceil(len(panels) / rows)
    figure = new_figure(WIDTH, HEIGHT * rows)
    figure.set_facecolor("white")
    places = list(figure.subplots(rows, columns, squeeze=False).flat)
    for place, panel in zip(places[: len(panels)], panels, strict=True):
        _draw_panel(place, panel, slanted=columns >= SLANTED_COLUMNS)
    for place in places[len(panels) :]:
        place.set_visible(False)
    for place in places[::columns]:
        place.set_ylabel("return in the real game", fontsize=9)
    levels = " / ".join(sorted({f"{100 * panel.confidence:g} %" for panel in panels}))
    figure.supxlabel(
        f"bar and line: mean over training seeds with {levels} interval (seeds, then episodes); dot: one training seed",
        fontsize=8,
    )
    save_figure(path, figure)


def _draw_panel(axes: Axes, panel: Panel, *, slanted: bool) -> None:
    names = [name for name in ORDER if name in panel.rungs]
    values = [value for rung in panel.rungs.values() for value in _values(rung)]
    negative = max(values) < 0  # bars that hang from zero would be longest for the worst agent
    low, high = (min(values), max(values)) if negative else (min(0.0, *values), max(0.0, *values))
    span = (high - low) or 1.0
    floor = low - 0.08 * span if low < 0 else 0.0
    for place, name in enumerate(names):
        _draw_rung(axes, place, panel.rungs[name], AGENT_COLOURS[name], floor if negative else 0.0, span)
    axes.axhline(floor if negative else 0.0, color=DARK, linewidth=0.8)
    if "expert" in panel.rungs:
        _draw_expert(axes, panel.rungs["expert"].mean, span)
    top = high + 0.12 * span
    if panel.bracket is not None and {"bc", "imagination"} <= set(names):
        ends = names.index("bc"), names.index("imagination")
        tip = max(value for name in ("bc", "imagination") for value in _values(panel.rungs[name]))
        height = tip + 0.13 * span
        line = panel.rungs["expert"].mean if "expert" in panel.rungs else -np.inf
        if -0.04 * span < line - height < 0.16 * span:  # the expert's line would run through it
            height = line + 0.04 * span
        _draw_bracket(axes, ends, height, panel.bracket, span)
        top = max(top, height + 0.16 * span)
    axes.set_ylim(floor, top)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_xticks(range(len(names)), [LABELS[name] for name in names], fontsize=8)
    if slanted:
        for label in axes.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0, pad=2)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title(panel.title, fontsize=11)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def _values(rung: Rung) -> list[float]:
    return [value for value in (rung.mean, rung.low, rung.high, *rung.per_seed) if value is not None]


def _draw_rung(axes: Axes, place: int, rung: Rung, colour: str, floor: float, span: float) -> None:
    """A bar from `floor` to the mean, its interval, the seeds beside the interval, and the mean as a number."""
    axes.bar(place, rung.mean - floor, bottom=floor, width=0.72, color=colour, alpha=0.4, linewidth=0)
    if rung.low is not None and rung.high is not None:
        ends = [[rung.mean - rung.low], [rung.high - rung.mean]]
        axes.errorbar(place + 0.17, rung.mean, yerr=ends, color=DARK, linewidth=1.2, capsize=2.5, capthick=1.2)
    spread = np.linspace(-0.25, -0.03, len(rung.per_seed)) if len(rung.per_seed) > 1 else np.array([-0.14])
    axes.scatter(
        place + spread, rung.per_seed, s=18, color=colour, edgecolors="white", linewidths=0.6, zorder=3, clip_on=False
    )
    tip = max(_values(rung)) + 0.025 * span
    axes.text(place, tip, _number(rung.mean, span), ha="center", va="bottom", fontsize=7, color=DARK)


def _number(value: float, span: float) -> str:
    """A return with as many digits as differ in a panel of this span."""
    return f"{value:.{1 if span > 3 else 2}f}"


def _draw_expert(axes: Axes, mean: float, span: float) -> None:
    """A dashed line across the panel."""
    colour = AGENT_COLOURS["expert"]
    axes.axhline(mean, color=colour, linestyle="--", linewidth=1)
    axes.text(-0.5, mean - 0.015 * span, f"expert {_number(mean, span)}", fontsize=8, va="top", color=colour)


def _draw_bracket(axes: Axes, ends: tuple[int, int], height: float, bracket: Bracket, span: float) -> None:
    """A bracket at `height` over two bars with what is said on it."""
    left, right = ends
    foot = height - 0.02 * span
    axes.plot([left, left, right, right], [foot, height, height, foot], color=DARK, linewidth=1)
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    middle = (left + right) / 2
    axes.text(middle, height + 0.02 * span, str(bracket), ha="center", va="bottom", fontsize=7, color=DARK, bbox=paper)
