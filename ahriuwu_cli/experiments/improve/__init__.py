"""`improve`: rounds of recording with the latest policy, finetuning on the grown data, and imagining again."""

from ahriuwu_cli.experiments.improve.command import Request, run_improvement

__all__ = ["Request", "run_improvement"]
