"""Imagination on a trained agent: what learns and what is frozen, the artifact, resuming, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ahriuwu_cli.agent.checkpoint import load_agent
from ahriuwu_cli.agent.distribution import ActionDistribution
from ahriuwu_cli.core.artifact import read_header, read_weights, write_weights
from ahriuwu_cli.core.config import validate
from ahriuwu_cli.core.errors import ArtifactError, ConfigError, DataError, DeviceError
from ahriuwu_cli.core.training.loop import moved, train
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.dynamics.model import DynamicsModel
from ahriuwu_cli.dynamics.sampler import Dream, noise_from
from ahriuwu_cli.imagination.config import ImagineSection
from ahriuwu_cli.imagination.model import load_imagination
from ahriuwu_cli.imagination.rollout import imagine
from ahriuwu_cli.imagination.train import ImagineStage, train_imagination
from ahriuwu_cli.latents.windows import LatentWindows

CPU = torch.device("cpu")


def stage_of(packed_run, agent_path, cpu_runtime, **changes) -> ImagineStage:
    section = packed_run.config.imagine.model_copy(update=changes)
    torch.manual_seed(0)
    windows = LatentWindows(packed_run.packed, "train")
    return ImagineStage(section, load_agent(agent_path, CPU), windows, cpu_runtime, 0)


@pytest.fixture
def stage(packed_run, agent_path, cpu_runtime) -> ImagineStage:
    return stage_of(packed_run, agent_path, cpu_runtime)


# ---------------------------------------------------------------- the model


def test_it_starts_as_the_agent_with_its_policy_as_prior(stage, agent_path):
    """Pitfall 2: the prior is a copy of the very head that behaviour cloning trained."""
    agent = load_agent(agent_path, CPU).model
    h = torch.randn(5, 16)
    model = stage.module
    assert torch.equal(model.prior_now(h), agent.policy_now(h))
    assert torch.equal(model.agent.policy_now(h), agent.policy_now(h))
    assert torch.equal(model.agent.reward_now(h), agent.reward_now(h))
    assert torch.equal(model.agent.alive_now(h), agent.alive_now(h))
    assert agent.policy_now(h).std() > 0
    assert model.value_now(h).abs().max() < 1e-4 and model.value_now(h, slow=True).abs().max() < 1e-4


def test_the_slow_values_follow_by_hand(stage):
    model = stage.module
    with torch.no_grad():
        model.value.out.bias.fill_(1.0)
        model.slow_value.out.bias.fill_(0.0)
    model.follow(0.75)
    assert model.slow_value.out.bias.unique().tolist() == [0.25]
    model.follow(0.0)
    assert model.slow_value.out.bias.unique().tolist() == [1.0]
    assert model.value.out.bias.unique().tolist() == [1.0]


# ---------------------------------------------------------------- what learns


def test_policy_and_value_learn_and_nothing_else_changes_a_bit(packed_run, stage, cpu_runtime, tmp_path):
    """Pitfall 3: declared set = trained set, each moved; prior, world, reward and continue bit-identical.

    The slow values are no parameters that learn, they follow.
    """
    before = {name: tensor.clone() for name, tensor in stage.module.state_dict().items()}
    settings = packed_run.config.imagine.train.model_copy(update={"log_every": 1})
    declared = set(stage.trained())
    result = train(stage, settings, cpu_runtime, tmp_path, resume=False, seed=0)
    changed = moved(before, stage.module.state_dict())
    assert declared == {name for name in before if name.startswith(("agent.policy.", "value."))}
    assert declared == {name for name in changed if not name.startswith("slow_value.")}
    assert changed - declared == {name for name in before if name.startswith("slow_value.")}
    assert {name for name in before if name not in changed} == {
        name for name in before if name.startswith(("prior.", "agent.world.", "agent.reward.", "agent.alive."))
    }
    assert result.header.info["untrained"] == []
    assert all(parameter.requires_grad == (name in declared) for name, parameter in stage.module.named_parameters())
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "warning" not in line]
    assert len(lines) == settings.steps
    for line in lines:
        for name in ("imagined_return", "policy_loss", "value_loss", "entropy", "kl_to_prior", "positive_share"):
            assert line[name] is not None and math.isfinite(line[name]), name


def test_the_loss_and_its_gradients_are_there(stage):
    """Pitfall 28: not zero for policy and value (the value's hidden layers wake up when its last layer has moved)."""
    with torch.no_grad():
        stage.module.value.out.weight.normal_(std=0.1)
    for parameter in stage.trained().values():
        parameter.requires_grad_(True)  # as the loop does
    loss, _ = stage.loss(0, stage.batch(0, 0))
    loss.backward()
    assert loss != 0
    assert all(parameter.grad.any() for parameter in stage.trained().values())
    frozen = [p for name, p in stage.module.named_parameters() if name not in stage.trained()]
    assert all(parameter.grad is None for parameter in frozen)


def test_compiled_imagination_is_the_same_training(packed_run, agent_path, cpu_runtime, tmp_path, backend):
    """`run.compile` compiles the frozen world that is dreamed through; few dreams of another size run as written."""
    section = packed_run.config.imagine
    guard = section.guard.model_copy(update={"disagreement_every": 1, "disagreement_rows": 2})
    train = section.train.model_copy(update={"steps": 2})
    section = section.model_copy(update={"guard": guard, "train": train})
    counts, found = [], []
    for compiled in (False, True):
        runtime, folder = replace(cpu_runtime, compile=compiled), tmp_path / str(compiled)
        train_imagination(section, agent_path, packed_run.packed, folder, runtime, seed=1, resume=False)
        found.append(read_weights(folder / "imagination.safetensors", "imagination")[1])
        assert not [line for line in read_metrics(folder / "metrics.jsonl") if "compile" in line.get("warning", "")]
        counts.append(len(backend))
    assert counts[0] == 0 < counts[1]
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, atol=1e-4, rtol=1e-3, msg=name)


