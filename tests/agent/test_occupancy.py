"""Pitfall 23: how much of the two-hot range targets and predictions use, and what lies beyond it."""

from __future__ import annotations

import math

import pytest
import torch

from ahriuwu_cli.agent.occupancy import BucketsEver, occupancy
from ahriuwu_cli.agent.train import AgentStage
from ahriuwu_cli.core.errors import TrainingInterrupted
from ahriuwu_cli.core.training.loop import train
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.dynamics.checkpoint import load_world
from ahriuwu_cli.latents.windows import LatentWindows
from ahriuwu_cli.nn.twohot import TwoHot

CPU = torch.device("cpu")
SMALL = TwoHot(5, math.log(3))  # buckets -2, 1 - sqrt(3), 0, sqrt(3) - 1, 2


def test_occupancy_by_hand():
    """Pitfall 23: buckets of targets, probability given to those, and targets beyond the range."""
    target = torch.tensor([0.0, 1.0, 5.0, -9.0])  # middle; between the two upper ones; beyond; not counted
    counted = torch.tensor([True, True, True, False])
    logits = torch.zeros(4, 5)
    logits[1, 0] = 1000.0  # all on a bucket that no target uses
    logits[3, 0] = 1000.0
    found = occupancy("reward", SMALL, logits, target, counted)
    assert found["reward_buckets_used"].item() == 3
    assert found["reward_mass_on_used"].item() == pytest.approx((3 / 5 + 0 + 3 / 5) / 3)
    assert found["reward_clamped"].item() == pytest.approx(1 / 3)


def test_targets_at_the_very_edge_are_inside():
    found = occupancy("value", SMALL, torch.zeros(2, 5), torch.tensor([1.999, -1.999]), torch.ones(2, dtype=torch.bool))
    assert found["value_clamped"].item() == 0
    assert found["value_buckets_used"].item() == 4


def test_nothing_counted_is_nothing_measured():
    found = occupancy("reward", SMALL, torch.zeros(2, 5), torch.ones(2), torch.zeros(2, dtype=torch.bool))
    assert found["reward_buckets_used"].item() == 0
    assert math.isnan(found["reward_mass_on_used"])
    assert math.isnan(found["reward_clamped"])


def test_a_rare_reward_is_remembered_and_restored():
    """Pitfall 23: what counts is what was ever used, not what the last batch used."""
    ever, yes = BucketsEver(SMALL, CPU), torch.ones(2, 3, dtype=torch.bool)
    assert ever.see(torch.zeros(2, 3), yes).item() == 1
    assert ever.see(torch.full((2, 3), 2.0), yes).item() == 2
    assert ever.see(torch.full((2, 3), -2.0), ~yes).item() == 2
    other = BucketsEver(SMALL, CPU)
    other.load_state(ever.state())
    assert other.see(torch.full((2, 3), -2.0), yes).item() == 3


@pytest.fixture
def make_stage(packed_run, dynamics_path, cpu_runtime):
    def make() -> AgentStage:
        torch.manual_seed(0)
        windows = LatentWindows(packed_run.packed, "train")
        return AgentStage(packed_run.config.agent, load_world(dynamics_path, CPU), windows, cpu_runtime, 0)

    return make


@pytest.mark.usefixtures("no_tensorboard")
def test_a_training_reports_what_it_ever_used_across_a_resume(packed_run, make_stage, cpu_runtime, stop_at, tmp_path):
    """Pitfalls 14 and 23: the number never falls, and is that of a run without a break."""
    settings = packed_run.config.agent.train.model_copy(update={"log_every": 1})
    train(make_stage(), settings, cpu_runtime, tmp_path / "straight", resume=False, seed=0)
    stop_at(AgentStage, 2)
    with pytest.raises(TrainingInterrupted):
        train(make_stage(), settings, cpu_runtime, tmp_path / "broken", resume=False, seed=0)
    stop_at(AgentStage, 0)
    train(make_stage(), settings, cpu_runtime, tmp_path / "broken", resume=True, seed=0)
    names = ("reward_buckets_ever", "reward_buckets_used", "reward_mass_on_used", "reward_clamped")
    straight, broken = (
        [{name: line[name] for name in names} for line in read_metrics(tmp_path / run / "metrics.jsonl")]
        for run in ("straight", "broken")
    )
    assert straight == broken
    ever = [line["reward_buckets_ever"] for line in straight]
    assert ever == sorted(ever)
    assert all(1 <= line["reward_buckets_used"] <= line["reward_buckets_ever"] <= 11 for line in straight)
    assert all(0 < line["reward_mass_on_used"] < 1 for line in straight)
    assert all(line["reward_clamped"] == 0 for line in straight)
