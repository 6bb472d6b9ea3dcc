"""Which optimiser moves which tensor, and how."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, LatentSpec
from ahriuwu_cli.core.training.loop import train
from ahriuwu_cli.core.training.optimizer import Optimizer, hidden_matrices
from ahriuwu_cli.core.training.recompute import learning_parts
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.dynamics.config import DynamicsModelConfig
from ahriuwu_cli.dynamics.model import DynamicsModel

NONE: frozenset[nn.Parameter] = frozenset()


def step(optimizer: Optimizer, parameters: dict[str, nn.Parameter], gradients: dict[str, Tensor], rate: float) -> None:
    for name, parameter in parameters.items():
        parameter.grad = gradients[name].clone()
    optimizer.step(rate, None)


def test_weight_decay_is_for_matrices_only(toy, settings):
    parameters = toy().trained()
    groups = Optimizer(parameters, settings(weight_decay=0.3), NONE).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in parameters.items()} == {
        "inner.weight": 0.3,
        "inner.bias": 0.0,
        "outer.weight": 0.3,
        "outer.bias": 0.0,
    }


def test_one_kernel_gives_the_numbers_of_many(settings):
    """The fused AdamW against PyTorch's plain one, over many steps and both groups."""
    torch.manual_seed(0)
    start = {"matrix": torch.randn(33, 17), "vector": torch.randn(5)}
    fused, plain = ({name: nn.Parameter(value.clone()) for name, value in start.items()} for _ in range(2))
    optimizers = [Optimizer(parameters, settings(weight_decay=0.3), NONE) for parameters in (fused, plain)]
    assert all(group["fused"] for group in optimizers[0].param_groups)
    for group in optimizers[1].param_groups:
        group["fused"], group["foreach"] = False, False
    for _ in range(50):
        gradients = {name: torch.randn_like(value) for name, value in start.items()}
        for optimizer, parameters in zip(optimizers, (fused, plain), strict=True):
            step(optimizer, parameters, gradients, 0.01)
    for name, value in start.items():
        torch.testing.assert_close(fused[name], plain[name], rtol=1e-5, atol=1e-6)
        assert not torch.equal(fused[name], value)


def test_muon_takes_the_matrices_of_the_blocks_and_nothing_else():
    action = ActionSpec(components=(ActionComponent(name="move", type="binary"),))
    config = DynamicsModelConfig(dim=32, num_layers=4, num_heads=2, num_kv_heads=1)
    model = DynamicsModel(config, LatentSpec(num_tokens=4, dim_token=3, layout="4x3"), action, num_tasks=1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    taken = {names[id(parameter)] for parameter in hidden_matrices(learning_parts(model))}
    inside = {name for name, parameter in model.named_parameters() if ".blocks." in name and parameter.ndim == 2}
    assert len(inside) == 4 * 5  # projection and output of attention, three of the feed-forward layer
    assert taken == inside


def test_muon_moves_in_every_direction_alike_and_as_far_as_adamw(settings):
    """A gradient of spectrum 1, 0.1, 0.01: Muon's step has nearly equal singular values, and the size of AdamW's."""
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(8, 8)).Q for _ in range(2))
    gradient = left @ torch.diag(torch.logspace(0, -2, 8)) @ right
    moves = {}
    for name in ("adamw", "muon"):
        parameters = {"matrix": nn.Parameter(torch.zeros(8, 8))}
        chosen = settings(optimizer=name, weight_decay=0.0)
        optimizer = Optimizer(parameters, chosen, frozenset(parameters.values()))
        assert optimizer.uses_muon == (name == "muon")
        step(optimizer, parameters, {"matrix": gradient}, 0.01)
        moves[name] = parameters["matrix"].detach()
    spectrum = torch.linalg.svdvals(moves["muon"])
    assert spectrum[0] / spectrum[-1] < 3
    assert 0.1 < moves["muon"].norm() / moves["adamw"].norm() < 1


def test_a_stage_without_such_matrices_says_that_muon_has_no_effect(tmp_path, toy, settings, cpu, monkeypatch):
    monkeypatch.setattr("ahriuwu_cli.core.training.session.learning_parts", lambda module: [])
    result = train(toy(), settings(optimizer="muon"), cpu, tmp_path, resume=False, seed=0)
    warnings = [line["warning"] for line in read_metrics(tmp_path / "metrics.jsonl") if "warning" in line]
    assert len(warnings) == 1
    assert "train.optimizer = muon has no effect" in warnings[0]
    assert result.header.info["untrained"] == []
