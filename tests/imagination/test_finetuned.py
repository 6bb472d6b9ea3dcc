"""Imagination with a transformer that learns too: what moves, what stays, resuming, memory."""

from __future__ import annotations

import math

import pytest
import torch

from ahriuwu_cli.agent.batches import mixture
from ahriuwu_cli.agent.checkpoint import load_agent
from ahriuwu_cli.agent.train import agent_losses, term_weights
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import DeviceError
from ahriuwu_cli.core.training.loop import moved, train
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.dynamics.config import ObjectiveConfig
from ahriuwu_cli.imagination.finetune import agent_section
from ahriuwu_cli.imagination.losses import imagination_terms
from ahriuwu_cli.imagination.memory import estimate_imagination_memory
from ahriuwu_cli.imagination.model import load_imagination
from ahriuwu_cli.imagination.rollout import read_again
from ahriuwu_cli.imagination.train import ImagineStage, train_imagination
from ahriuwu_cli.latents.windows import LatentWindows

CPU = torch.device("cpu")


def finetuned(packed_run, **changes):
    return packed_run.config.imagine.model_copy(update={"transformer": "finetuned", **changes})


def stage_of(packed_run, agent_path, runtime, **changes) -> ImagineStage:
    torch.manual_seed(0)
    agent, windows = load_agent(agent_path, CPU), LatentWindows(packed_run.packed, "train")
    stage = ImagineStage(finetuned(packed_run, **changes), agent, windows, runtime, 0)
    for parameter in stage.trained().values():
        parameter.requires_grad_(True)  # as the loop does
    return stage


@pytest.fixture
def stage(packed_run, agent_path, cpu_runtime) -> ImagineStage:
    return stage_of(packed_run, agent_path, cpu_runtime)


# ---------------------------------------------------------------- reading again


@pytest.mark.parametrize(("context", "horizon"), [(1, 2), (3, 3), (4, 9)])
def test_reading_a_rollout_again_gives_what_the_dream_read(packed_run, agent_path, cpu_runtime, context, horizon):
    """One pass with gradient = the cached read-outs, also past the window (4), with the same corruption noise."""
    stage = stage_of(packed_run, agent_path, cpu_runtime, context_length=context, horizon=horizon)
    with torch.no_grad():
        for name, parameter in stage.module.agent.world.named_parameters():
            if "embed" in name or parameter.ndim > 1:
                parameter.mul_(3)  # differences must show
    torch.manual_seed(0)
    rollout = stage._dream(0, stage.batch(0, 0).context)
    assert rollout.z_tilde.shape[1] == context + horizon
    agent = read_again(stage.module.agent, rollout, 0.875, 4)
    assert agent.requires_grad and not rollout.agent.requires_grad
    torch.testing.assert_close(agent.detach(), rollout.agent, atol=2e-5, rtol=0)
    for changes in ({"tau_context": 0.75}, {"window": 1}):
        other = read_again(stage.module.agent, rollout, **{"tau_context": 0.875, "window": 4, **changes})
        if horizon > 2:
            assert (other - rollout.agent).abs().max() > 3e-4, changes  # weights are trained: they vary a little


def test_the_blocks_are_the_dream_s_own(stage):
    """Actions stand in the block of the frame they led to."""
    rollout = stage._dream(0, stage.batch(0, 0).context)
    assert torch.equal(rollout.led[:, 3:], rollout.action)
    assert rollout.led_valid[:, 3:].all()
    again = stage_of_noise(stage, rollout)
    assert (again - rollout.agent).abs().max() > 1e-3  # other noise, other read-outs


def stage_of_noise(stage, rollout):
    changed = {**rollout.tensors(), "z_tilde": rollout.z_tilde + 0.1 * torch.randn(rollout.z_tilde.shape)}
    return read_again(stage.module.agent, type(rollout)(**changed), 0.875, 4).detach()


def test_frozen_rollouts_keep_no_blocks(packed_run, agent_path, cpu_runtime):
    stage = stage_of(packed_run, agent_path, cpu_runtime, transformer="frozen")
    rollout = stage._dream(0, stage.batch(0, 0).context)
    assert set(rollout.tensors()) == {"agent", "action", "reward", "alive", "size"}


# ---------------------------------------------------------------- what learns


def test_everything_learns_but_the_slow_value(packed_run, stage, cpu_runtime, tmp_path):
    """Pitfall 3: declared set = trained set, each moved; the slow value alone is no parameter that learns."""
    before = {name: tensor.clone() for name, tensor in stage.module.state_dict().items()}
    settings = packed_run.config.imagine.train.model_copy(update={"log_every": 1})
    declared = set(stage.trained())
    result = train(stage, settings, cpu_runtime, tmp_path, resume=False, seed=0)
    assert declared == {name for name in before if not name.startswith("slow_value.")}
    assert moved(before, stage.module.state_dict()) == set(before)
    assert result.header.info["untrained"] == []
    assert all(parameter.requires_grad == (name in declared) for name, parameter in stage.module.named_parameters())
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "warning" not in line]
    assert len(lines) == settings.steps
    for line in lines:  # PMPO, value, and every term of Eq. 9 and the dynamics in every step
        for name in ("policy_loss", "value_loss", "prior_loss", "reward_loss", "continue_loss", "flow", "entropy"):
            assert line[name] is not None and math.isfinite(line[name]), name
    loaded, _ = load_imagination(tmp_path / "imagination.safetensors", CPU)
    h = torch.randn(3, 16)
    assert torch.equal(loaded.prior_now(h), stage.module.prior_now(h))


