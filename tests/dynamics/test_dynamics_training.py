"""Training of the dynamics: batches, loss, learning, the artifact, and resuming."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ahriuwu_cli.core.artifact import read_header, read_weights, write_weights
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ArtifactError, DeviceError, TrainingInterrupted
from ahriuwu_cli.core.training.loop import moved, train
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.core.training.stage import StageState
from ahriuwu_cli.dynamics import train as training
from ahriuwu_cli.dynamics.checkpoint import load_world
from ahriuwu_cli.dynamics.config import DynamicsSection, ObjectiveConfig
from ahriuwu_cli.dynamics.model import DynamicsModel
from ahriuwu_cli.dynamics.shortcut_forcing import corrupt
from ahriuwu_cli.dynamics.train import DynamicsStage, batch_shape, check_dynamics_memory, dynamics_loss, train_dynamics
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows
from ahriuwu_cli.pipeline.config import preset_run

TAU_CONTEXT = 0.9  # signal level of past frames

CPU = torch.device("cpu")
STEPS = 100


def join(parts: list[LatentBatch]) -> LatentBatch:
    names = [field.name for field in dataclasses.fields(LatentBatch)]
    return LatentBatch(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def section_of(**changes) -> DynamicsSection:
    values = {
        "short_length": 4,
        "long_length": 16,
        "long_every": 4,
        "long_only_fraction": 0.25,
        "sampler": {"context_length": 8},
        "train": {"steps": 16, "batch_size": 8, "learning_rate": 1e-3},
    }
    return DynamicsSection.model_validate({**values, **changes})


# ---------------------------------------------------------------- batches


def test_lengths_alternate_and_end_long():
    short, long = (8, 4), (2, 16)  # as many frames
    shapes = [batch_shape(section_of(), step) for step in range(16)]
    assert shapes == [short, short, short, long] * 3 + [long] * 4
    assert {batch_shape(section_of(long_only_fraction=1), step) for step in range(16)} == {long}
    assert [batch_shape(section_of(long_only_fraction=0), step) for step in (12, 14, 15)] == [short, short, long]
    few = section_of(train={"steps": 16, "batch_size": 1, "learning_rate": 1e-3})
    assert batch_shape(few, 3) == (1, 16)  # never an empty batch


def test_padding_has_no_influence(build, toy_batch):
    """What lies after an episode's end changes no bit of the loss and no gradient."""
    model, batch = build(), toy_batch(4, 5)
    batch.valid[1, 3:] = False
    batch.valid[2, 1:] = False
    batch.action_valid[~batch.valid] = False
    results = []
    for content in (0.0, 40.0):
        latents, action = batch.latents.clone(), batch.action.clone()
        latents[~batch.valid], action[~batch.valid] = content, content
        torch.manual_seed(3)
        loss, metrics = dynamics_loss(
            model, dataclasses.replace(batch, latents=latents, action=action), ObjectiveConfig(), TAU_CONTEXT
        )
        model.zero_grad()
        loss.backward()
        results.append((loss, metrics, model.embed_latent.weight.grad.clone()))
    (left, left_metrics, left_gradient), (right, right_metrics, right_gradient) = results
    assert torch.equal(left, right)
    for name in ("flow", "bootstrap"):
        assert torch.equal(left_metrics[name], right_metrics[name])
    torch.testing.assert_close(left_gradient, right_gradient)

    whole = dataclasses.replace(batch, valid=torch.ones_like(batch.valid))
    torch.manual_seed(3)
    assert not torch.equal(dynamics_loss(model, whole, ObjectiveConfig(), TAU_CONTEXT)[0], left)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_and_every_gradient_are_there(build, toy_batch, precision):
    """Pitfalls 3, 28 and 32: not zero for any tensor, also in bf16, after targets that were made without gradient."""
    model, batch = build(), toy_batch(8, 5)
    runtime = Runtime(CPU, precision)
    torch.manual_seed(0)
    with runtime.autocast():
        loss, metrics = dynamics_loss(model, batch, ObjectiveConfig(), TAU_CONTEXT)
    loss.backward()
    assert loss.dtype == torch.float32 and loss > 0
    assert metrics["flow"] > 0 and metrics["bootstrap"] > 0
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


# ---------------------------------------------------------------- learning


