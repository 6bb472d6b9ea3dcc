"""Gradient accumulation: micro-batches of one step count as one batch, for better and for worse."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from ahriuwu_cli.core.artifact import read_weights
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import TrainingError
from ahriuwu_cli.core.training.batches import Batch
from ahriuwu_cli.core.training.loop import moved, train
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.core.training.stage import ArtifactFields, StageState
from ahriuwu_cli.core.training.watch import CLIP_WINDOW


@dataclass(frozen=True)
class Rows(Batch):
    """Some rows (R, 5) and what is wanted of them (R, 3)."""

    x: torch.Tensor
    y: torch.Tensor


class Regression:
    """Least squares on 24 given rows a step, taken `rows` at a time: the loss is the same whoever cuts them."""

    kind = "dynamics"
    losses = ("error",)

    def __init__(self, rows: int) -> None:
        torch.manual_seed(1)
        self.module, self.rows, self.calls = nn.Linear(5, 3), rows, []
        self.x, self.y = torch.randn(12, 24, 5), torch.randn(12, 24, 3)

    def trained(self):
        return dict(self.module.named_parameters())

    def batch(self, step, part):
        rows = slice(part * self.rows, (part + 1) * self.rows)
        return Rows(self.x[step, rows], self.y[step, rows])

    def loss(self, step, batch):
        part = self.calls.count(step)
        self.calls.append(step)
        error = (self.module(batch.x).float() - batch.y).square().mean()
        return error, {"error": error, "outer": math.nan if part == 1 else float(part)}

    def describe(self):
        return ArtifactFields({})

    def state(self):
        return StageState()

    def load_state(self, state):
        pass


def gradients_given(monkeypatch) -> list[list[torch.Tensor]]:
    """The gradients that the optimiser saw at each step."""
    seen, step = [], torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        seen.append([p.grad.clone() for group in self.param_groups for p in group["params"]])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    return seen


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_micro_batches_equal_one_big_batch(tmp_path, toy, settings, cpu, parts):
    """Gradients and metrics are averages: the same weights, losses and gradient norms as of the batch in one piece."""
    big, small = Regression(24), Regression(24 // parts)
    whole = train(big, settings(clip_norm=0.5), cpu, tmp_path / "big", resume=False, seed=0)
    split = train(small, settings(clip_norm=0.5, accumulate=parts), cpu, tmp_path / "small", resume=False, seed=0)
    assert small.calls == [step for step in range(12) for _ in range(parts)]
    for one, other in zip(big.module.parameters(), small.module.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)
    for name in ("loss", "error", "gradient_norm", "clipped"):
        assert split.metrics[name] == pytest.approx(whole.metrics[name], rel=1e-5), name
    assert split.metrics["clipped"] == 1.0


def test_a_metric_of_some_micro_batches_is_averaged_over_those(tmp_path, toy, settings, cpu):
    found = train(Regression(8), settings(accumulate=3), cpu, tmp_path, resume=False, seed=0).metrics
    assert found["outer"] == 1.0  # of 0, nothing, 2


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_one_bad_micro_batch_skips_the_whole_step(tmp_path, toy, settings, cpu, poison):
    """Pitfall 15: skipped, counted once, warned of; the good micro-batches beside it are not logged either."""

    class Poisoned(Regression):
        def loss(self, step, batch):
            self.before = {name: tensor.clone() for name, tensor in self.module.state_dict().items()}
            part = self.calls.count(step)
            if step == 5 and part == 0:
                self.start = self.before
            if step == 6 and part == 0:
                self.end = self.before
            error, metrics = super().loss(step, batch)
            if step == 5 and part == 1:
                zero = (self.module.weight * 0).sum()
                error = error + (zero * math.nan if poison == "loss" else (self.module.weight * 0).sqrt().sum())
            return error, metrics

    stage = Poisoned(8)
    result = train(stage, settings(accumulate=3, log_every=1), cpu, tmp_path, resume=False, seed=0)
    assert result.metrics["bad_steps"] == 1
    assert moved(stage.start, stage.end) == set()
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "warning" not in line]
    assert [line["step"] for line in lines if line["loss"] is None] == [6]
    assert "error" not in lines[5]
    assert moved(stage.end, stage.module.state_dict()) == {"weight", "bias"}


def test_bad_steps_are_counted_by_step_not_by_micro_batch(tmp_path, toy, settings, cpu):
    """Pitfall 15: three poisoned micro-batches of one step are one bad step."""
    stage = toy(nan_loss=frozenset({2, 4, 6}))
    with pytest.raises(TrainingError, match="stopped at step 7: 3 steps were not finite"):
        train(stage, settings(accumulate=4, max_bad_steps=2), cpu, tmp_path, resume=False, seed=0)
    assert len(stage.seen) == 7 * 4


def test_constant_clipping_is_counted_by_step(tmp_path, toy, settings, cpu):
    changes = {"steps": CLIP_WINDOW, "clip_norm": 1e-6, "log_every": 50, "accumulate": 2}
    train(toy(), settings(**changes), cpu, tmp_path, resume=False, seed=0)
    lines = [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl") if "warning" in line]
    assert lines == [CLIP_WINDOW]


def test_fp16_gradients_are_unscaled_once_after_the_last_micro_batch(tmp_path, toy, settings, cpu, monkeypatch):
    """Pitfall 26: what reaches clipping and the optimiser is the mean gradient, at its own scale."""
    seen = gradients_given(monkeypatch)
    changes = {"accumulate": 3, "steps": 1, "clip_norm": 1000.0}
    train(Regression(8), settings(**changes), cpu, tmp_path / "full", resume=False, seed=0)
    half = Runtime(torch.device("cpu"), "fp16")
    result = train(Regression(8), settings(**changes), half, tmp_path / "half", resume=False, seed=0)
    full, scaled = seen
    for one, other in zip(full, scaled, strict=True):
        torch.testing.assert_close(other, one, rtol=2e-2, atol=1e-3)
    assert result.metrics["gradient_norm"] == pytest.approx(
        float(torch.cat([g.flatten() for g in full]).norm()), rel=1e-2
    )


def test_an_fp16_overflow_in_one_micro_batch_lowers_the_scale_and_moves_nothing(tmp_path, toy, settings):
    """Pitfalls 15 and 26: no bad step, no update, the scale halved once."""

    class Steep(Regression):
        def loss(self, step, batch):
            first = not self.calls
            error, metrics = super().loss(step, batch)
            return error * (2.0**120 if first else 1.0), metrics

    stage, half = Steep(8), Runtime(torch.device("cpu"), "fp16")
    before = {name: tensor.clone() for name, tensor in stage.module.state_dict().items()}
    result = train(stage, settings(steps=1, accumulate=3), half, tmp_path, resume=False, seed=0)
    assert result.metrics["bad_steps"] == 0
    assert moved(before, stage.module.state_dict()) == set()
    header, _ = read_weights(tmp_path / "dynamics.state.safetensors", "state")
    assert '"scale": 32768.0' in header.info["scaler"]
