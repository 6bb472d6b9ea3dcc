"""Loss terms divided by a running RMS of themselves."""

from __future__ import annotations

import math

import pytest
import torch

from ahriuwu_cli.nn.running_rms import RunningRms


def number(value: float) -> torch.Tensor:
    return torch.tensor(value)


def test_by_hand() -> None:
    rms = RunningRms(decay=0.5)
    assert rms.normalise("x", number(3.0)).item() == pytest.approx(1.0)
    # averages of squares: 0.5 * 4.5 + 0.5 * 16 = 10.25, with the start-up weight 0.75
    assert rms.normalise("x", number(4.0)).item() == pytest.approx(4 / math.sqrt(10.25 / 0.75))


def test_gradient_is_not_zero() -> None:
    """Pitfall 28: a divisor that is not detached leaves no gradient."""
    weight = torch.tensor(2.0, requires_grad=True)
    rms = RunningRms()
    for _ in range(3):
        weight.grad = None
        rms.normalise("x", (3 * weight).square()).backward()
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(2 * 9 * 2 / 36)  # the loss's own gradient over its size


def test_terms_of_any_size_come_out_near_one() -> None:
    """Pitfall 31: terms that are not normalised let one of them dominate."""
    rms, generator = RunningRms(), torch.Generator().manual_seed(0)
    scales = {"mse": 1e-4, "lpips": 0.3, "large": 1e5}
    values: dict[str, list[float]] = {name: [] for name in scales}
    for _ in range(200):
        for name, scale in scales.items():
            noise = 0.5 + torch.rand((), generator=generator)
            values[name].append(rms.normalise(name, scale * noise).item())
    for found in values.values():
        assert sum(found[-100:]) / 100 == pytest.approx(1.0, abs=0.1)


def test_follows_a_falling_loss() -> None:
    rms = RunningRms(decay=0.9)
    for step in range(300):
        last = rms.normalise("x", number(10.0 if step < 100 else 0.1))
    assert last.item() == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("before", [0, 3])
def test_what_is_not_finite_does_not_update(bad: float, before: int) -> None:
    """Pitfall 15: one NaN poisoned the running RMS (1e30: its square is not finite in fp32)."""
    tried, calm = RunningRms(), RunningRms()
    for rms in (tried, calm):
        for value in range(before):
            rms.normalise("x", number(1.0 + value))
    shown = tried.normalise("x", number(bad))
    assert shown.isfinite().item() == math.isfinite(bad)  # the loop must see it
    for value in (2.0, 5.0):
        assert torch.equal(tried.normalise("x", number(value)), calm.normalise("x", number(value)))


def test_state_round_trip() -> None:
    """Pitfall 14: a resumed run goes on with the very same averages."""
    straight = RunningRms()
    for value in (3.0, 1.0, 4.0):
        straight.normalise("a.b", number(value))
        straight.normalise("c", number(value * 100))
    resumed = RunningRms()
    resumed.load_state(straight.state())
    for name in ("a.b", "c", "new"):
        assert torch.equal(straight.normalise(name, number(1.5)), resumed.normalise(name, number(1.5)))


def test_a_zero_loss_stays_zero() -> None:
    assert RunningRms().normalise("x", number(0.0)).item() == 0.0


def test_half_precision_losses_are_averaged_in_fp32() -> None:
    rms = RunningRms()
    for _ in range(100):
        rms.normalise("x", torch.tensor(1e-3, dtype=torch.bfloat16))
    assert all(value.dtype == torch.float32 for value in rms.state().values())
    assert rms.normalise("x", torch.tensor(1e-3, dtype=torch.bfloat16)).item() == pytest.approx(1.0, rel=0.02)
