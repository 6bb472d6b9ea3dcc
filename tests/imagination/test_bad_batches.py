"""Batches that hold no numbers: skipped, counted, and the end of a training that has too many of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ahriuwu_cli.core.errors import TrainingError
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.imagination import train as training

NAN = float("nan")


@pytest.fixture
def poison(monkeypatch):
    """Put NaN into a field of rollouts (those with these numbers, from 0)."""

    def put(name: str, *numbers: int) -> None:
        real, count = training.imagine, iter(range(1000))

        def imagine(*arguments, **options):
            rollout = real(*arguments, **options)
            if next(count) not in numbers:
                return rollout
            tensor = getattr(rollout, name).clone()
            tensor[0, 0] = NAN
            return replace(rollout, **{name: tensor})

        monkeypatch.setattr(training, "imagine", imagine)

    return put


def run(packed_run, agent_path, runtime, folder, transformer, **changes):
    section = packed_run.config.imagine
    settings = section.train.model_copy(update={"log_every": 1, **changes})
    section = section.model_copy(update={"transformer": transformer, "updates_per_rollout": 1, "train": settings})
    return training.train_imagination(section, agent_path, packed_run.packed, folder, runtime, seed=1, resume=False)


@pytest.mark.parametrize(("transformer", "name"), [("frozen", "reward"), ("frozen", "agent"), ("finetuned", "z_tilde")])
def test_a_poisoned_batch_is_skipped_and_counted(
    packed_run, agent_path, cpu_runtime, tmp_path, poison, transformer, name
):
    """Pitfall 15: one NaN in an imagined batch moves no weight and no running average."""
    poison(name, 1)
    result = run(packed_run, agent_path, cpu_runtime, tmp_path, transformer)
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "warning" not in line]
    assert [line["bad_steps"] for line in lines] == [0, 1, 1, 1]
    assert lines[1]["loss"] is None and all(line["loss"] is not None for line in (lines[0], *lines[2:]))
    assert "value_error" not in lines[1]  # no 0.0 in place of what was not measured
    state = load_file(tmp_path / "imagination.state.safetensors")
    assert all(tensor.isfinite().all() for key, tensor in state.items() if key.startswith(("module/", "optimizer/")))
    assert all(tensor.isfinite().all() for key, tensor in state.items() if key.startswith(("stage/sq", "stage/we")))
    steps = {int(tensor) for key, tensor in state.items() if key.endswith("/step")}
    assert steps == {3} and result.header.info["untrained"] == []


def test_too_many_of_them_end_the_training(packed_run, agent_path, cpu_runtime, tmp_path, poison):
    """Pitfall 15: with a clear error, and the last good weights saved."""
    poison("alive", 1, 2, 3)
    with pytest.raises(TrainingError, match=r"2 steps were not finite, more than max_bad_steps = 1") as caught:
        run(packed_run, agent_path, cpu_runtime, tmp_path, "frozen", max_bad_steps=1)
    assert caught.value.hint
    weights = load_file(tmp_path / "imagination.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
