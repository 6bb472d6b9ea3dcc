"""Finetuning: what is trained, the artifact, resuming, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ahriuwu_cli.agent.batches import mixed_places, mixture
from ahriuwu_cli.agent.checkpoint import agent_from_header, load_agent
from ahriuwu_cli.agent.config import AgentSection
from ahriuwu_cli.agent.rewards import require_reward_range
from ahriuwu_cli.agent.train import AgentStage, agent_losses, finetune_agent
from ahriuwu_cli.core.artifact import read_header, read_weights, write_weights
from ahriuwu_cli.core.config import validate
from ahriuwu_cli.core.errors import ArtifactError, ConfigError, DeviceError, TrainingInterrupted
from ahriuwu_cli.core.training.loop import moved, train
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.dynamics.checkpoint import load_world
from ahriuwu_cli.latents.places import Place
from ahriuwu_cli.latents.windows import LatentWindows

CPU = torch.device("cpu")


@pytest.fixture
def stage(packed_run, dynamics_path, cpu_runtime) -> AgentStage:
    world, windows = load_world(dynamics_path, CPU), LatentWindows(packed_run.packed, "train")
    torch.manual_seed(0)
    return AgentStage(packed_run.config.agent, world, windows, cpu_runtime, 0)


def test_an_agent_starts_as_its_dynamics(stage, dynamics_path):
    """Pitfall 1: every tensor of the dynamics has its place; only the task embedding is new."""
    _, dynamics = read_weights(dynamics_path, "dynamics")
    own = stage.module.world.state_dict()
    assert set(own) - set(dynamics) == {"embed_task.weight"}
    assert not [name for name in dynamics if not torch.equal(own[name], dynamics[name])]
    with pytest.raises(AssertionError, match="lack"):
        stage.module.take_world({name: value for name, value in dynamics.items() if name != "slot"})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        stage.module.take_world(dynamics | {"more": torch.ones(1)})


def test_the_agent_token_comes_in_at_the_size_of_the_others(stage):
    """Trained slots have grown; an embedding that had not took hundreds of steps to be heard."""
    own, dynamics = stage.module.world, stage._world.model.state_dict()
    before = own.embed_task.weight.std().item() / own.slot.std().item()
    assert before == pytest.approx(1, rel=0.5)
    torch.nn.init.normal_(own.embed_task.weight, std=0.02)
    stage.module.take_world(dynamics | {"slot": dynamics["slot"] * 20})
    assert own.embed_task.weight.std().item() / own.slot.std().item() == pytest.approx(1, rel=0.5)


def test_a_part_of_the_other_windows_holds_an_end(packed_run, stage, monkeypatch):
    """Ends are rare: the continue head is shown more of them, and cloning is not."""
    windows, section = stage._windows, packed_run.config.agent

    end = Place(0, 0, 0)
    monkeypatch.setattr(windows.sampler, "draw_ended", lambda rng, count, length: [end] * count)
    monkeypatch.setattr(windows.sampler, "draw", lambda rng, count, length, relevant=False: [Place(1, 1, 0)] * count)
    for fraction, rows in ((0.75, 12), (0.01, 0)):
        train = section.train.model_copy(update={"batch_size": 32})
        asked = section.model_copy(update={"ended_fraction": fraction, "train": train, "relevant_fraction": 0.5})
        places = mixed_places(asked, windows.sampler, np.random.default_rng(0))
        assert [row for row, place in enumerate(places) if place == end] == list(range(16, 16 + rows))
        assert (mixture(32, 0.5)[0], len(places)) == (16, 32)


def test_every_declared_tensor_is_trained(packed_run, stage, cpu_runtime, tmp_path):
    """Pitfalls 2 and 3: declared set = all tensors, each moved, every head among them; nothing `untrained`."""
    before = {name: tensor.clone() for name, tensor in stage.module.state_dict().items()}
    settings = packed_run.config.agent.train.model_copy(update={"log_every": 1})
    result = train(stage, settings, cpu_runtime, tmp_path, resume=False, seed=0)
    assert set(stage.trained()) == set(before) == moved(before, stage.module.state_dict())
    assert {name.split(".")[0] for name in before} == {"world", "policy", "reward", "alive"}
    assert result.header.info["untrained"] == []
    for head in ("policy", "reward", "alive"):
        name = f"{head}.net.out.weight"
        change = (stage.module.state_dict()[name] - before[name]).reshape(3, -1)  # (L, ...)
        assert change.any(dim=1).all()
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "warning" not in line]
    assert len(lines) == settings.steps
    for line in lines:  # every term of Eq. 9 in every step
        for name in ("policy_loss", "reward_loss", "continue_loss", "flow"):
            assert line[name] is not None and math.isfinite(line[name]) and line[name] > 0, name
        assert line["reward_buckets_used"] >= 1


def test_what_is_loaded_is_what_was_saved(packed_run, stage, cpu_runtime, dynamics_path, tmp_path):
    """Pitfall 1: built from the file alone; bit-equal outputs of world and heads."""
    header = train(stage, packed_run.config.agent.train, cpu_runtime, tmp_path, resume=False, seed=0).header
    loaded = load_agent(tmp_path / "agent.safetensors", CPU)
    assert loaded.header.fingerprint == header.fingerprint
    assert loaded.specs == stage.module.specs
    assert loaded.sampler == packed_run.config.dynamics.sampler
    assert loaded.model.heads_config == packed_run.config.agent.heads
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    batch = LatentWindows(packed_run.packed, "train").read([(0, 2), (1, 0)], 5)
    tau = torch.full((2, 5), 0.875)
    outputs = []
    for model in (stage.module.requires_grad_(False).eval(), loaded.model):
        z = model.world.normalise(batch.latents)
        d = torch.full_like(tau, 0.125)
        out = model.world(z, tau, d, batch.action, batch.action_valid, task=batch.task)
        heads = (model.policy, model.reward, model.alive)
        outputs.append([out.z1_hat, out.agent, *(head(out.agent) for head in heads), model.reward_now(out.agent)])
    assert all(torch.equal(left, right) for left, right in zip(*outputs, strict=True))
    parent = read_header(dynamics_path, "dynamics")
    assert header.parents == parent.parents | {"dynamics": parent.fingerprint}
    assert agent_from_header(header).state_dict().keys() == loaded.model.state_dict().keys()


@pytest.mark.parametrize("damage", ["missing", "extra"])
def test_loading_is_strict(packed_run, stage, cpu_runtime, tmp_path, damage):
    """Pitfall 1."""
    train(stage, packed_run.config.agent.train, cpu_runtime, tmp_path, resume=False, seed=0)
    path = tmp_path / "agent.safetensors"
    header, tensors = read_weights(path, "agent")
    if damage == "missing":
        del tensors["alive.net.out.bias"]
    else:
        tensors["value.out.bias"] = torch.ones(1)
    fields = {"config": header.config, "specs": header.specs, "parents": header.parents, "info": header.info}
    write_weights(path, "agent", tensors, **fields)
    with pytest.raises(ArtifactError, match="does not fit the model its own config describes"):
        load_agent(path, CPU)


@pytest.mark.parametrize("k", [1, 3])
def test_resume_is_exact(packed_run, dynamics_path, cpu_runtime, stop_at, tmp_path, k):
    """Pitfall 14: N steps straight = k steps + resume + N-k steps, running averages of Eq. 9 included."""
    arguments = packed_run.config.agent, dynamics_path, packed_run.packed
    whole = finetune_agent(*arguments, tmp_path / "straight", cpu_runtime, seed=1, resume=False)
    stop_at(AgentStage, k)
    with pytest.raises(TrainingInterrupted):
        finetune_agent(*arguments, tmp_path / "broken", cpu_runtime, seed=1, resume=False)
    stop_at(AgentStage, 0)
    torch.manual_seed(999)
    resumed = finetune_agent(*arguments, tmp_path / "broken", cpu_runtime, seed=1, resume=True)
    assert resumed.header.fingerprint == whole.header.fingerprint
    left, right = (load_file(tmp_path / name / "agent.state.safetensors") for name in ("straight", "broken"))
    assert left.keys() == right.keys() and not [name for name in left if not torch.equal(left[name], right[name])]
    assert {name for name in left if name.startswith("stage/square.")} == {
        f"stage/square.{term}" for term in ("policy", "reward", "continue", "dynamics")
    }


def test_terms_are_normalised_by_their_running_rms(stage):
    """[D4] Eq. 9 and pitfall 28: at the first step every term counts its weight, and the gradient is not zero."""
    total, _ = stage.loss(0, stage.batch(0, 0))
    assert total.item() == pytest.approx(1.0 + 3 * 0.1, rel=1e-4)  # policy; reward, continue, dynamics
    total.backward()
    assert all(parameter.grad.any() for parameter in stage.module.parameters())


def test_a_step_that_does_not_fit_is_refused(packed_run, dynamics_path, cpu_runtime, tmp_path, monkeypatch):
    monkeypatch.setattr("ahriuwu_cli.core.memory.available_memory", lambda device: 10_000)
    with pytest.raises(DeviceError, match="one agent step needs about") as caught:
        finetune_agent(packed_run.config.agent, dynamics_path, packed_run.packed, tmp_path / "x", cpu_runtime, seed=0)
    assert "batch_size" in caught.value.hint
    assert not (tmp_path / "x").exists()


def test_latents_of_another_tokenizer_are_refused(packed_run, dynamics_path, cpu_runtime, tmp_path):
    """The dynamics and the packed latents must belong together; both fingerprints are named."""
    header, tensors = read_weights(dynamics_path, "dynamics")
    other = tmp_path / "dynamics.safetensors"
    parents = header.parents | {"packed": "0123456789abcdef"}
    write_weights(other, "dynamics", tensors, config=header.config, specs=header.specs, parents=parents)
    with pytest.raises(ArtifactError) as caught:
        finetune_agent(packed_run.config.agent, other, packed_run.packed, tmp_path / "x", cpu_runtime, seed=0)
    assert "0123456789abcdef" in caught.value.message
    assert header.parents["packed"] in caught.value.message
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_a_policy_that_would_never_learn_is_refused(fraction):
    """Pitfall 2: without relevant windows the policy head would stay random."""
    train_settings = {"steps": 1, "batch_size": 2, "learning_rate": 1e-3}
    with pytest.raises(ConfigError, match="relevant_fraction"):
        validate(AgentSection, {"relevant_fraction": fraction, "train": train_settings}, "run.toml", ())


def test_rewards_beyond_the_buckets_are_refused_before_training(packed_run, dynamics_path, cpu_runtime, tmp_path):
    """Nine of ten targets were clamped without a word: the largest reward is known beforehand."""
    section = packed_run.config.agent
    narrow = section.model_copy(update={"heads": section.heads.model_copy(update={"bucket_limit": 0.1})})
    with pytest.raises(ConfigError, match=r"the largest recorded reward is 1; .* = 0\.1 reaches 0\.105") as error:
        finetune_agent(narrow, dynamics_path, packed_run.packed, tmp_path, cpu_runtime, seed=0)
    assert error.value.hint == "set agent.heads.bucket_limit = 0.7 or more"
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"the largest recorded discounted return \(gamma 0.9\) is"):
        require_reward_range(narrow.heads, LatentWindows(packed_run.packed, "train"), 0.9)


def test_a_batch_is_the_mixture_that_the_settings_ask_for(stage, monkeypatch):
    """[D4] Sec. 3.3: the first rows are relevant windows and alone imitated; the others come from anywhere."""
    drawn = []
    draw = stage._windows.sampler.draw

    def spy(rng, count, *given, **options):
        drawn.append((count, options.get("relevant", False)))
        return draw(rng, count, *given, **options)

    monkeypatch.setattr(stage._windows.sampler, "draw", spy)
    asked = []
    monkeypatch.setattr(
        "ahriuwu_cli.agent.train.agent_losses",
        lambda model, batch, num_relevant, *rest, **more: (
            asked.append(num_relevant),
            agent_losses(model, batch, num_relevant, *rest, **more),
        )[1],
    )
    size, share = stage._section.train.batch_size, stage._section.relevant_fraction
    relevant, uniform = mixture(size, share)
    stage.loss(0, stage.batch(0, 0))
    assert drawn == [(relevant, True), (uniform, False)]
    assert asked == [relevant]


def test_batches_are_drawn_by_the_step(packed_run, dynamics_path, cpu_runtime, draws_by_step):
    """Pitfall 14."""
    world, windows = load_world(dynamics_path, CPU), LatentWindows(packed_run.packed, "train")
    draws_by_step(lambda seed: AgentStage(packed_run.config.agent, world, windows, cpu_runtime, seed))
