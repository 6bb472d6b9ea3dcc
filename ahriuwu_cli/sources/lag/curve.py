"""One picture of a measured lag: how well actions are told at each shift."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ahriuwu_cli.core.pictures.figures import COLOURS, new_figure, save_figure
from ahriuwu_cli.sources.lag.verdict import Verdict, signed

LOWEST = -0.25
"""Drawn; a guess that is worse still is as useless."""


def draw_curve(png: Path, verdict: Verdict, lag_at: Callable[[int], float], title: str) -> None:
    """Draw explained shares with their intervals as a PNG, written atomically.

    Args:
        png: the file.
        verdict: what was measured.
        lag_at: `data.source.lag` in seconds by shift.
        title: of the picture.
    """
    figure = new_figure(10.0, 4.4)
    axes = figure.subplots()
    shifts = [each.shift for each in verdict.shifts]
    explained, low, high = (
        100 * np.clip([getattr(each, name) for each in verdict.shifts], LOWEST, 1.0)
        for name in ("explained", "low", "high")
    )
    reach = np.maximum(0.0, np.stack([explained - low, high - explained]))
    axes.errorbar(shifts, explained, reach, color=COLOURS[0], marker="o", capsize=3, linewidth=1)
    if verdict.shift is not None:
        place = shifts.index(verdict.shift)
        axes.plot(shifts[place], explained[place], "o", color=COLOURS[1], markersize=11, label="best")
        axes.legend(frameon=False)
    axes.axhline(0.0, color="0.5", linewidth=1, linestyle="--")
    axes.set_xticks(shifts, [f"{signed(shift)}\n{lag_at(shift):.3f}" for shift in shifts])
    axes.tick_params(labelsize=7)
    axes.set_xlabel("shift in steps, and data.source.lag in seconds if it is right", fontsize=9)
    axes.set_ylabel("% explained beyond the trivial guess", fontsize=9)
    axes.set_ylim(100 * LOWEST if explained.min() < 0 else -2, None)
    axes.grid(axis="y", alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.suptitle(title, fontsize=10, wrap=True)
    save_figure(png, figure)