def test_dynamics_overfit_one_batch(toy_specs, toy_batch, build):
    """A second of learning: the flow error on one batch falls to a fifth and below."""
    torch.manual_seed(0)
    model = DynamicsModel(build(num_layers=2).config, toy_specs.latent, toy_specs.action)
    two, objective = toy_batch(2, 3), ObjectiveConfig(image_fraction=0.0, bootstrap_fraction=0.25)
    batch = join([two] * 8)  # the same two windows under noise of their own
    z1 = model.normalise(batch.latents)
    noise, tau = torch.randn_like(z1), torch.randint(0, 8, batch.valid.shape) / 8

    @torch.no_grad()
    def flow() -> float:
        guess = model(corrupt(z1, noise, tau), tau, torch.full_like(tau, 1 / 8), batch.action, batch.action_valid)
        return (guess.z1_hat - z1).square().mean().item()

    before = flow()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 2e-2 * (1 - step / STEPS)
        loss, _ = dynamics_loss(model, batch, objective, TAU_CONTEXT)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert flow() < before / 5, (before, flow())


# ---------------------------------------------------------------- the stage


@pytest.fixture
def stage(packed_run, cpu_runtime) -> DynamicsStage:
    return DynamicsStage(packed_run.config.dynamics, packed_run.packed, cpu_runtime, 0)


def test_everything_is_trained_and_the_flow_loss_is_in_every_step(packed_run, stage, cpu_runtime, tmp_path):
    """Pitfalls 2, 3 and 9: declared set = all tensors, each moved; `flow` measured at every step."""
    section = packed_run.config.dynamics
    settings = section.train.model_copy(update={"log_every": 1})
    before = {name: tensor.clone() for name, tensor in stage.module.state_dict().items()}
    declared = set(stage.trained())
    result = train(stage, settings, cpu_runtime, tmp_path, resume=False, seed=0)
    assert declared == set(before) == moved(before, stage.module.state_dict())
    assert result.header.info["untrained"] == []
    lines = read_metrics(tmp_path / "metrics.jsonl")
    flows = [line["flow"] for line in lines if "warning" not in line]
    assert len(flows) == section.train.steps
    assert all(flow is not None and math.isfinite(flow) and flow > 0 for flow in flows)


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_no_batch_of_a_preset_is_without_flow(preset, tmp_path):
    """Pitfall 9: with so many entries a batch without d = d_min practically never comes (below one in a million)."""
    section = preset_run(preset, tmp_path).config.dynamics
    share = section.objective.bootstrap_fraction
    exponents = int(math.log2(section.model.k_max)) + 1
    for step in (0, section.long_every - 1, section.train.steps - 1):
        rows, length = batch_shape(section, step)
        bootstrap = math.ceil(rows * share)
        assert bootstrap < rows or (1 - 1 / exponents) ** (bootstrap * length) < 1e-6


def test_what_is_loaded_is_what_was_saved(packed_run, stage, cpu_runtime, toy_batch, tmp_path):
    """Pitfall 1: built from the file's own config, bit-equal outputs."""
    section = packed_run.config.dynamics
    header = train(stage, section.train, cpu_runtime, tmp_path, resume=False, seed=0).header
    world = load_world(tmp_path / "dynamics.safetensors", CPU)
    assert world.header.fingerprint == header.fingerprint
    assert (world.specs, world.sampler, world.model.config) == (stage.specs, section.sampler, section.model)
    assert not world.model.training and not any(p.requires_grad for p in world.model.parameters())
    batch = LatentWindows(packed_run.packed, "train").read([(0, 2), (1, 0)], 5)
    tau = torch.tensor([[0.0, 0.25, 0.5, 0.75, 0.875]]).repeat(2, 1)
    outputs = []
    for model in (stage.module.requires_grad_(False).eval(), world.model):
        with torch.no_grad():
            z = model.normalise(batch.latents)
            outputs.append(model(z, tau, torch.full_like(tau, 0.125), batch.action, batch.action_valid).z1_hat)
    assert torch.equal(*outputs)
    assert set(header.parents) == {"episodes", "tokenizer", "latents", "packed"}


@pytest.mark.parametrize("damage", ["missing", "extra", "shape"])
def test_loading_is_strict(packed_run, stage, cpu_runtime, tmp_path, damage):
    """Pitfall 1: a tensor too few, too many or of another shape is refused."""
    train(stage, packed_run.config.dynamics.train, cpu_runtime, tmp_path, resume=False, seed=0)
    path = tmp_path / "dynamics.safetensors"
    header, tensors = read_weights(path, "dynamics")
    name = "read_latent.weight"
    if damage == "missing":
        del tensors[name]
    elif damage == "extra":
        tensors["transformer.extra.weight"] = torch.ones(2)
    else:
        tensors[name] = torch.ones(3)
    fields = {"config": header.config, "specs": header.specs, "parents": header.parents, "info": header.info}
    write_weights(path, "dynamics", tensors, **fields)
    with pytest.raises(ArtifactError, match="does not fit the model its own config describes"):
        load_world(path, CPU)


