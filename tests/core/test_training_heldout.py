"""Held-out measurements: always the same examples, and no trace in what training makes."""

from __future__ import annotations

import pytest
import torch

from ahriuwu_cli.core.artifact import read_header, read_weights
from ahriuwu_cli.core.errors import TrainingInterrupted
from ahriuwu_cli.core.training.batches import Batch
from ahriuwu_cli.core.training.heldout import measure
from ahriuwu_cli.core.training.loop import train
from ahriuwu_cli.core.training.session import Session
from ahriuwu_cli.core.training.sinks import read_metrics


def tensors(folder):
    return read_weights(folder / "dynamics.state.safetensors", "state")[1]


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.7, "accumulate": 2}], ids=["plain", "averaged"])
def test_training_ends_with_the_same_bits_with_and_without(tmp_path, judged_toy, settings, cpu, changes):
    """Generators, buffers, dropout and averages: nothing shows that something was measured."""
    train(judged_toy(), settings(heldout_every=0, **changes), cpu, tmp_path / "without", resume=False, seed=3)
    train(judged_toy(), settings(heldout_every=1, **changes), cpu, tmp_path / "with", resume=False, seed=3)
    without, measured = tensors(tmp_path / "without"), tensors(tmp_path / "with")
    assert without.keys() == measured.keys()
    assert not [name for name in without if not torch.equal(without[name], measured[name])]


def test_it_is_measured_every_so_often_and_at_the_end(tmp_path, judged_toy, settings, cpu):
    stage = judged_toy()
    result = train(stage, settings(heldout_every=5), cpu, tmp_path, resume=False, seed=3)
    lines = {line["step"]: line for line in read_metrics(tmp_path / "metrics.jsonl")}
    values = {step: line["heldout_error"] for step, line in lines.items() if "heldout_error" in line}
    assert list(values) == [5, 10, 12]
    assert list(values.values()) == [value for value, _ in stage.measured]
    assert not any(training for _, training in stage.measured)  # in eval mode
    assert "heldout_nothing" not in lines[12]  # NaN: there was nothing to measure
    assert result.header.info["heldout"] == {"heldout_error": values[12]}  # of the weights that are kept
    assert result.metrics["heldout_error"] == values[12]


def test_the_same_weights_give_the_same_number(judged_toy, settings, cpu):
    session = Session(judged_toy(), settings(), cpu, 0)
    first = measure(session).values["heldout_error"]
    torch.rand(3)
    session.stage.loss(0, Batch())
    assert measure(session).values["heldout_error"] == first


def test_the_average_is_what_is_judged(tmp_path, judged_toy, settings, cpu):
    """The number beside the result is that of the tensors in the file."""
    stage, changes = judged_toy(), {"ema_decay": 0.9}
    result = train(stage, settings(heldout_every=6, **changes), cpu, tmp_path, resume=False, seed=3)
    other = judged_toy()
    other.module.load_state_dict(read_weights(tmp_path / "dynamics.safetensors", "dynamics")[1])
    kept = measure(Session(other, settings(), cpu, 0)).values["heldout_error"]
    assert result.header.info["heldout"] == {"heldout_error": kept}
    assert measure(Session(stage, settings(), cpu, 0)).values["heldout_error"] != kept  # those that were trained


@pytest.mark.parametrize("k", [4, 5, 9])
def test_a_resumed_run_measures_the_same(tmp_path, judged_toy, settings, cpu, k):
    """Pitfall 14: the header with its numbers is that of a straight run; an unfinished one claims none of its own."""
    whole = train(judged_toy(), settings(heldout_every=5), cpu, tmp_path / "straight", resume=False, seed=3)
    broken = tmp_path / "broken"
    with pytest.raises(TrainingInterrupted):
        train(judged_toy(stop_at=k - 1), settings(heldout_every=5), cpu, broken, resume=False, seed=3)
    assert bool(read_header(broken / "dynamics.safetensors", "dynamics").info["heldout"]) == (k == 5)
    resumed = train(judged_toy(), settings(heldout_every=5), cpu, broken, resume=True, seed=3)
    assert resumed.header.fingerprint == whole.header.fingerprint
    (broken / "dynamics.safetensors").unlink()  # killed between the two files
    again = train(judged_toy(), settings(heldout_every=5), cpu, broken, resume=True, seed=3)
    assert again.header.info["heldout"] == whole.header.info["heldout"] != {}


def test_nothing_held_out_is_said_once(tmp_path, judged_toy, settings, cpu, capfd):
    stage = judged_toy(goal=None)
    result = train(stage, settings(), cpu, tmp_path, resume=False, seed=3)
    assert (stage.measured, result.header.info["heldout"]) == ([], {})
    assert capfd.readouterr().err.count("nothing is held out") == 1
    train(judged_toy(goal=None), settings(heldout_every=0), cpu, tmp_path / "never", resume=False, seed=3)
    assert "held out" not in capfd.readouterr().err
