"""Plots: figures apart from any global state, and the colours of their lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ahriuwu_cli.core.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DPI = 120


def new_figure(width: float, height: float) -> Figure:
    """Make a figure (size in inches) apart from pyplot's global state; matplotlib is imported only when drawing."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as a PNG, atomically."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=DPI))