BOTH, VALUE = {"agent", "value"}, {"value"}


@pytest.mark.parametrize(
    ("changes", "learned"),
    [
        ({"value_only_steps": 2}, [VALUE, VALUE, BOTH, BOTH]),
        ({"updates_per_rollout": 3}, [BOTH] * 4),
        ({"updates_per_rollout": 3, "policy_updates": 3}, [BOTH] * 4),
        ({"updates_per_rollout": 3, "policy_updates": 2}, [BOTH, BOTH, VALUE, BOTH]),
        ({"updates_per_rollout": 3, "policy_updates": 2, "value_only_steps": 1}, [VALUE, BOTH, VALUE, BOTH]),
    ],
)
def test_when_the_value_learns_alone(packed_run, agent_path, cpu_runtime, changes, learned):
    stage = stage_of(packed_run, agent_path, cpu_runtime, **changes)
    with torch.no_grad():
        stage.module.value.out.weight.normal_(std=0.1)
    for parameter in stage.trained().values():
        parameter.requires_grad_(True)
    found = []
    for step in range(4):
        stage.module.zero_grad(set_to_none=True)
        stage.loss(step, stage.batch(step, 0))[0].backward()
        found.append({name.split(".")[0] for name, tensor in stage.trained().items() if tensor.grad is not None})
    assert found == learned


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value_only_steps": 4}, r"imagine\.value_only_steps is 4; expected fewer"),
        ({"updates_per_rollout": 2, "policy_updates": 3}, r"imagine\.policy_updates is 3; expected at most"),
    ],
)
def test_a_policy_that_never_learns_is_refused(packed_run, changes, message):
    with pytest.raises(ConfigError, match=message):
        validate(ImagineSection, packed_run.config.imagine.model_dump() | changes, "here")


# ---------------------------------------------------------------- rollouts


def rollout_of(agent, windows, temperature=1.0, uses_ends=True, seed=0, horizon=4):
    torch.manual_seed(seed)
    context = windows.read([(0, 2), (1, 0), (2, 5)], 3)
    noise = noise_from(torch.Generator().manual_seed(seed))
    dream = Dream(agent.model.world, agent.sampler, noise=noise, task=context.task)
    return imagine(agent.model, dream, context, horizon, temperature, uses_ends=uses_ends)


def test_a_rollout_reads_the_heads_where_the_frames_are(packed_run, agent_path):
    """Pitfalls 2 and 29: reward and continue at h_{t+1}, distance 0, from a frozen world."""
    agent, windows = load_agent(agent_path, CPU), LatentWindows(packed_run.packed, "train")
    rollout = rollout_of(agent, windows)
    assert rollout.agent.shape == (3, 5, 16) and rollout.action.shape == (3, 4, 1)
    assert torch.equal(rollout.reward, agent.model.reward_now(rollout.agent[:, 1:]))
    assert torch.equal(rollout.alive, agent.model.alive_now(rollout.agent[:, 1:]))
    assert ((rollout.alive > 0) & (rollout.alive < 1)).all()
    assert not any(tensor.requires_grad for tensor in rollout.tensors().values())
    assert (rollout_of(agent, windows, uses_ends=False).alive == 1).all()
    again, other = rollout_of(agent, windows), rollout_of(agent, windows, seed=1)
    assert all(torch.equal(left, again.tensors()[name]) for name, left in rollout.tensors().items())
    assert not torch.equal(rollout.action, other.action)


