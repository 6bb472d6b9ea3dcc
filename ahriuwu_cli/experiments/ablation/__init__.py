"""`ablate`: variants of the dynamics trained and judged on equal data, as one table."""

from ahriuwu_cli.experiments.ablation.command import Request, run_ablation

__all__ = ["Request", "run_ablation"]
