"""One picture of a store: lengths of episodes, rewards, and how often each action is taken."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.pictures.figures import COLOURS, new_figure, save_figure
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.telling import choices, most_frequent, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS = 10  # components and numbers of an action that are drawn
MAX_BARS = 16  # choices or switches in a panel; of more, the most frequent
COLUMNS = 3


def require_drawable(store: EpisodeStore, png: Path) -> None:
    """Refuse to draw nothing, or into a file of another kind, before work is done for it.

    Raises:
        InputError: the store is empty, or `png` does not end in .png.
    """
    if png.suffix.lower() != ".png":
        raise InputError(f"--png is {png}; expected a file name that ends in .png", hint="give it that ending")
    if not store.episodes:
        raise InputError(f"{store.folder} has no episodes; there is nothing to draw", hint="record or import some")


def draw(png: Path, facts: Mapping[str, Any], title: str) -> None:
    """Draw the facts of a census as a PNG, written atomically."""
    panels: list[tuple[str, list[tuple[str, float]]]] = []
    for name, part in facts["actions"].items():
        if part["type"] == "continuous":
            edges = [number(edge) for edge in part["edges"]]
            for place, shares in zip(part["names"], part["histogram"], strict=True):
                heading = f"{name}, from" if len(part["names"]) == 1 else f"{name} {place}, from"
                bars = zip(edges[:-1], shares, strict=True)
                panels.append((heading, [(low, share or 0.0) for low, share in bars]))
        else:
            shown = most_frequent(choices(part), MAX_BARS)
            heading = name if len(shown) == len(choices(part)) else f"{name}: the {MAX_BARS} most frequent"
            panels.append((heading, [(choice, share or 0.0) for choice, share in shown]))
    dropped = max(0, len(panels) - MAX_PANELS)
    panels = panels[:MAX_PANELS]
    rows = -(-(2 + len(panels)) // COLUMNS)
    figure = new_figure(4.2 * COLUMNS, 0.6 + 3.1 * rows)
    places = figure.subplots(rows, COLUMNS, squeeze=False).flat
    _histogram(next(places), "steps of an episode", "episodes", facts["lengths"]["histogram"], rare=False)
    _histogram(next(places), "reward of a step", "steps", facts["rewards"]["histogram"], rare=True)
    for heading, shares in panels:
        _bars(next(places), heading, shares)
    for left in places:
        left.set_axis_off()
    more = f" ({dropped} more parts of the action are not drawn)" if dropped else ""
    figure.suptitle(f"{title}{more}", fontsize=11)
    save_figure(png, figure)


def _histogram(axes: Axes, title: str, unit: str, entries: list[dict[str, Any]], *, rare: bool) -> None:
    """Counts; on a logarithmic scale where what is `rare` is what is looked for."""
    from matplotlib.ticker import MaxNLocator

    few = all(entry["low"] == entry["high"] for entry in entries)
    counts = [entry["count"] for entry in entries]
    if few:
        axes.bar([number(entry["low"]) for entry in entries], counts, color=COLOURS[0])
        axes.tick_params(axis="x", labelrotation=90 if len(entries) > 6 else 0)
    else:
        lows = [entry["low"] for entry in entries]
        widths = [entry["high"] - entry["low"] for entry in entries]
        axes.bar(lows, counts, widths, align="edge", color=COLOURS[0])
    if rare:
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel(unit, fontsize=9)
    _plain(axes, title)


def _bars(axes: Axes, title: str, shares: list[tuple[str, float]]) -> None:
    """Shares of labelled steps in percent, one bar each."""
    axes.bar(range(len(shares)), [100 * share for _, share in shares], color=COLOURS[2])
    axes.set_xticks(range(len(shares)), [name[:16] for name, _ in shares])
    axes.tick_params(axis="x", labelrotation=90 if len(shares) > 6 else 0)
    axes.set_ylim(0, max(1.0, *(110 * share for _, share in shares)))
    axes.set_ylabel("% of labelled steps", fontsize=9)
    _plain(axes, title)


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
