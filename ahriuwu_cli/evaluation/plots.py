"""PNG plots: scores over the horizon of a rollout, and returns of agents with their intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ahriuwu_cli.core.files import write_atomically
from ahriuwu_cli.evaluation.metrics import HorizonCurve
from ahriuwu_cli.evaluation.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCES = ("reconstruction", "persistence")  # ceiling and floor of every rollout plot

# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
REFERENCE_COLOURS = ("#333333", "#8c8c8c")
MARKERS = ("o", "s", "^", "D", "v", "P")
MARKED_STEPS = 40  # longer curves are drawn without markers
DPI = 120


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

    figure = _figure(9.0, 4.6)
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
    _save(path, figure)


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

    figure = _figure(8.0, 1.5 + 0.8 * len(episodes))
    axes = figure.subplots()
    summary = [
        _draw_agent(axes, place, values, intervals[name], COLOURS[place % len(COLOURS)])
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
    _save(path, figure)


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


def _figure(width: float, height: float) -> Figure:
    """Make a figure (size in inches) apart from pyplot's global state; matplotlib is imported only when drawing."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(path: Path, figure: Figure) -> None:
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=DPI))
