"""PNG plots: scores over the horizon of a rollout, returns of agents with their intervals, and their actions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ahriuwu_cli.core.pictures.figures import COLOURS, new_figure, save_figure
from ahriuwu_cli.evaluation.metrics import HorizonCurve
from ahriuwu_cli.evaluation.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REFERENCES = ("reconstruction", "persistence")  # ceiling and floor of every rollout plot

REFERENCE_COLOURS = ("#333333", "#8c8c8c")
AGENT_COLOURS = {
    "random": "#8c8c8c",
    "repeat-last": "#8a6d3b",
    "dataset": "#e69f00",
    "expert": "#333333",
    "scratch": "#009e73",
    "bc": "#0072b2",
    "imagination": "#d55e00",
}
"""A player has one colour in every plot; checkpoints take those of OTHER_COLOURS in turn."""
OTHER_COLOURS = ("#cc79a7", "#56b4e9", "#6a3d9a", "#b2df8a")
MARKERS = ("o", "s", "^", "D", "v", "P")
MAX_PANELS = 8  # components of an action that are drawn
MAX_NUMBERED = 20  # choices in a panel that have their share written in
MARKED_STEPS = 40  # longer curves are drawn without markers


def plot_horizon(path: Path, curves: Mapping[str, HorizonCurve], title: str) -> None:
    """Draw PSNR and SSIM over the horizon, one line per source, as a PNG written atomically.

    Args:
        path: the file to write.
        curves: by source; `reconstruction` (the tokenizer's ceiling) and `persistence` must be
            among them, since a score says nothing without them. Both are drawn dashed.
        title: heading of the picture.

    Raises:
        ValueError: a reference is missing, or the curves differ in length or are empty.
    """
    missing = [name for name in REFERENCES if name not in curves]
    if missing:
        raise ValueError(f"curves have {list(curves)}; expected the references {missing} beside them")
    lengths = {name: len(curve.psnr) for name, curve in curves.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise ValueError(f"curves have lengths {lengths}; expected one length of at least 1")

    figure = new_figure(9.0, 4.6)
    left, right = figure.subplots(1, 2)
    num_steps = next(iter(lengths.values()))
    steps = np.arange(1, num_steps + 1)
    models = [name for name in curves if name not in REFERENCES]
    for name in [*models, *REFERENCES]:
        curve = curves[name]
        if name in REFERENCES:
            place = REFERENCES.index(name)
            colour, dashes, marker = REFERENCE_COLOURS[place], "--", "x+"[place]
        else:
            place = models.index(name)
            colour, dashes, marker = COLOURS[place % len(COLOURS)], "-", MARKERS[place % len(MARKERS)]
        marker = marker if num_steps <= MARKED_STEPS else ""
        label = f"{name} (mean {curve.psnr_mean:.2f} dB, {curve.ssim_mean:.3f})"
        left.plot(steps, curve.psnr, color=colour, linestyle=dashes, marker=marker, markersize=4.5, label=label)
        right.plot(steps, curve.ssim, color=colour, linestyle=dashes, marker=marker, markersize=4.5)
    _label_horizon(left, "PSNR", "PSNR (dB)", num_steps)
    _label_horizon(right, "SSIM", "SSIM", num_steps)
    figure.suptitle(title, fontsize=12)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    save_figure(path, figure)


def plot_returns(
    path: Path,
    returns: Mapping[str, ArrayLike],
    intervals: Mapping[str, Interval],
    *,
    confidence: float = 0.95,
    title: str = "Return in the real environment",
) -> None:
    """Draw each agent's mean return with its interval over its single episodes, as a PNG written atomically.

    Args:
        path: the file to write.
        returns: by agent, the return of each episode (N,), top to bottom.
        intervals: by agent, mean and interval; an end that is not finite is not drawn.
        confidence: level of the intervals, for the label.
        title: heading of the picture.

    Raises:
        ValueError: no agent, an agent without returns, or agents without interval.
    """
    episodes = {name: np.asarray(values, dtype=np.float64) for name, values in returns.items()}
    for name, values in episodes.items():
        if values.ndim != 1 or len(values) == 0:
            raise ValueError(f"agent {name!r} has returns of shape {values.shape}; expected (N,) with N >= 1")
    if not episodes or set(episodes) - set(intervals):
        raise ValueError(f"there are intervals of {sorted(intervals)}; expected those of {sorted(episodes)}")

    figure = new_figure(8.0, 1.5 + 0.8 * len(episodes))
    axes = figure.subplots()
    colours = agent_colours(list(episodes))
    summary = [
        _draw_agent(axes, place, values, intervals[name], colours[name])
        for place, (name, values) in enumerate(episodes.items())
    ]
    axes.set_yticks(range(len(episodes)), [textwrap.fill(name, 20) for name in episodes])
    axes.set_ylim(len(episodes) - 0.5, -0.5)
    axes.set_xlabel(f"return (sum of rewards): mean with {100 * confidence:g} % interval; a dot is an episode")
    axes.grid(axis="x", alpha=0.3)
    numbers = axes.secondary_yaxis("right")
    numbers.set_yticks(range(len(episodes)), summary)
    for scale in (axes, numbers):
        scale.tick_params(axis="y", length=0)
        for spine in scale.spines.values():
            spine.set_visible(False)
    figure.suptitle(title, fontsize=12)
    save_figure(path, figure)


def agent_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each player, those of known names always the same."""
    others = [name for name in names if name not in AGENT_COLOURS]
    return {name: AGENT_COLOURS.get(name) or OTHER_COLOURS[others.index(name) % len(OTHER_COLOURS)] for name in names}


def plot_actions(path: Path, actions: Mapping[str, Mapping[str, Any]], *, title: str = "What the agents do") -> None:
    """Draw the share of each choice by agent, one panel per component, as a PNG written atomically.

    The last panel is the share of steps at which the action equals the one before. Of many components the first
    MAX_PANELS are drawn.

    Args:
        path: the file to write.
        actions: by agent, the facts of its `ActionTally`, top to bottom.
        title: heading of the picture.

    Raises:
        ValueError: no agent, or agents with different components.
    """
    if not actions:
        raise ValueError("there is no agent; expected at least one")
    components = {name: list(facts["components"]) for name, facts in actions.items()}
    first = next(iter(components.values()))
    if any(names != first for names in components.values()):
        raise ValueError(f"agents have actions of components {components}; expected the same ones")
    panels = [_component_panel(name, [facts["components"][name] for facts in actions.values()]) for name in first]
    panels = [*panels[:MAX_PANELS], ("as before", [""], [[facts["repeated"]] for facts in actions.values()])]
    widths = [max(0.11 * len(heading), 0.6 * min(len(labels), MAX_NUMBERED)) for heading, labels, _ in panels]
    longest = max(len(label) for _, labels, _ in panels for label in labels)
    figure = new_figure(2.0 + sum(widths) + 0.3 * len(panels), 1.3 + 0.08 * longest + 0.36 * len(actions))
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=widths)[0]
    for axes, (heading, labels, shares) in zip(row, panels, strict=True):
        _draw_shares(axes, heading, labels, np.array(shares, dtype=np.float64))  # None becomes NaN
    row[0].set_yticks(range(len(actions)), list(actions))
    figure.suptitle(f"{title}: share of steps in %", fontsize=12)
    save_figure(path, figure)


