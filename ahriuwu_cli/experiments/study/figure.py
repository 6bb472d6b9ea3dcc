"""`study figure` and `study table`: from what several results.json hold, without the artifacts behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.files import write_json, write_text
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.evaluation.ladder import LABELS, Bracket, Panel, Rung, plot_ladder
from ahriuwu_cli.experiments.plans import as_markdown, say
from ahriuwu_cli.experiments.study.results import read_results
from ahriuwu_cli.experiments.study.table import make_table


def draw_figure(files: Sequence[Path], out: Path) -> Report:
    """Draw a panel for each results.json into the PNG `out`.

    Raises:
        InputError: a file is not there, or is not the result of a study.
    """
    panels = [_panel(_read(path)) for path in files]
    plot_ladder(out, panels)
    rows = [(panel.title, ", ".join(LABELS[name] for name in panel.rungs)) for panel in panels]
    return Report("study figure", ("panel", "agents"), rows, {"file": str(out), "panels": len(panels)}, (str(out),))


def redo_table(path: Path) -> Report:
    """The table of a results.json; one of older statistics is brought up to date, with the table.md beside it.

    Raises:
        InputError: see `draw_figure`.
    """
    results, older = read_results(path)
    report = make_table(results)
    if older:
        write_json(path, results)
        write_text(path.parent / "table.md", as_markdown(report, f"ahriuwu study table {path}"))
        say(f"{path} had statistics of an older kind: made anew from the returns in it")
    return report


def _read(path: Path) -> Mapping[str, Any]:
    results, older = read_results(path)
    if older:
        say(f"{path} has statistics of an older kind; drawn is what follows from the returns in it")
    return results


def _panel(results: Mapping[str, Any]) -> Panel:
    agents = results["pooled"]["agents"]
    won = next(
        (entry for entry in results["claims"] if (entry["agent"], entry["baseline"]) == ("imagination", "bc")), None
    )
    return Panel(
        title=results["game"],
        rungs={name: Rung.of(agents[name]) for name in agents},
        bracket=Bracket(won["p_value"], won["num_seeds"], won["verdict"]) if won else None,
        confidence=results["confidence"],
    )
