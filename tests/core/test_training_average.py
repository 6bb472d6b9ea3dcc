"""The moving average of the weights: its values, what enters it, and where it is kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ahriuwu_cli.core.artifact import read_weights
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.training.average import WeightAverage
from ahriuwu_cli.core.training.loop import moved, train


def test_the_average_against_values_by_hand():
    parameter = nn.Parameter(torch.tensor([8.0]))
    average = WeightAverage({"w": parameter}, 0.15)
    found = []
    for value in (1.0, 2.0, 4.0):
        parameter.data.fill_(value)
        average.update()
        found.append(average.tensors["w"].item())
    # decays 1/10, then 2/11 and 3/12, of which 0.15 is the smaller
    first = 0.1 * 8 + 0.9 * 1
    second = 0.15 * first + 0.85 * 2
    assert found == pytest.approx([first, second, 0.15 * second + 0.85 * 4])
    assert average.updates == 3


def test_the_start_is_forgotten_though_the_decay_is_long():
    parameter = nn.Parameter(torch.tensor([1000.0]))
    average = WeightAverage({"w": parameter}, 0.9999)
    parameter.data.fill_(1.0)
    for _ in range(20):
        average.update()
    assert average.tensors["w"].item() == pytest.approx(1.0, abs=1e-3)


def averages(before: dict[str, Tensor], after: list[dict[str, Tensor]], decay: float) -> dict[str, Tensor]:
    """Averages of weights after each of several updates."""
    result = dict(before)
    for count, weights in enumerate(after):
        now = min(decay, (1 + count) / (10 + count))
        result = {name: now * result[name] + (1 - now) * weights[name] for name in result}
    return result


@pytest.mark.parametrize("fault", [None, "nan_loss", "nan_gradient"])
def test_the_artifact_holds_the_average_of_good_steps_and_the_state_holds_both(tmp_path, toy, settings, cpu, fault):
    """Pitfall 15: a skipped step does not enter the average; what is not trained is kept as it is."""
    bad = frozenset() if fault is None else frozenset({4})
    stage = toy(**({fault: bad} if fault else {}))
    result = train(stage, settings(ema_decay=0.6), cpu, tmp_path, resume=False, seed=0)
    last = {name: tensor.detach().clone() for name, tensor in stage.module.state_dict().items()}
    after = [*stage.seen[1:], last]  # weights after step 0, 1, ...
    wanted = averages(stage.seen[0], [weights for step, weights in enumerate(after) if step not in bad], 0.6)

    header, stored = read_weights(tmp_path / "dynamics.safetensors", "dynamics")
    state_header, state = read_weights(tmp_path / "dynamics.state.safetensors", "state")
    assert header.info["averaged"] is result.header.info["averaged"] is True
    assert state_header.info["averaged_steps"] == 12 - len(bad)
    for name in stage.trained():
        torch.testing.assert_close(stored[name], wanted[name])
        torch.testing.assert_close(state[f"average/{name}"], stored[name], rtol=0, atol=0)
    assert moved({name: state[f"module/{name}"] for name in last}, last) == set()
    assert moved(stored, last) == set(stage.trained())  # the frozen layer and the buffer are as they are
    assert {name for name in state if name.startswith("average/")} == {f"average/{name}" for name in stage.trained()}
    assert all(torch.isfinite(tensor).all() for tensor in stored.values())


def test_an_fp16_overflow_does_not_enter(tmp_path, toy, settings):
    """Pitfall 15: a step that only lowers the loss scale is no update."""

    class Steep(toy):
        def loss(self, step, batch):
            loss, metrics = super().loss(step, batch)
            return loss * (2.0**120 if step == 0 else 1.0), metrics

    half = Runtime(torch.device("cpu"), "fp16")
    train(Steep(), settings(ema_decay=0.9), half, tmp_path, resume=False, seed=0)
    assert read_weights(tmp_path / "dynamics.state.safetensors", "state")[0].info["averaged_steps"] == 11


def test_without_a_decay_there_is_no_average(tmp_path, toy, settings, cpu):
    stage = toy()
    result = train(stage, settings(), cpu, tmp_path, resume=False, seed=0)
    assert result.header.info["averaged"] is False
    assert moved(read_weights(tmp_path / "dynamics.safetensors", "dynamics")[1], stage.module.state_dict()) == set()
    state = read_weights(tmp_path / "dynamics.state.safetensors", "state")[1]
    assert not any(name.startswith("average/") for name in state)


def test_a_stage_may_name_its_tensors_as_it_likes(tmp_path, toy, settings, cpu):
    """Averages find their place in the state dict by tensor, not by name."""

    class Renamed(toy):
        def trained(self):
            return {f"mine.{name}": parameter for name, parameter in super().trained().items()}

    plain = train(toy(), settings(ema_decay=0.6), cpu, tmp_path / "plain", resume=False, seed=0)
    named = train(Renamed(), settings(ema_decay=0.6), cpu, tmp_path / "named", resume=False, seed=0)
    assert named.header.fingerprint == plain.header.fingerprint


def test_the_average_does_not_change_the_training(tmp_path, toy, settings, cpu):
    stages = [toy(), toy()]
    train(stages[0], settings(), cpu, tmp_path / "plain", resume=False, seed=0)
    train(stages[1], settings(ema_decay=0.9), cpu, tmp_path / "averaged", resume=False, seed=0)
    assert moved(stages[0].module.state_dict(), stages[1].module.state_dict()) == set()
