"""The switches of the ablation: what the network predicts, where errors are measured, what it is told."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, LatentSpec
from ahriuwu_cli.core.training.config import TrainSettings
from ahriuwu_cli.dynamics.config import DynamicsSection, ObjectiveConfig
from ahriuwu_cli.dynamics.model import DynamicsModel
from ahriuwu_cli.dynamics.shortcut_forcing import (
    Levels,
    bootstrap_targets,
    draw_levels,
    error_weight,
    forcing_loss,
    is_coarse,
    prepare,
)
from ahriuwu_cli.dynamics.train import dynamics_loss
from ahriuwu_cli.pipeline.config import preset_run

TAU_CONTEXT = 0.9  # signal level of past frames

CPU, K_MAX = torch.device("cpu"), 8


def test_a_velocity_is_turned_into_clean_latents(build, toy_batch) -> None:
    torch.manual_seed(0)
    by_x = build()
    by_v = build(prediction="v")
    by_v.load_state_dict(by_x.state_dict())
    batch, tau = toy_batch(2, 3), torch.tensor([[0.0, 0.5, 0.875], [0.25, 0.0, 0.75]])
    given = (batch.latents, tau, torch.full_like(tau, 1 / K_MAX), batch.action, batch.action_valid)
    out, velocity = by_v(*given).z1_hat, by_x(*given).z1_hat
    torch.testing.assert_close(out, batch.latents + (1 - tau)[..., None, None] * velocity)


def test_weights_by_hand() -> None:
    tau = torch.tensor([0.0, 0.5, 0.75])
    assert error_weight(tau, "x", False).tolist() == [1.0, 1.0, 1.0]
    torch.testing.assert_close(error_weight(tau, "x", True), torch.tensor([0.1, 0.55, 0.775]))
    torch.testing.assert_close(error_weight(tau, "v", False), torch.tensor([1.0, 4.0, 16.0]))
    torch.testing.assert_close(error_weight(tau, "v", True), torch.tensor([0.1, 2.2, 12.4]))


def test_the_loss_in_v_space_is_the_error_of_velocities() -> None:
    torch.manual_seed(0)
    z0, z1, velocity = torch.randn(3, 2, 4, 3, 2).unbind()
    levels = draw_levels(2, 4, K_MAX, 0.0, CPU)
    forcing = prepare(lambda *_: z1, z1, z0, levels, K_MAX, loss_space="v", ramped=False)
    z1_hat = forcing.z_tilde + (1 - levels.tau)[..., None, None] * velocity
    loss, _ = forcing_loss(z1_hat, forcing, torch.ones(2, 4, dtype=torch.bool), K_MAX)
    torch.testing.assert_close(loss, (velocity - (z1 - z0)).square().mean())


def test_objective_switches_reach_the_loss(build, toy_batch) -> None:
    """Pitfall 24: each switch changes the loss of the same batch and noise."""
    model, batch = build(), toy_batch(4, 6)

    def loss(**switches: object) -> float:
        torch.manual_seed(3)
        return dynamics_loss(model, batch, ObjectiveConfig.model_validate(switches), TAU_CONTEXT)[0].item()

    values = [loss(), loss(ramp=False), loss(loss_space="v"), loss(loss_space="v", ramp=False)]
    assert len({round(value, 6) for value in values}) == 4


def test_without_shortcut_the_step_size_is_not_looked_at(build, toy_batch) -> None:
    batch, tau = toy_batch(2, 3), torch.zeros(2, 3)
    for shortcut in (True, False):
        model = build(shortcut=shortcut)
        outs = [
            model(batch.latents, tau, torch.full_like(tau, d), batch.action, batch.action_valid).z1_hat
            for d in (1.0, 1 / K_MAX)
        ]
        assert torch.equal(*outs) != shortcut
        assert any(name.startswith("embed_d") for name, _ in model.named_parameters()) == shortcut


@pytest.mark.parametrize(
    ("shortcut", "fraction", "fine"), [(True, 0.25, True), (False, 0.0, True), (True, 0.0, False), (False, 0.25, False)]
)
def test_step_sizes_that_are_sampled_are_trained(shortcut: bool, fraction: float, fine: bool) -> None:
    given = {
        "model": {"shortcut": shortcut},
        "objective": {"bootstrap_fraction": fraction},
        "train": TrainSettings(steps=1, batch_size=1, learning_rate=1e-3),
    }
    if fine:
        DynamicsSection.model_validate(given)
    else:
        with pytest.raises(ValidationError, match="shortcut"):
            DynamicsSection.model_validate(given)


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 2), (3, 2)])
def test_the_flow_loss_is_part_of_every_step(batch: int, length: int) -> None:
    """Pitfall 9: however small the batch and however many rows draw any step size, one has d = d_min."""
    torch.manual_seed(0)
    for _ in range(300):
        levels = draw_levels(batch, length, 64, 1.0, CPU)
        assert (~is_coarse(levels.d, 64)).any()
        grid = levels.tau / levels.d
        assert torch.equal(grid, grid.round()) and (levels.tau + levels.d <= 1).all()


def test_bootstrap_targets_are_exact_where_half_precision_would_lose_them() -> None:
    """Pitfall 32: targets are formed in fp32 and x-space, also from a network that answers in bf16 near tau = 1."""
    torch.manual_seed(0)
    z = torch.randn(1, 4, 5, 6)
    levels = Levels(torch.tensor([[0.0, 0.5, 0.75, 0.96875]]), torch.tensor([[0.5, 0.25, 0.25, 0.03125]]), 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = (z * 1.01).bfloat16()
        target = bootstrap_targets(lambda *_: answer, z, levels, 64)
    assert target.dtype == torch.float32
    wide = (..., None, None)
    exact, tau, half = z.double(), levels.tau.double()[wide], levels.d.double()[wide] / 2
    first = (answer.double() - exact) / (1 - tau)
    middle = exact + first * half
    second = (answer.double() - middle) / (1 - tau - half)
    torch.testing.assert_close(target.double(), exact + (1 - tau) * (first + second) / 2, atol=1e-6, rtol=0)
    assert not torch.equal(target, z)


@pytest.mark.parametrize("variant", [{"time_every": 1}, {"feed_width": 24}, {"num_registers": 0}])
def test_every_shape_of_model_learns(build, toy_batch, variant: dict[str, int]) -> None:
    model = build(**variant)
    loss, _ = dynamics_loss(model, toy_batch(4, 6), ObjectiveConfig(), TAU_CONTEXT)
    loss.backward()
    still = [name for name, tensor in model.named_parameters() if tensor.grad is None]
    assert math.isfinite(loss.item()) and not still


def test_the_paper_preset_has_the_papers_size(tmp_path) -> None:
    """1.6B parameters, built without memory."""
    config = preset_run("paper", tmp_path).config.dynamics.model
    latent = LatentSpec(num_tokens=256, dim_token=32, layout="fold", bound=1.0)
    action = ActionSpec(components=(ActionComponent(name="a", type="categorical", num_classes=121),))
    with torch.device("meta"):
        model = DynamicsModel(config, latent, action)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(1.6e9, rel=0.03)
