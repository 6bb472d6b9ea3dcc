"""`study figure`: several results.json as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.evaluation.ladder import LABELS, Panel, Rung, plot_ladder
from ahriuwu_cli.experiments.plans import read_json


def draw_figure(files: Sequence[Path], out: Path) -> Report:
    """Draw a panel for each results.json into the PNG `out`.

    Raises:
        InputError: a file is not there, or is not the result of a study.
    """
    panels = [_panel(path) for path in files]
    plot_ladder(out, panels)
    rows = [(panel.title, ", ".join(LABELS[name] for name in panel.rungs)) for panel in panels]
    return Report("study figure", ("panel", "agents"), rows, {"file": str(out), "panels": len(panels)}, (str(out),))


def _panel(path: Path) -> Panel:
    results = read_json(path)
    if not {"game", "pooled", "verdicts", "confidence"} <= results.keys():
        found = "does not exist" if not path.exists() else "is not the result of a study, or no seed of it is done"
        raise InputError(f"{path} {found}", hint="give a results.json that `ahriuwu study run` wrote")
    agents = results["pooled"]["agents"]
    won: dict[str, Any] | None = results["verdicts"]["imagination"]
    return Panel(
        title=results["game"],
        rungs={name: Rung.of(agents[name]) for name in agents},
        p_value=won["p_value"] if won else None,
        confidence=results["confidence"],
    )
