"""The loop: what moves and what does not, skipped steps, warnings, the metrics file."""

from __future__ import annotations

import json
import math

import pytest
import torch

from ahriuwu_cli.core.artifact import read_weights
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import DeviceError, TrainingError, TrainingInterrupted
from ahriuwu_cli.core.training.loop import moved, train
from ahriuwu_cli.core.training.progress import ProgressDisplay
from ahriuwu_cli.core.training.sinks import Means, read_metrics

PRECISIONS = ["fp32", "bf16"]


def warnings(folder):
    return [line["warning"] for line in read_metrics(folder / "metrics.jsonl") if "warning" in line]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_exactly_the_declared_tensors_move(tmp_path, toy, settings, precision):
    """Pitfall 3: the set of trained tensors is the declared set, and each one moved."""
    stage = toy()
    before = {name: parameter.detach().clone() for name, parameter in stage.module.named_parameters()}
    result = train(stage, settings(), Runtime(torch.device("cpu"), precision), tmp_path, resume=False, seed=0)
    after = dict(stage.module.named_parameters())
    assert moved(before, after) == set(stage.trained())
    assert all(tensor.dtype == torch.float32 for tensor in after.values())
    assert result.header.info["untrained"] == []
    _, stored = read_weights(tmp_path / "dynamics.safetensors", "dynamics")
    assert moved(stored, stage.module.state_dict()) == set()


def test_the_module_trains_in_train_mode_and_its_frozen_part_gets_no_gradient(tmp_path, toy, settings, cpu):
    """Pitfall 3: what is not declared is frozen while training, not only left out of the optimiser."""
    stage = toy()
    stage.module.eval()
    train(stage, settings(), cpu, tmp_path, resume=False, seed=0)
    assert stage.module.dropout.training
    assert stage.module.frozen.weight.grad is None
    assert not stage.module.frozen.weight.requires_grad
    assert stage.module.inner.weight.grad is not None


def test_tensors_without_gradient_are_named(tmp_path, toy, settings, cpu):
    """Pitfalls 2 and 3: a declared tensor that never received gradient is reported, though decay may move it."""
    stage = toy(unused=True)
    result = train(stage, settings(), cpu, tmp_path, resume=False, seed=0)
    assert result.header.info["untrained"] == ["unused.bias", "unused.weight"]
    assert warnings(tmp_path) == ["2 declared tensors never learned: unused.bias, unused.weight"]


def test_zero_gradients_count_as_untrained_even_when_decay_moves_the_tensor(tmp_path, toy, settings, cpu):
    """Pitfall 2: a gradient of exactly zero is no training."""

    class Zero(toy):
        def loss(self, step, batch):
            loss, metrics = super().loss(step, batch)
            return loss + 0.0 * self.module.unused.weight.sum(), metrics

    stage = Zero(unused=True)
    before = stage.module.unused.weight.detach().clone()
    result = train(stage, settings(), cpu, tmp_path, resume=False, seed=0)
    assert not torch.equal(before, stage.module.unused.weight)
    assert result.header.info["untrained"] == ["unused.bias", "unused.weight"]


def test_gradients_are_clipped(tmp_path, toy, settings, cpu, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    result = train(toy(), settings(clip_norm=0.01), cpu, tmp_path, resume=False, seed=0)
    assert norms == pytest.approx([0.01] * 12, rel=1e-3)
    assert result.metrics["gradient_norm"] > 0.01
    assert result.metrics["clipped"] == 1.0


def test_the_schedule_reaches_the_optimiser(tmp_path, toy, settings, cpu, monkeypatch):
    rates = []
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        rates.append({group["lr"] for group in self.param_groups})
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    train(toy(), settings(schedule="constant", warmup_steps=4), cpu, tmp_path, resume=False, seed=0)
    assert [rate for (rate,) in rates] == pytest.approx([0.0025, 0.005, 0.0075] + [0.01] * 9)


@pytest.mark.parametrize("fault", ["nan_loss", "nan_gradient"])
def test_a_non_finite_step_is_skipped_and_counted(tmp_path, toy, settings, cpu, fault, monkeypatch):
    """Pitfall 15: NaN at a step: weights and moments untouched, counted, warned of, never logged as 0.0."""
    moments = []
    stage = toy(**{fault: frozenset({4})})
    real_step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        out = real_step(self, *args, **kwargs)
        state = next(iter(self.state.values()))
        moments.append((float(state["step"]), bool(torch.isfinite(state["exp_avg"]).all())))
        return out

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    result = train(stage, settings(log_every=1), cpu, tmp_path, resume=False, seed=0)

    def weights(step):
        return {name: tensor for name, tensor in stage.seen[step].items() if name != "calls"}

    assert moved(weights(4), weights(5)) == set()
    assert moved(weights(5), weights(6)) == set(stage.trained())
    assert moments == [(count, True) for count in range(1, 12)]  # 11 optimiser steps for 12 steps
    assert math.isfinite(stage.rms)
    assert result.metrics["bad_steps"] == 1
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "warning" not in line]
    assert [line["loss"] is None for line in lines] == [line["step"] == 5 for line in lines]
    assert all(line["loss"] != 0.0 for line in lines)
    assert [line["bad_steps"] for line in lines] == [0] * 4 + [1] * 8
    assert len(warnings(tmp_path)) == 1
    assert "step 5" in warnings(tmp_path)[0]
    assert "nan" in warnings(tmp_path)[0]


