"""The check in the real game: what it says, and that training does not notice it."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ahriuwu_cli.agent.checkpoint import load_agent
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.games import environment
from ahriuwu_cli.games.seeds import Stream, fresh_seeds
from ahriuwu_cli.imagination.check import GameCheck, RealGame
from ahriuwu_cli.imagination.config import CheckSection
from ahriuwu_cli.imagination.train import train_imagination
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.config import Run
from ahriuwu_cli.tokenizer.checkpoint import load_tokenizer

CPU = torch.device("cpu")
CHECK = CheckSection(every=2, episodes=3, max_steps=6)


@pytest.fixture
def game(packed_run) -> RealGame:
    tokenizer, _ = load_tokenizer(packed_run.tokenizer, CPU)
    return RealGame(packed_run.config.data, tokenizer, fresh_seeds(0, Stream.CHECK, 3, set()))


@pytest.mark.parametrize("transformer", ["frozen", "finetuned"])
def test_training_does_not_notice(packed_run, agent_path, cpu_runtime, game, tmp_path, monkeypatch, transformer):
    """With and without checks the state is bit-equal, even where the environment draws from global generators."""
    step = environment.GameEnv.step

    def careless(self, row):
        random.random(), np.random.random(), torch.randn(3)
        return step(self, row)

    monkeypatch.setattr(environment.GameEnv, "step", careless)
    section = packed_run.config.imagine
    section = section.model_copy(
        update={"transformer": transformer, "train": section.train.model_copy(update={"log_every": 1})}
    )
    for name, update in (("without", {}), ("with", {"check": CHECK})):
        chosen = section.model_copy(update=update)
        arguments = chosen, agent_path, packed_run.packed, tmp_path / name, cpu_runtime
        train_imagination(*arguments, seed=1, resume=False, game=game)
    left, right = (load_file(tmp_path / name / "imagination.state.safetensors") for name in ("without", "with"))
    assert left.keys() == right.keys() and not [name for name in left if not torch.equal(left[name], right[name])]
    lines = [line for line in read_metrics(tmp_path / "with" / "metrics.jsonl") if "warning" not in line]
    assert [line["step"] for line in lines if "real_return" in line] == [1, 3]  # before updates 0 and 2
    for line in lines:
        if "real_return" in line:
            assert line["real_reward_per_step"] == pytest.approx(line["real_return"] / line["real_length"])
            gap = line["imagined_reward_per_step"] - line["real_reward_per_step"]
            assert line["reward_gap"] == pytest.approx(gap, abs=1e-6)
            assert 1 <= line["real_length"] <= CHECK.max_steps


def test_it_plays_with_the_weights_of_the_moment_and_only_reads_them(packed_run, agent_path, game):
    """The same episodes again and again; another policy plays otherwise; bf16 converts nothing that is trained."""
    agent = load_agent(agent_path, CPU)
    check = GameCheck(CHECK, game, agent, Runtime(CPU, "bf16"), temperature=1.0, seed=0)
    before = {name: tensor.clone() for name, tensor in agent.model.state_dict().items()}
    assert check.comparable and [check.due(step) for step in range(4)] == [True, False, True, False]
    first = check.play()
    assert check.play() == first
    after = agent.model.state_dict()
    assert all(after[name].dtype == torch.float32 and torch.equal(after[name], before[name]) for name in before)
    seen = []
    act = check._player.act
    check._player.act = lambda *given: seen.append(act(*given)) or seen[-1]
    for choice in (0, 2):
        with torch.no_grad():
            agent.model.policy.net.out.bias.zero_()
            agent.model.policy.net.out.bias[choice] = 50.0
        seen.clear()
        check.play()
        assert {float(row) for rows in seen for row in rows.flatten()} == {choice}


@pytest.mark.parametrize(("recorded", "asked", "played"), [(3, 6, 3), (3, 0, 3), (6, 2, 2)])
def test_it_keeps_the_recorded_limit(agent_path, game, cpu_runtime, recorded, asked, played):
    """Pitfall 43: a check may be shorter than the recorded episodes, never longer."""
    limited = RealGame(game.data.model_copy(update={"max_episode_steps": recorded}), game.tokenizer, game.seeds)
    settings = CHECK.model_copy(update={"max_steps": asked})
    agent = load_agent(agent_path, CPU)
    check = GameCheck(settings, limited, agent, cpu_runtime, temperature=1.0, seed=0)
    assert check.play()["real_length"] == played


def test_an_environment_that_cannot_be_made_is_refused_before_training(
    packed_run, agent_path, cpu_runtime, game, tmp_path
):
    data = game.data.model_copy(update={"env": "ahriuwu/Nothing-v0"})
    section = packed_run.config.imagine.model_copy(update={"check": CHECK})
    broken = RealGame(data, game.tokenizer, game.seeds)
    with pytest.raises(InputError, match="there is no environment"):
        arguments = section, agent_path, packed_run.packed, tmp_path / "x", cpu_runtime
        train_imagination(*arguments, seed=0, resume=False, game=broken)
    assert not (tmp_path / "x").exists()


def test_the_command_builds_the_game_of_the_run(packed_run, agent_path, tmp_path, monkeypatch):
    """From `imagine.check` to metrics; seeds that are not in the store."""
    shutil.copytree(packed_run.folder, tmp_path / "run")
    config = packed_run.config
    imagine = config.imagine.model_copy(update={"check": CHECK})
    run = Run(config.model_copy(update={"imagine": imagine}), tmp_path / "run")
    run.agent.parent.mkdir()
    shutil.copy(agent_path, run.agent)
    made = []
    build = stages._real_game
    monkeypatch.setattr(stages, "_real_game", lambda *given: made.append(build(*given)) or made[-1])
    report = stages.train_imagination(run)
    assert "real_return" in report.data["metrics"]
    recorded = {record.seed for record in EpisodeStore.open(run.episodes).episodes}
    assert len(made) == 1 and len(made[0].seeds) == 3 and not recorded & set(made[0].seeds)
