"""The agent on held-out play: likelihood of its actions, its heads, and the best guesses that look at nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ahriuwu_cli.agent.distribution import ActionDistribution, binary_loss
from ahriuwu_cli.agent.heldout import ConstantGuess, HeldoutPlay, Now, Sums, judge_policy
from ahriuwu_cli.agent.scratch import train_scratch
from ahriuwu_cli.agent.train import AgentStage, finetune_agent
from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.training.heldout import measure
from ahriuwu_cli.core.training.session import Session
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.dynamics.checkpoint import load_world
from ahriuwu_cli.dynamics.heldout import HeldoutWorld
from ahriuwu_cli.episodes.alignment import POLICY_OFFSET
from ahriuwu_cli.latents.heldout import heldout_windows
from ahriuwu_cli.latents.windows import LatentWindows

CPU = torch.device("cpu")
POLICY = {"heldout_policy", "heldout_policy_uniform", "heldout_policy_marginal", "heldout_accuracy",
          "heldout_accuracy_repeat_last"}  # fmt: skip
HEADS = {"heldout_reward", "heldout_reward_baseline", "heldout_continue", "heldout_continue_baseline",
         "heldout_end_share"}  # fmt: skip
WORLD = {"heldout_flow", "heldout_shuffled_flow", "heldout_next", "heldout_shuffled_next", "heldout_flow_parent"}


@pytest.fixture
def stage(packed_run, dynamics_path, cpu_runtime) -> AgentStage:
    windows = LatentWindows(packed_run.packed, "train")
    torch.manual_seed(0)
    world, heldout = load_world(dynamics_path, CPU), heldout_windows(packed_run.packed)
    return AgentStage(packed_run.config.agent, world, windows, cpu_runtime, 0, heldout)


def test_an_agent_that_has_learned_nothing_is_as_good_as_a_guess(packed_run, stage, cpu_runtime):
    """Pitfalls 39 and 40: the uniform loss for silent heads, and the parent's world before the first step."""
    model = stage.module
    with torch.no_grad():
        for head in (model.policy, model.reward, model.alive):
            head.net.out.weight.zero_()
            head.net.out.bias.zero_()
    found = measure(Session(stage, packed_run.config.agent.train, cpu_runtime, 0)).values
    assert set(found) == POLICY | HEADS | WORLD
    uniform = sum(part.shape[-2] * math.log(part.shape[-1]) for _, part in model.choices.split(torch.zeros(
        model.choices.num_logits)))  # fmt: skip
    assert found["heldout_policy"] == pytest.approx(uniform) == pytest.approx(found["heldout_policy_uniform"])
    assert found["heldout_reward"] == pytest.approx(math.log(model.twohot.num_buckets), rel=1e-5)
    assert found["heldout_continue"] == pytest.approx(math.log(2), rel=1e-5)
    assert found["heldout_flow"] == found["heldout_flow_parent"]
    section = packed_run.config.agent
    rows = section.train.batch_size
    judge = HeldoutWorld(heldout_windows(packed_run.packed), 32, section.batch_length, rows, stage._tau_context)
    with torch.no_grad():
        assert judge.judge(stage._world.model)["heldout_flow"] == found["heldout_flow_parent"]