def test_too_many_non_finite_steps_end_the_training_with_the_last_good_state(tmp_path, toy, settings, cpu):
    """Pitfall 15: training ends with a clear error past the limit; what was learned is kept."""
    stage = toy(nan_loss=frozenset(range(6, 100)))
    with pytest.raises(TrainingError, match="stopped at step 9: 3 steps were not finite") as caught:
        train(stage, settings(max_bad_steps=2), cpu, tmp_path, resume=False, seed=0)
    assert "--resume" in caught.value.hint
    header, state = read_weights(tmp_path / "dynamics.state.safetensors", "state")
    assert (header.info["step"], header.info["bad_steps"]) == (9, 3)
    good = stage.seen[6]
    saved = {name: state[f"module/{name}"] for name in good if name != "calls"}
    assert moved(saved, {name: good[name] for name in saved}) == set()
    assert all(torch.isfinite(tensor).all() for tensor in state.values() if tensor.is_floating_point())
    artifact, _ = read_weights(tmp_path / "dynamics.safetensors", "dynamics")
    assert not artifact.info["finished"]
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["loss"] is None

    later = train(toy(), settings(max_bad_steps=5), cpu, tmp_path, resume=True, seed=0)  # the data is mended
    assert later.metrics["bad_steps"] == 3
    assert later.header.info["finished"]


def test_an_fp16_overflow_is_the_scalers_business(tmp_path, toy, settings):
    """Pitfalls 15 and 26: an overflow of the scaled gradient is no bad step, but a NaN at every step is one."""

    class Steep(toy):
        def loss(self, step, batch):
            loss, metrics = super().loss(step, batch)
            return loss * (2.0**120 if step == 0 else 1.0), metrics

    half = Runtime(torch.device("cpu"), "fp16")
    stage = Steep()
    result = train(stage, settings(), half, tmp_path / "steep", resume=False, seed=0)
    assert result.metrics["bad_steps"] == 0
    assert moved(stage.seen[0], stage.seen[1]) == {"calls"}
    header, _ = read_weights(tmp_path / "steep" / "dynamics.state.safetensors", "state")
    assert json.loads(header.info["scaler"])["scale"] == 2.0**15
    with pytest.raises(TrainingError):
        train(
            toy(nan_gradient=frozenset(range(100))),
            settings(steps=50, max_bad_steps=3),
            half,
            tmp_path / "nan",
            resume=False,
            seed=0,
        )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_has_a_hint(tmp_path, toy, settings, cpu, error):
    class Greedy(toy):
        def loss(self, step, batch):
            raise error

    with pytest.raises(DeviceError, match="out of memory in step 1") as caught:
        train(Greedy(), settings(), cpu, tmp_path, resume=False, seed=0)
    assert "batch_size" in caught.value.hint


def test_metrics_are_averaged_between_log_points(tmp_path, toy, settings, cpu):
    class Counting(toy):
        def loss(self, step, batch):
            metrics = {"number": torch.tensor(float(step), requires_grad=True), "undefined": math.nan}
            if step % 2:
                metrics["odd"] = 10.0
            return super().loss(step, batch)[0], metrics

    result = train(Counting(), settings(log_every=4, checkpoint_every=100), cpu, tmp_path, resume=False, seed=0)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [4, 8, 12]
    assert [line["number"] for line in lines] == [1.5, 5.5, 9.5]
    assert [line["odd"] for line in lines] == [10.0, 10.0, 10.0]
    assert [line["undefined"] for line in lines] == [None] * 3
    assert [line["learning_rate"] > 0 and line["seconds"] >= 0 for line in lines] == [True] * 3
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert result.metrics["number"] == 9.5
    assert math.isnan(result.metrics["undefined"])


def test_means_do_not_synchronise_before_a_log_point():
    means = Means()
    value = torch.tensor(2.0, requires_grad=True, device="meta")  # reading a meta tensor raises
    means.add({"loss": value})
    means.add({"loss": value})
    assert not any(total.requires_grad for total in means._sums.values())  # no graph is kept alive
    with pytest.raises((RuntimeError, NotImplementedError)):
        means.take()


def test_a_terminal_gets_a_bar_and_the_warnings_above_it(tmp_path, toy, settings, cpu, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich takes this for a terminal
    monkeypatch.setenv("COLUMNS", "200")
    train(toy(nan_loss=frozenset({2})), settings(), cpu, tmp_path, resume=False, seed=0)
    out, err = capsys.readouterr()
    assert out == ""
    assert "12/12" in err
    assert "steps/s" in err
    assert "warning: dynamics: step 3: the loss is nan" in err


def test_progress_names_no_loss_before_the_first_is_known(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    display = ProgressDisplay("dynamics", 0, 9, interval=0.0)
    display.update(1)
    display.measured(0.25)
    display.update(2)
    first, second = capsys.readouterr().err.splitlines()
    assert "step 1/9  loss -  " in first
    assert "step 2/9  loss 0.25  " in second


def test_a_run_without_a_terminal_prints_plain_lines_on_stderr(tmp_path, toy, settings, cpu, capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    train(toy(nan_loss=frozenset({2})), settings(), cpu, tmp_path, resume=False, seed=0)
    out, err = capsys.readouterr()
    assert out == ""
    assert "dynamics: step 12/12" in err
    assert "warning: dynamics: step 3: the loss is nan" in err
    assert "\x1b" not in err


def test_the_same_seed_gives_the_same_artifact_and_another_does_not(tmp_path, toy, settings, cpu):
    prints = [
        train(toy(), settings(), cpu, tmp_path / str(run), resume=False, seed=seed).header.fingerprint
        for run, seed in enumerate((0, 0, 1))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_tensorboard_gets_the_metrics_when_installed(tmp_path, toy, settings, cpu):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with pytest.raises(TrainingInterrupted):
        train(toy(stop_at=5), settings(), cpu, tmp_path, resume=False, seed=0)
    train(toy(), settings(), cpu, tmp_path, resume=True, seed=0)
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4, 5, 6, 8, 10, 12]
