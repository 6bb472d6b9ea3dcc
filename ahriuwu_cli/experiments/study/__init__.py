"""`study`: who beats whom in the real game, over training seeds, as one table and one figure."""

from ahriuwu_cli.experiments.study.command import Request, run_study
from ahriuwu_cli.experiments.study.figure import draw_figure, redo_table

__all__ = ["Request", "draw_figure", "redo_table", "run_study"]