def _component_panel(name: str, facts: list[Mapping[str, Any]]) -> tuple[str, list[str], list[list[float]]]:
    """Heading, labels of the C columns, and shares (agents, C) of one component."""
    if facts[0]["type"] == "categorical":
        return name, list(facts[0]["shares"]), [list(entry["shares"].values()) for entry in facts]
    if facts[0]["type"] == "binary":
        return f"{name} on", [str(place) for place in range(len(facts[0]["on"]))], [entry["on"] for entry in facts]
    edges, numbers = facts[0]["edges"], len(facts[0]["histogram"])
    labels = [f"{low:.3g}" if numbers == 1 else f"{n}: {low:.3g}" for n in range(numbers) for low in edges[:-1]]
    shares = [[share for histogram in entry["histogram"] for share in histogram] for entry in facts]
    return f"{name} from", labels, shares


def _draw_shares(axes: Axes, heading: str, labels: list[str], shares: NDArray[np.float64]) -> None:
    """Draw one panel: shares (agents, C) as shades, with numbers where they fit."""
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_title(heading, fontsize=10)
    numbered = len(labels) <= MAX_NUMBERED
    axes.set_xticks(range(len(labels)) if numbered else [], labels if numbered else [], rotation=90, fontsize=8)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for (place, choice), share in np.ndenumerate(shares):
        if numbered and np.isfinite(share):
            colour = "white" if share > 0.55 else "#333333"
            axes.text(choice, place, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=colour)


def _draw_agent(axes: Axes, place: int, values: NDArray[np.float64], interval: Interval, colour: str) -> str:
    """Draw one row; returns its numbers as text."""
    spread = np.random.default_rng(0).uniform(-0.28, 0.28, len(values))  # same dots at every drawing
    axes.scatter(values, place + spread, s=14, color=colour, alpha=0.25, linewidths=0)
    text = f"{interval.mean:.2f}"
    if np.isfinite([interval.low, interval.high]).all():
        axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        for end in (interval.low, interval.high):
            axes.plot([end, end], [place - 0.2, place + 0.2], color=colour, linewidth=2)
        text += f"\n{interval.low:.2f} to {interval.high:.2f}"
    axes.plot(
        interval.mean, place, marker="D", markersize=6, color=colour, markeredgecolor="white", markeredgewidth=0.8
    )
    return f"{text}\nn = {len(values)}"


def _label_horizon(axes: Axes, title: str, label: str, num_steps: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=11)
    axes.set_xlabel("horizon step (frames after the context)")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(0.5, num_steps + 0.5)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