def test_the_first_read_out_is_that_of_the_last_recorded_frame(packed_run, agent_path):
    """Pitfall 29: a_0 is chosen at h_0, which knows the whole context and its actions and nothing else."""
    agent, windows = load_agent(agent_path, CPU), LatentWindows(packed_run.packed, "train")
    context = windows.read([(0, 2), (1, 0), (2, 5)], 3)
    dream = Dream(
        agent.model.world, agent.sampler, noise=noise_from(torch.Generator().manual_seed(0)), task=context.task
    )
    shown = dream.observe(agent.model.world.normalise(context.latents), context.action, context.action_valid)
    assert torch.equal(rollout_of(agent, windows).agent[:, 0], shown[:, -1])


def test_the_temperature_of_the_dream_is_explicit(packed_run, agent_path):
    """Pitfall 17: near zero the policy's mode, at a high temperature everything."""
    agent, windows = load_agent(agent_path, CPU), LatentWindows(packed_run.packed, "train")
    with torch.no_grad():
        agent.model.policy.net.out.bias[2] = 3.0  # an action that the policy likes much
    cold, hot = rollout_of(agent, windows, 1e-4), rollout_of(agent, windows, 1e4, horizon=20)
    logits = agent.model.policy_now(cold.agent[:, :-1])
    assert torch.equal(cold.action, ActionDistribution(agent.model.choices, logits).mode())
    assert set(hot.action.unique().tolist()) == {0.0, 1.0, 2.0}


def test_rollouts_are_used_as_often_as_configured(packed_run, agent_path, cpu_runtime):
    stage = stage_of(packed_run, agent_path, cpu_runtime, updates_per_rollout=3)
    used = []
    for step in range(7):
        stage.loss(step, stage.batch(step, 0))
        used.append(stage._rollout)
    assert used[0] is used[1] is used[2] and used[3] is used[5] and used[6] is not used[5]
    assert used[2] is not used[3]


# ---------------------------------------------------------------- the artifact


def test_what_is_loaded_is_what_was_saved(packed_run, stage, cpu_runtime, agent_path, tmp_path):
    """Pitfall 1: all heads bit-equal, by the loader of imagination and by that of agents."""
    header = train(stage, packed_run.config.imagine.train, cpu_runtime, tmp_path, resume=False, seed=0).header
    path, saved = tmp_path / "imagination.safetensors", stage.module
    loaded, found = load_imagination(path, CPU)
    assert found.fingerprint == header.fingerprint
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    agent = load_agent(path, CPU)
    h = torch.randn(3, 4, 16)
    with torch.no_grad():
        for read in ("policy_now", "reward_now", "alive_now"):
            expected = getattr(saved.agent, read)(h)
            assert torch.equal(getattr(loaded.agent, read)(h), expected)
            assert torch.equal(getattr(agent.model, read)(h), expected)
        assert torch.equal(loaded.prior_now(h), saved.prior_now(h))
        for slow in (False, True):
            assert torch.equal(loaded.value_now(h, slow=slow), saved.value_now(h, slow=slow))
    assert not torch.equal(saved.prior_now(h), saved.agent.policy_now(h))
    parent = read_header(agent_path, "agent")
    assert header.parents == parent.parents | {"agent": parent.fingerprint}
    assert agent.sampler == packed_run.config.dynamics.sampler


@pytest.mark.parametrize("name", ["prior.net.out.bias", "value.out.weight", "agent.world.slot"])
def test_loading_is_strict(packed_run, stage, cpu_runtime, tmp_path, name):
    """Pitfall 1."""
    train(stage, packed_run.config.imagine.train, cpu_runtime, tmp_path, resume=False, seed=0)
    path = tmp_path / "imagination.safetensors"
    header, tensors = read_weights(path, "imagination")
    del tensors[name]
    fields = {"config": header.config, "specs": header.specs, "parents": header.parents, "info": header.info}
    write_weights(path, "imagination", tensors, **fields)
    with pytest.raises(ArtifactError, match="does not fit the model its own config describes"):
        load_imagination(path, CPU)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_resume_is_exact(packed_run, straight_and_resumed, k):
    """Pitfall 14: N steps straight = k steps + resume + N-k steps, also amid the updates on one batch of rollouts."""
    section = packed_run.config.imagine.model_copy(update={"updates_per_rollout": 2})
    left, right = straight_and_resumed(section, k)
    assert not [name for name in left if not torch.equal(left[name], right[name])]
    assert {"stage/agent", "stage/action", "stage/reward", "stage/alive"} <= left.keys()


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sampling_steps": 3}, ConfigError, "sampling_steps is 3; expected a power of two up to .* 8"),
        ({"sampling_steps": 16}, ConfigError, "sampling_steps is 16"),
        ({"context_length": 9}, ConfigError, "context_length is 9; the model attends to 4"),
    ],
)
def test_what_the_world_cannot_do_is_refused_before_training(
    packed_run, agent_path, cpu_runtime, tmp_path, changes, error, message
):
    section = packed_run.config.imagine.model_copy(update=changes)
    with pytest.raises(error, match=message) as caught:
        train_imagination(section, agent_path, packed_run.packed, tmp_path / "x", cpu_runtime, seed=0)
    assert "imagine." in caught.value.hint
    assert not (tmp_path / "x").exists()