@pytest.mark.parametrize("k", [1, 3])
def test_resume_is_exact(packed_run, cpu_runtime, stop_at, tmp_path, k):
    """Pitfall 14: N steps straight = k steps + resume + N-k steps, bit for bit on CPU."""
    section, packed = packed_run.config.dynamics, packed_run.packed
    whole = train_dynamics(section, packed, tmp_path / "straight", cpu_runtime, seed=1, resume=False)
    stop_at(DynamicsStage, k)
    with pytest.raises(TrainingInterrupted):
        train_dynamics(section, packed, tmp_path / "broken", cpu_runtime, seed=1, resume=False)
    assert read_header(tmp_path / "broken" / "dynamics.safetensors", "dynamics").info["steps"] == k
    stop_at(DynamicsStage, 0)
    torch.manual_seed(999)
    resumed = train_dynamics(section, packed, tmp_path / "broken", cpu_runtime, seed=1, resume=True)
    assert resumed.header.fingerprint == whole.header.fingerprint
    left, right = (load_file(tmp_path / name / "dynamics.state.safetensors") for name in ("straight", "broken"))
    assert left.keys() == right.keys() and not [name for name in left if not torch.equal(left[name], right[name])]
    other = train_dynamics(section, packed, tmp_path / "other", cpu_runtime, seed=2, resume=False)
    assert other.header.fingerprint != whole.header.fingerprint  # it can tell


def test_a_step_that_does_not_fit_is_refused_before_anything_is_written(packed_run, cpu_runtime, tmp_path, monkeypatch):
    monkeypatch.setattr("ahriuwu_cli.core.memory.available_memory", lambda device: 10_000)
    with pytest.raises(DeviceError, match="one dynamics step needs about") as caught:
        train_dynamics(packed_run.config.dynamics, packed_run.packed, tmp_path / "x", cpu_runtime, seed=0)
    assert "batch_size" in caught.value.hint
    assert not (tmp_path / "x").exists()


def test_the_memory_check_counts_the_larger_batch(toy_specs, cpu_runtime, monkeypatch):
    needs = []
    monkeypatch.setattr(training, "require_memory", lambda runtime, needed, what: needs.append(needed))
    model = {"dim": 16, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "time_every": 2}
    settings = {"steps": 4, "batch_size": 1, "learning_rate": 1e-3}
    for short in (4, 16):
        check_dynamics_memory(section_of(model=model, train=settings, short_length=short), toy_specs, cpu_runtime)
    four = section_of(model=model, train=settings, long_length=4, sampler={"context_length": 3})
    check_dynamics_memory(four, toy_specs, cpu_runtime)
    assert needs[0] == needs[1] > 2 * needs[2]  # one window of 16 frames is more than one of 4


def test_batches_are_drawn_by_the_step(packed_run, cpu_runtime, draws_by_step):
    """Pitfall 14: nothing of the loader is left to be saved."""

    def make(seed: int) -> DynamicsStage:
        return DynamicsStage(packed_run.config.dynamics, packed_run.packed, cpu_runtime, seed)

    draws_by_step(make)
    assert make(0).state() == StageState()


def test_results_are_the_same_however_many_read_ahead(packed_run, cpu_runtime, tmp_path):
    """Also where the end of training moves, with which batches become long: what was read ahead is not used then."""
    settings = {"steps": 24, "heldout_every": 3, "patience": 1, "min_gain": 0.9, "warmup_steps": 1, "accumulate": 2}
    section = packed_run.config.dynamics
    lengths = {"long_every": 100, "long_only_fraction": 0.5}
    section = section.model_copy(update={"train": section.train.model_copy(update=settings), **lengths})
    prints, ends = set(), []
    for workers in (0, 1, 4):
        runtime, folder = replace(cpu_runtime, loader_workers=workers), tmp_path / str(workers)
        header = train_dynamics(section, packed_run.packed, folder, runtime, seed=1, resume=False).header
        prints.add((header.fingerprint, read_header(folder / "dynamics.state.safetensors", "state").fingerprint))
        ends.append(header.info["steps"])
    assert len(prints) == 1
    assert ends[0] < 12 and batch_shape(section, ends[0] - 1, ends[0]) != batch_shape(section, ends[0] - 1)
