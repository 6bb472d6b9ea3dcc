"""Shortcut forcing: levels, corruption, targets and loss against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from ahriuwu_cli.dynamics.config import ObjectiveConfig
from ahriuwu_cli.dynamics.shortcut_forcing import (
    Forcing,
    Levels,
    bootstrap_targets,
    corrupt,
    draw_levels,
    forcing_loss,
    is_coarse,
    prepare,
    ramp,
    snap,
)
from ahriuwu_cli.dynamics.train import draw_inputs

TAU_CONTEXT = 0.9  # signal level of past frames

CPU = torch.device("cpu")
K_MAX = 8


def one(*values: float) -> Tensor:
    """A row of frames of one token with one channel: (1, T, 1, 1)."""
    return torch.tensor(values, dtype=torch.float32)[None, :, None, None]


# ---------------------------------------------------------------- levels


@pytest.fixture(scope="module")
def drawn() -> Levels:
    torch.manual_seed(0)
    return draw_levels(6000, 4, K_MAX, 0.5, CPU)


def test_d_is_uniform_over_the_powers_of_two_in_bootstrap_rows_and_d_min_elsewhere(drawn):
    """Pitfall 5: Eq. 4 as printed, not P(d) ~ 1/d; every entry has its own d."""
    assert drawn.num_bootstrap == 3000
    assert (drawn.d[3000:] == 1 / K_MAX).all()
    for position in range(4):
        values, counts = drawn.d[:3000, position].unique(return_counts=True)
        assert values.tolist() == [0.125, 0.25, 0.5, 1.0]
        assert chisquare(counts).pvalue > 1e-3


def test_tau_is_uniform_on_the_grid_of_its_d_at_every_position(drawn):
    """Pitfall 5: tau tied to the frame's position."""
    for position in range(4):
        for d in (0.125, 0.25, 0.5, 1.0):
            tau = drawn.tau[:, position][drawn.d[:, position] == d]
            values, counts = tau.unique(return_counts=True)
            assert values.tolist() == [step * d for step in range(int(1 / d))]
            assert len(counts) == 1 or chisquare(counts).pvalue > 1e-3


def test_neighbours_do_not_know_of_each_other(drawn):
    """Pitfall 5: adjacent correlation ~ 0, of tau and of d (diffusion forcing)."""
    for levels in (drawn.tau[:3000], drawn.tau[3000:], drawn.d[:3000]):
        for left in range(3):
            correlation = torch.corrcoef(levels[:, left : left + 2].T)[0, 1]
            assert abs(correlation) < 0.06


