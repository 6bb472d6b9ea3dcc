"""Resuming on something else than before: another precision is refused, what cannot be kept is told."""

from __future__ import annotations

import pytest
import torch

from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ArtifactError, TrainingInterrupted
from ahriuwu_cli.core.training import state
from ahriuwu_cli.core.training.loop import train
from ahriuwu_cli.core.training.sinks import read_metrics


@pytest.fixture
def stopped(tmp_path, toy, settings, cpu):
    with pytest.raises(TrainingInterrupted):
        train(toy(stop_at=4), settings(), cpu, tmp_path, resume=False, seed=3)
    return tmp_path


def test_another_precision_is_refused(stopped, toy, settings):
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    with pytest.raises(ArtifactError, match="was trained in fp32; this run computes in bf16") as caught:
        train(toy(), settings(), Runtime(torch.device("cpu"), "bf16"), stopped, resume=True, seed=3)
    assert "--set run.precision=fp32" in caught.value.hint
    assert {path.name: path.read_bytes() for path in stopped.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("threads", 97, "threads 97 (was 1)"),
        ("torch", "9.9", f"torch 9.9 (was {torch.__version__})"),
        ("device", "mps", "device mps (was cpu)"),
    ],
)
def test_what_another_machine_has_is_told_and_taken(
    stopped, toy, settings, cpu, monkeypatch, capsys, name, value, told
):
    was = {"device": "cpu", "precision": "fp32", "threads": torch.get_num_threads(), "torch": torch.__version__}
    monkeypatch.setattr(state, "surroundings", lambda _: was | {name: value})
    assert train(toy(), settings(), cpu, stopped, resume=True, seed=3).steps == 12
    told = told.replace("was 1)", f"was {torch.get_num_threads()})")
    assert f"resumed with {told}: not the very bits" in capsys.readouterr().err
    assert all("warning" not in line for line in read_metrics(stopped / "metrics.jsonl"))


def test_the_same_surroundings_say_nothing(stopped, toy, settings, cpu, capsys):
    train(toy(), settings(), cpu, stopped, resume=True, seed=3)
    assert "resumed" not in capsys.readouterr().err