def test_the_constant_guesses_are_the_best_constants_of_the_training_split(packed_run, stage):
    """No other constant has a lower loss on what they were fitted to (but for the one example they are told of)."""
    windows, section = stage._windows, packed_run.config.agent
    batch = windows.read(windows.sampler.draw(np.random.default_rng(0), 300, 6), 6, 3)
    guess = ConstantGuess(stage.module.choices, stage.module.twohot)
    guess.see(batch, imitated=True)
    now = Now.of(batch.action, batch.action_valid, batch.valid, POLICY_OFFSET)
    taken = now.target[now.known]
    assert section.heads.mtp_length == 3

    def loss(logits: torch.Tensor) -> float:
        rows = logits.expand(len(taken), -1)
        return -ActionDistribution(stage.module.choices, rows).log_prob(taken).mean().item()

    shares = torch.bincount(taken[:, 0].long(), minlength=len(guess.action)) / len(taken)
    entropy = -(shares * shares.clamp_min(1e-9).log()).sum().item()
    assert loss(guess.action) == pytest.approx(entropy, rel=1e-2)
    ended = batch.terminal[:, :6][batch.reward_valid[:, :6] & batch.valid].float().mean().item()
    assert torch.sigmoid(guess.goes_on).item() == pytest.approx(1 - ended, abs=2e-3)
    assert binary_loss(guess.goes_on, torch.tensor(1.0)) < math.log(2)
    reward = guess.reward.softmax(dim=-1) @ stage.module.twohot.centres(guess.reward)
    known = batch.reward[:, :6][batch.reward_valid[:, :6] & batch.valid]
    assert reward.item() == pytest.approx(known.mean().item(), abs=0.05)


def test_policy_numbers_worked_out_by_hand(packed_run, stage):
    """Two windows of two frames, three actions to predict: -ln p of each, and how often the likeliest was right."""
    choices = stage.module.choices
    count = choices.num_logits
    batch = stage._windows.read([(0, 0), (0, 3)], 2, lookahead=3)
    batch.action[:, :, 0] = torch.tensor([[0, 1, 2, 0, 0], [1, 1, 0, 0, 0]])
    batch.action_valid[:] = True
    batch.action_valid[1, 2] = False
    logits = torch.zeros(2, 2, count)
    logits[..., 1] = 2.0  # the policy always likes action 1 best
    marginal = torch.tensor([0.5, 0.25, *[0.25 / (count - 2)] * (count - 2)]).log()
    sums = Sums()
    judge_policy(sums, ActionDistribution(choices, logits), batch, marginal)
    found = sums.means()
    total = math.log(math.exp(2) + count - 1)  # targets: 1, 2 | 1 (the other is not known)
    assert found["policy"] == pytest.approx(((total - 2) + total + (total - 2)) / 3)
    assert found["policy_uniform"] == pytest.approx(math.log(count))
    assert found["policy_marginal"] == pytest.approx(-(2 * math.log(0.25) + math.log(0.25 / (count - 2))) / 3)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["accuracy_repeat_last"] == pytest.approx(1 / 3)


def test_policy_windows_are_those_that_would_be_imitated(packed_run, stage):
    """The relevant rule, on the held-out split."""
    section = packed_run.config.agent
    play = HeldoutPlay(section, stage._windows, heldout_windows(packed_run.packed), 0.875, heads=True)
    imitated, anywhere = play._windows
    assert (imitated.reward > 0).any(dim=1).all()
    assert not (anywhere.reward > 0).any(dim=1).all()
    assert len(imitated.valid) == len(anywhere.valid) == section.train.heldout_examples


def test_artifacts_say_what_was_measured(packed_run, dynamics_path, cpu_runtime, tmp_path):
    config = packed_run.config
    made = finetune_agent(
        config.agent, dynamics_path, packed_run.packed, tmp_path / "a", cpu_runtime, seed=0, resume=False
    )
    found = made.header.info["heldout"]
    assert set(found) == POLICY | HEADS | WORLD
    assert found["heldout_flow"] != found["heldout_flow_parent"]  # finetuning has moved the world
    last = read_metrics(tmp_path / "a" / "metrics.jsonl")[-1]
    assert {name: last[name] for name in found} == found
    train_scratch(config.agent, config.dynamics, packed_run.packed, tmp_path / "s", cpu_runtime, seed=0, resume=False)
    scratch = read_header(tmp_path / "s" / "agent.safetensors", "agent").info["heldout"]
    assert set(scratch) == POLICY
    for name in ("heldout_policy_uniform", "heldout_policy_marginal"):
        assert scratch[name] == found[name]  # the same windows, the same constants
