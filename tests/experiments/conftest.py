"""Fixtures of studies: a study.toml beside the finished minuscule run, and what running it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ahriuwu_cli.core.report import Report

STUDY = """
run = "run.toml"
seeds = [0, 1]
scratch = ["agent.train.steps=2"]
"""


@pytest.fixture
def study_text() -> str:
    """The keys of a study of two seeds, in which everybody plays."""
    return STUDY


@pytest.fixture
def quick(no_tensorboard, monkeypatch) -> None:
    """No pictures of the episodes that are played: they are not what is tested here."""
    for name in ("write_videos", "plot_returns", "plot_actions"):
        monkeypatch.setattr(f"ahriuwu_cli.evaluation.agents.{name}", lambda *arguments, **options: None)


@pytest.fixture
def plan_file(run_dir) -> Path:
    """A study.toml beside the finished minuscule run, whose world it takes."""
    path = run_dir / "study.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def study(plan_file) -> Callable[..., Report]:
    """Run the study in the run's folder."""

    def call(**asked) -> Report:
        from ahriuwu_cli.experiments.study import Request, run_study

        return run_study(Request(config=plan_file, folder=plan_file.parent, **asked))

    return call


@pytest.fixture
def steps(monkeypatch) -> dict[str, int]:
    """Counts training steps by stage, and evaluations."""
    from ahriuwu_cli.agent.scratch import ScratchStage
    from ahriuwu_cli.agent.train import AgentStage
    from ahriuwu_cli.dynamics.train import DynamicsStage
    from ahriuwu_cli.imagination.train import ImagineStage
    from ahriuwu_cli.pipeline import stages

    counts: dict[str, int] = {}
    for stage in (DynamicsStage, ScratchStage, AgentStage, ImagineStage):

        def counted(self, step, batch, original=stage.loss) -> object:
            name = type(self).__name__.removesuffix("Stage")
            counts[name] = counts.get(name, 0) + 1
            return original(self, step, batch)

        monkeypatch.setattr(stage, "loss", counted)
    play = stages.evaluate_agent

    def played(*arguments, **options) -> Report:
        counts["played"] = counts.get("played", 0) + 1
        return play(*arguments, **options)

    monkeypatch.setattr(stages, "evaluate_agent", played)
    return counts