def test_episodes_that_are_too_short_are_refused(packed_run):
    with pytest.raises(DataError, match="the longest train episode has"):
        LatentWindows(packed_run.packed, "train").sampler.draw_contexts(np.random.default_rng(0), 1, 500)


def test_a_step_that_does_not_fit_is_refused(packed_run, agent_path, cpu_runtime, tmp_path, monkeypatch):
    monkeypatch.setattr("ahriuwu_cli.core.memory.available_memory", lambda device: 10_000)
    with pytest.raises(DeviceError, match="one imagination step needs about"):
        train_imagination(packed_run.config.imagine, agent_path, packed_run.packed, tmp_path / "x", cpu_runtime, seed=0)
    assert not (tmp_path / "x").exists()


def test_other_latents_are_refused_naming_both_fingerprints(packed_run, agent_path, cpu_runtime, tmp_path):
    header, tensors = read_weights(agent_path, "agent")
    other = tmp_path / "agent.safetensors"
    parents = header.parents | {"packed": "0123456789abcdef"}
    write_weights(other, "agent", tensors, config=header.config, specs=header.specs, parents=parents)
    with pytest.raises(ArtifactError) as caught:
        train_imagination(packed_run.config.imagine, other, packed_run.packed, tmp_path / "x", cpu_runtime, seed=0)
    assert "0123456789abcdef" in caught.value.message
    assert header.parents["packed"] in caught.value.message
    assert not (tmp_path / "x").exists()


def test_a_step_has_one_batch_of_rollouts(packed_run):
    """Pitfall 24: accumulation would reuse one batch of rollouts, so the setting is refused rather than misread."""
    section = packed_run.config.imagine.model_dump()
    section["train"]["accumulate"] = 2
    with pytest.raises(ConfigError, match=r"train\.accumulate must be 1, found 2"):
        validate(ImagineSection, section, "here")


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_dreams_start_before_recorded_rewards_as_often_as_configured(
    packed_run, agent_path, cpu_runtime, share, monkeypatch
):
    """[D4] Sec. 3.3: the mixture of finetuning also chooses where dreams start."""
    stage = stage_of(packed_run, agent_path, cpu_runtime, relevant_fraction=share)
    windows, settings, starts = stage._windows, stage._section, []
    read = windows.read
    monkeypatch.setattr(windows, "read", lambda places, *rest: (starts.extend(places), read(places, *rest))[1])
    stage.loss(0, stage.batch(0, 0))
    rewards, length = set(windows.sampler.relevant_blocks(0)), settings.context_length
    before = [any((i, start + length + k) in rewards for k in range(settings.horizon)) for i, start, _ in starts]
    count = settings.train.batch_size
    assert len(before) == count
    assert all(before[: round(share * count)])


def test_dreams_take_the_steps_of_imagination_not_those_of_the_sampler(
    packed_run, agent_path, cpu_runtime, monkeypatch
):
    """The sampler's own 2 would make both the same."""
    passes, forward = [], DynamicsModel.forward

    def spy(self, *given, **options):
        passes.append(self)
        return forward(self, *given, **options)

    monkeypatch.setattr(DynamicsModel, "forward", spy)
    counts = []
    for steps in (1, 4):
        stage = stage_of(packed_run, agent_path, cpu_runtime, sampling_steps=steps)
        passes.clear()
        stage.loss(0, stage.batch(0, 0))
        counts.append(len(passes))
    assert counts[1] - counts[0] == (4 - 1) * stage._section.horizon


@pytest.mark.parametrize("transformer", ["frozen", "finetuned"])
def test_batches_are_drawn_by_the_step(packed_run, agent_path, cpu_runtime, draws_by_step, transformer):
    """Pitfall 14: contexts and recorded windows alike."""
    agent, windows = load_agent(agent_path, CPU), LatentWindows(packed_run.packed, "train")
    section = packed_run.config.imagine.model_copy(update={"transformer": transformer, "updates_per_rollout": 1})
    draws_by_step(lambda seed: ImagineStage(section, agent, windows, cpu_runtime, seed))
    assert (ImagineStage(section, agent, windows, cpu_runtime, 0).batch(0, 0).recorded is None) == (
        transformer == "frozen"
    )


def test_contexts_are_read_in_steps_that_dream_and_in_no_others(packed_run, agent_path, cpu_runtime):
    stage = stage_of(packed_run, agent_path, cpu_runtime, updates_per_rollout=3)
    assert [stage.batch(step, 0).context is None for step in range(7)] == [False, True, True, False, True, True, False]
