"""`tune`: named config keys searched by a held-out metric of one stage."""

from ahriuwu_cli.experiments.tune.command import Request, run_tune

__all__ = ["Request", "run_tune"]
