"""PNG of a search: the metric over trials with the best so far, then over the values of each key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ahriuwu_cli.core.pictures.figures import COLOURS, new_figure, save_figure
from ahriuwu_cli.evaluation.plots import REFERENCE_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_COLUMNS = 3
WIDTH, HEIGHT = 3.6, 3.0
"""Inches of one panel."""
DOT, BEST, OWN = COLOURS[0], COLOURS[1], REFERENCE_COLOURS[0]


def plot_search(path: Path, results: Mapping[str, Any]) -> None:
    """Draw what `gather` gives as a PNG, atomically; trials without a metric are left out.

    Raises:
        ValueError: no trial is done.
    """
    done = sorted((row for row in results["rows"] if row["value"] is not None), key=lambda row: row["trial"])
    if not done:
        raise ValueError("no trial is done; expected one at least")
    keys: dict[str, dict[str, Any]] = results["keys"]
    count = 1 + len(keys)
    columns = min(count, MAX_COLUMNS)
    figure = new_figure(WIDTH * columns, HEIGHT * math.ceil(count / columns))
    places = list(figure.subplots(math.ceil(count / columns), columns, squeeze=False).flat)
    _draw_course(places[0], done, higher=results["higher"])
    for axes, (name, space) in zip(places[1:count], keys.items(), strict=True):
        _draw_key(axes, name, space, done)
    own = next((row["value"] for row in done if row["is_given"]), None)
    best = next(row for row in done if row["trial"] == results["best"])
    for place, axes in enumerate(places[:count]):
        if own is not None:
            axes.axhline(own, color=OWN, linestyle="--", linewidth=1, zorder=1)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)
        if place % columns == 0:
            axes.set_ylabel(results["metric"], fontsize=9)
    for axes in places[count:]:
        axes.set_visible(False)
    line = "" if own is None else "; dashed: run.toml's own values"
    figure.suptitle(f"{results['name']}: {results['stage']}, best {best['value']:.4g} in trial {best['trial']}{line}",
                    fontsize=10)  # fmt: skip
    save_figure(path, figure)


def _draw_course(axes: Axes, done: Sequence[Mapping[str, Any]], *, higher: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    numbers, values = [row["trial"] for row in done], [row["value"] for row in done]
    axes.scatter(numbers, values, s=16, color=DOT, zorder=2)
    so_far = list(accumulate(values, max if higher else min))
    axes.step(numbers, so_far, where="post", color=BEST, linewidth=1.4, label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial", fontsize=9)
    axes.legend(fontsize=8, frameon=False)


def _draw_key(axes: Axes, name: str, space: Mapping[str, Any], done: Sequence[Mapping[str, Any]]) -> None:
    found, values = [row["values"][name] for row in done], [row["value"] for row in done]
    if "choices" in space:
        choices = [str(choice) for choice in space["choices"]]
        axes.set_xticks(range(len(choices)), choices)
        axes.set_xlim(-0.5, len(choices) - 0.5)
        places = [choices.index(str(value)) for value in found]
    else:
        places = found
        if space["log"]:
            axes.set_xscale("log")
    axes.scatter(places, values, s=16, c=[row["trial"] for row in done], cmap="Blues", edgecolors=DOT, linewidths=0.6,
                 vmin=-max(row["trial"] for row in done) / 2)  # fmt: skip
    axes.set_xlabel(name, fontsize=9)