def gradients(stage, loss) -> set[str]:
    names = list(stage.trained())
    found = torch.autograd.grad(loss, [stage.trained()[name] for name in names], allow_unused=True, retain_graph=True)
    return {name for name, gradient in zip(names, found, strict=True) if gradient is not None and gradient.any()}


def test_the_policy_waits_for_the_value_and_what_is_recorded_does_not(packed_run, agent_path, cpu_runtime):
    stage = stage_of(packed_run, agent_path, cpu_runtime, transformer="finetuned", value_only_steps=1)
    for parameter in stage.trained().values():
        parameter.requires_grad_(True)
    first, second = (gradients(stage, stage.loss(step, stage.batch(step, 0))[0]) for step in range(2))
    assert not any(name.startswith("agent.policy.") for name in first)
    assert any(name.startswith("prior.") for name in first)
    assert any(name.startswith("agent.world.") for name in first)
    assert any(name.startswith("agent.policy.") for name in second)


def test_which_loss_trains_what(packed_run, stage):
    """PMPO and value reach the transformer; cloning trains the prior's head and never the policy's."""
    with torch.no_grad():
        stage.module.value.out.weight.normal_(std=0.1)
    torch.manual_seed(1)
    rollout = stage._dream(0, stage.batch(0, 0).context)
    model = stage.module
    seen = type(rollout)(**{**rollout.tensors(), "agent": read_again(model.agent, rollout, 0.875, 4)})
    terms, _ = imagination_terms(model, seen, finetuned(packed_run))
    heads = {"policy": "agent.policy.", "value": "value.", "prior": "prior.", "world": "agent.world."}

    def parts(loss) -> set[str]:
        found = gradients(stage, loss)
        return {part for part, start in heads.items() if any(name.startswith(start) for name in found)}

    assert parts(terms.policy) == {"policy", "world"}
    assert parts(terms.value) == {"value", "world"}
    assert not terms.weighed.requires_grad and terms.weighed > 0
    section, batch = agent_section(stage._agent), stage.batch(0, 0).recorded
    count, _ = mixture(section.train.batch_size, section.relevant_fraction)
    assert (count, len(batch.valid)) == (3, 4)  # of the agent's own section: 4 windows, 0.75 of them relevant
    recorded, _ = agent_losses(model.agent, batch, count, ObjectiveConfig(), 0.875, cloning=model.prior)
    assert set(recorded) == {"policy", "reward", "continue", "dynamics"}
    assert parts(recorded["policy"]) == {"prior", "world"}
    assert parts(recorded["dynamics"]) == parts(recorded["reward"]) == parts(recorded["continue"]) == {"world"}


def test_terms_are_normalised(stage):
    """At the first step every term over its RMS is 1, PMPO over what it weighs; pitfall 28: gradients are there."""
    total, metrics = stage.loss(0, stage.batch(0, 0))
    others = 1 + sum(term_weights(stage._finetuning._section).values())  # 1: the value
    weighed = (metrics["policy_loss"] / (total - others)).item()
    assert weighed == pytest.approx(metrics["entropy"].item(), rel=0.2)  # |ln pi| of what was drawn, no KL yet
    total.backward()
    assert all(p.grad is not None for name, p in stage.trained().items() if not name.startswith("value.hidden"))


# ---------------------------------------------------------------- the rest of a training


@pytest.mark.parametrize("k", [1, 3])
def test_resume_is_exact(packed_run, straight_and_resumed, k):
    """Pitfall 14: N steps straight = k steps + resume + N-k steps; running averages and kept blocks included."""
    guard = packed_run.config.imagine.guard.model_copy(update={"disagreement_every": 1, "disagreement_rows": 2})
    left, right = straight_and_resumed(finetuned(packed_run, updates_per_rollout=2, guard=guard), k)
    assert not [n for n in left if not torch.equal(left[n].nan_to_num(-1), right[n].nan_to_num(-1))]


def test_memory_counts_the_transformer_s_step(packed_run, agent_path, cpu_runtime, tmp_path, monkeypatch):
    """More than frozen; grows with context, with the recorded batch, and shrinks with recomputation."""
    agent = load_agent(agent_path, CPU)

    def need(**changes) -> int:
        return estimate_imagination_memory(finetuned(packed_run, **changes), agent, cpu_runtime)

    whole, settings = need(), packed_run.config.imagine.train
    world = sum(p.numel() * 4 for p in agent.model.world.parameters())
    assert whole - need(transformer="frozen") > 3 * world
    assert need(context_length=4) > whole
    assert need(train=settings.model_copy(update={"batch_size": 32, "recompute": True})) < need(
        train=settings.model_copy(update={"batch_size": 32})
    )
    agent.header.config["agent"]["train"]["batch_size"] *= 4
    assert need() > whole
    monkeypatch.setattr("ahriuwu_cli.core.memory.available_memory", lambda device: whole // 2)
    with pytest.raises(DeviceError, match="one imagination step needs about"):
        train_imagination(finetuned(packed_run), agent_path, packed_run.packed, tmp_path / "x", cpu_runtime, seed=0)


def test_it_learns_in_bf16_too(packed_run, agent_path):
    """Weights used without gradient in the dream and with it afterwards get their gradient under autocast."""
    stage = stage_of(packed_run, agent_path, Runtime(CPU, "bf16"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = stage.loss(0, stage.batch(0, 0))
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in stage.module.agent.world.transformer.parameters())
    assert all(p.dtype == torch.float32 for p in stage.module.parameters())