@given(
    batch=st.integers(1, 9),
    length=st.integers(1, 5),
    finest=st.integers(1, 6),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_levels_are_always_on_the_grid(batch, length, finest, fraction, seed):
    torch.manual_seed(seed)
    k_max = 2**finest
    levels = draw_levels(batch, length, k_max, fraction, CPU)
    steps = 1 / levels.d
    assert torch.equal(steps, 2 ** torch.log2(steps).round())
    assert steps.min() >= 1 and steps.max() <= k_max
    assert torch.equal(levels.tau / levels.d, (levels.tau / levels.d).round())
    assert levels.tau.min() >= 0 and (levels.tau + levels.d).max() <= 1
    assert math.ceil(batch * fraction) == levels.num_bootstrap
    assert (levels.d[levels.num_bootstrap :] == 1 / k_max).all()
    chosen = levels.rows(slice(1, None))
    assert torch.equal(chosen.tau, levels.tau[1:]) and torch.equal(chosen.d, levels.d[1:])


def test_image_mode_is_a_coin_per_example(build, toy_batch):
    """Pitfall 5: 30 % of the examples, each by its own coin, whole examples only; the same for unlabelled ones."""
    assert ObjectiveConfig().image_fraction == 0.3
    objective = ObjectiveConfig(bootstrap_fraction=0, action_dropout=0.2)
    torch.manual_seed(0)
    inputs = draw_inputs(build(), toy_batch(3000, 2), objective, TAU_CONTEXT)
    assert inputs.separate.shape == (3000,)
    assert inputs.separate.float().mean() == pytest.approx(0.3, abs=0.03)
    assert len({int(part.sum()) for part in inputs.separate.split(30)}) > 5  # not one coin per batch
    unlabelled = ~inputs.action_valid
    assert unlabelled.float().mean() == pytest.approx(0.2, abs=0.03)
    assert torch.equal(unlabelled[:, 0], unlabelled[:, 1])
    both = (inputs.separate & unlabelled[:, 0]).float().mean()
    assert both == pytest.approx(0.06, abs=0.02)  # two coins


# ---------------------------------------------------------------- corruption and ramp


def test_corruption_by_hand():
    z1, z0 = one(3.0, 3.0, 3.0), one(-1.0, -1.0, -1.0)
    assert corrupt(z1, z0, torch.tensor([[0.0, 0.25, 1.0]])).flatten().tolist() == [-1.0, 0.0, 3.0]


def test_the_ramp_rises_with_the_signal():
    """Pitfall 5: the weight rises with signal (Eq. 8)."""
    weights = ramp(torch.linspace(0, 1, 65))
    assert weights[[0, -1]].tolist() == pytest.approx([0.1, 1.0])
    assert (weights.diff() > 0).all()


@given(tau=st.floats(0, 1), finest=st.integers(1, 10))
def test_snap_gives_the_nearest_level_that_has_an_embedding(tau, finest):
    """Pitfall 6: the level used for the noise is one that the label can name."""
    k_max = 2**finest
    snapped = snap(tau, k_max)
    assert snapped * k_max == round(snapped * k_max)
    assert 0 <= snapped <= 1 - 1 / k_max
    assert abs(snapped - tau) <= (0.5 if tau <= 1 - 1 / k_max else 1) / k_max + 1e-12


def test_snap_by_hand():
    assert [snap(0.9, 8), snap(0.9, 64), snap(0.9, 2), snap(0.0, 8)] == [0.875, 58 / 64, 0.5, 0.0]


# ---------------------------------------------------------------- targets


def linear(z: Tensor, tau: Tensor, d: Tensor, rows: slice) -> Tensor:
    """f(z, tau, d) = z / 2 + tau + 2 d."""
    del rows
    return 0.5 * z + (tau + 2 * d)[..., None, None]


def test_targets_of_a_linear_denoiser_by_hand():
    """Eq. 7 with numbers: two half steps where d = 1/2, the clean latents where d = d_min."""
    # tau 0, d 1/2, z 2:   f = 1.5, b' = -0.5, z' = 1.875; f = 1.6875, b'' = -0.25; 2 + 1 * (-0.375)
    # tau 1/2, d 1/2, z 2: f = 2, b' = 0, z' = 2; f = 2.25, b'' = 1; 2 + 0.5 * 0.5
    levels = Levels(torch.tensor([[0.0, 0.5, 0.5]]), torch.tensor([[0.5, 0.5, 0.125]]), 1)
    z0, z1 = one(2.0, 1.0, 1.0), one(7.0, 3.0, 3.0)
    forcing = prepare(linear, z1, z0, levels, K_MAX)
    assert forcing.z_tilde.flatten().tolist() == [2.0, 2.0, 2.0]
    assert forcing.target.flatten().tolist() == [1.625, 2.25, 3.0]
    assert is_coarse(levels.d, K_MAX).tolist() == [[True, True, False]]


def test_the_loss_by_hand():
    levels = Levels(torch.tensor([[0.0, 0.5, 0.5, 0.0]]), torch.tensor([[0.5, 0.5, 0.125, 0.125]]), 1)
    weight = ramp(levels.tau)
    forcing = Forcing(one(0, 0, 0, 0), levels, one(0, 0, 0, 0), one(1.0, 2.0, 3.0, 4.0), weight)
    guess = one(2.0, 4.0, 6.0, 999.0)  # errors 1, 4, 9 with weights 0.1, 0.55, 0.55; the last is padding
    valid = torch.tensor([[True, True, True, False]])
    loss, metrics = forcing_loss(guess, forcing, valid, K_MAX)
    assert loss.item() == pytest.approx((0.1 + 0.55 * 4 + 0.55 * 9) / 3)
    assert metrics["flow"].item() == pytest.approx(9)
    assert metrics["bootstrap"].item() == pytest.approx(2.5)


def random_case(seed: int = 0) -> tuple[Tensor, Tensor, Levels]:
    torch.manual_seed(seed)
    return torch.randn(6, 5, 3, 2), torch.randn(6, 5, 3, 2), draw_levels(6, 5, K_MAX, 1.0, CPU)


def test_the_x_space_loss_is_the_v_space_formula():
    """Pitfall 32: what is computed in x-space equals Eq. 7 as printed."""
    z1, z0, levels = random_case()
    forcing = prepare(linear, z1, z0, levels, K_MAX)
    guess = torch.randn_like(z1)
    loss, _ = forcing_loss(guess, forcing, torch.ones(6, 5, dtype=torch.bool), K_MAX)

    total = 0.0
    for b in range(6):
        for t in range(5):
            tau, d = levels.tau[b, t].item(), levels.d[b, t].item()
            z = (1 - tau) * z0[b, t] + tau * z1[b, t]
            if d == 1 / K_MAX:
                error = (guess[b, t] - z1[b, t]).square().mean()
            else:
                first = (0.5 * z + tau + d - z) / (1 - tau)
                middle = z + first * d / 2
                second = (0.5 * middle + tau + d / 2 + d - middle) / (1 - tau - d / 2)
                velocity = (guess[b, t] - z) / (1 - tau)
                error = (1 - tau) ** 2 * (velocity - (first + second) / 2).square().mean()
            total += (0.9 * tau + 0.1) * error.item()
    assert loss.item() == pytest.approx(total / 30, rel=1e-5)


def exact(z: Tensor, tau: Tensor, d: Tensor, rows: slice) -> Tensor:
    """The shortcut model of the flow dz/dt = -z / 2: one step of d lands where the flow is."""
    del rows
    wide = (..., None, None)
    return z + ((1 - tau) / d * (torch.exp(-d / 2) - 1))[wide] * z


def test_a_consistent_model_has_no_bootstrap_error_and_an_inconsistent_one_has():
    """Pitfall 33: two half steps of an exact shortcut model are one whole step; a model that ignores d is told so."""
    z1, z0, levels = random_case()
    valid = torch.ones(6, 5, dtype=torch.bool)
    errors = []
    for denoise in (exact, lambda z, tau, d, rows: exact(z, tau, torch.full_like(d, 0.125), rows)):
        forcing = prepare(denoise, z1, z0, levels, K_MAX)
        guess = denoise(forcing.z_tilde, levels.tau, levels.d, slice(None))
        errors.append(forcing_loss(guess, forcing, valid, K_MAX)[1]["bootstrap"].item())
    assert errors[0] < 1e-12
    assert errors[1] > 1e-4


def test_half_steps_carry_one_tau_for_noise_and_label():
    """Pitfall 6: at the second half step tau moves with z, and neither moves where d = d_min."""
    z1, z0, levels = random_case(1)
    calls: list[tuple[Tensor, ...]] = []

    def spy(z: Tensor, tau: Tensor, d: Tensor, rows: slice) -> Tensor:
        calls.append((z, tau, d))
        assert rows == slice(0, 6)
        return z1  # the straight flow: z stays on the line between z0 and z1

    prepare(spy, z1, z0, levels, K_MAX)
    (z_first, tau_first, d_first), (z_second, tau_second, d_second) = calls
    coarse = is_coarse(levels.d, K_MAX)
    assert torch.equal(z_first, corrupt(z1, z0, levels.tau)) and torch.equal(tau_first, levels.tau)
    assert torch.equal(d_first, torch.where(coarse, levels.d / 2, levels.d)) and torch.equal(d_second, d_first)
    assert torch.equal(tau_second, torch.where(coarse, levels.tau + levels.d / 2, levels.tau))
    torch.testing.assert_close(z_second, corrupt(z1, z0, tau_second))


def test_rows_after_the_bootstrap_rows_are_plain_flow():
    z1, z0, levels = random_case()
    levels = Levels(levels.tau, torch.where(torch.arange(6)[:, None] < 2, levels.d, 0.125), 2)
    sizes = []

    def spy(z: Tensor, tau: Tensor, d: Tensor, rows: slice) -> Tensor:
        sizes.append((len(z), rows))
        return linear(z, tau, d, rows)

    forcing = prepare(spy, z1, z0, levels, K_MAX)
    assert sizes == [(2, slice(0, 2))] * 2
    assert torch.equal(forcing.target[2:], z1[2:])

    def never(*_):
        raise AssertionError("no row needs a bootstrap target")

    assert torch.equal(prepare(never, z1, z0, Levels(levels.tau, levels.d, 0), K_MAX).target, z1)


def test_targets_have_no_gradient_and_are_fp32():
    """Pitfalls 28 and 32: the target is a constant in fp32; the gradient comes through the guess alone, and comes."""
    z1, z0, levels = random_case()
    weight = torch.tensor(0.5, requires_grad=True)

    def half(z: Tensor, tau: Tensor, d: Tensor, rows: slice) -> Tensor:
        del tau, d, rows
        return (weight * z).to(torch.bfloat16)

    target = bootstrap_targets(half, corrupt(z1, z0, levels.tau), levels, K_MAX)
    assert not target.requires_grad and target.dtype == torch.float32
    forcing = prepare(half, z1, z0, levels, K_MAX)
    loss, _ = forcing_loss(half(forcing.z_tilde, levels.tau, levels.d, slice(None)), forcing, levels.tau >= 0, K_MAX)
    loss.backward()
    assert loss.item() > 0 and loss.dtype == torch.float32
    assert weight.grad is not None and weight.grad.abs() > 1e-3


def test_what_a_batch_has_not_is_not_measured():
    levels = Levels(torch.zeros(1, 2), torch.full((1, 2), 0.125), 1)
    forcing = Forcing(one(0, 0), levels, one(0, 1), one(0, 1), ramp(levels.tau))
    loss, metrics = forcing_loss(one(1, 1), forcing, torch.tensor([[True, True]]), K_MAX)
    assert math.isnan(metrics["bootstrap"]) and metrics["flow"] == 0.5
    assert math.isfinite(loss)
    loss, metrics = forcing_loss(one(1, 1), forcing, torch.tensor([[False, False]]), K_MAX)
    assert loss == 0 and math.isnan(metrics["flow"])
