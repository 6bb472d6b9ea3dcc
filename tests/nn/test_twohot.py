"""Symexp two-hot: values to two neighbouring buckets and back."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.nn.twohot import TwoHot, symexp, symlog

SMALL, WIDE = TwoHot(41, 5.0), TwoHot(255, 20.0)
TWOHOTS = st.sampled_from([SMALL, WIDE])
FINITE = st.floats(-1e6, 1e6, width=32)


@given(x=FINITE)
def test_symexp_undoes_symlog(x: float) -> None:
    value = torch.tensor(x)
    torch.testing.assert_close(symexp(symlog(value)), value, rtol=1e-5, atol=1e-6)


def test_symlog_by_hand() -> None:
    assert symlog(torch.tensor([0.0, math.e - 1, 1 - math.e])).tolist() == pytest.approx([0, 1, -1])


@given(twohot=TWOHOTS, share=st.floats(-1, 1))
def test_mean_of_the_encoding_is_the_value(twohot: TwoHot, share: float) -> None:
    value = symexp(torch.tensor(share * twohot.limit))  # spread evenly over the range in symlog space
    mean = twohot.mean(twohot.encode(value).log())
    torch.testing.assert_close(mean, value, rtol=1e-4, atol=1e-5)


@given(twohot=TWOHOTS, x=FINITE)
def test_weights_are_of_two_neighbours_and_sum_to_one(twohot: TwoHot, x: float) -> None:
    weights = twohot.encode(torch.tensor(x))
    assert weights.sum().item() == pytest.approx(1, abs=1e-6)
    assert (weights >= 0).all()
    used = weights.nonzero().flatten()
    assert len(used) <= 2
    assert used[-1] - used[0] <= 1


def test_values_beyond_the_range_are_clamped() -> None:
    end = math.expm1(5.0)
    far = SMALL.encode(torch.tensor([1e9, -1e9, math.inf]))
    assert far.argmax(dim=-1).tolist() == [40, 0, 40]
    assert far.max(dim=-1).values.tolist() == pytest.approx([1, 1, 1])
    torch.testing.assert_close(SMALL.mean(far.log()), torch.tensor([end, -end, end]))


@pytest.mark.parametrize("twohot", [SMALL, WIDE], ids=["small", "wide"])
def test_equal_weights_are_exactly_zero(twohot: TwoHot) -> None:
    """A head that starts at zero says zero, although the outer buckets are worth e^20."""
    assert twohot.mean(torch.zeros(3, twohot.num_buckets)).tolist() == [0, 0, 0]
    centres = twohot.centres(torch.zeros(()))
    assert centres[twohot.num_buckets // 2] == 0
    assert torch.equal(centres, -centres.flip(0))
    assert (centres.diff() > 0).all()
    assert centres[-1].item() == pytest.approx(math.expm1(twohot.limit), rel=1e-5)


def test_zero_is_a_bucket_of_its_own() -> None:
    assert SMALL.encode(torch.tensor(0.0)).nonzero().flatten().tolist() == [20]
    with pytest.raises(AssertionError, match="zero"):
        TwoHot(40, 5.0)


def test_loss_by_hand() -> None:
    twohot = TwoHot(3, math.log(2))  # buckets at -1, 0, 1
    torch.testing.assert_close(twohot.encode(torch.tensor(0.25)), torch.tensor([0.0, 0.75, 0.25]))
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 2.0]])
    normaliser = math.log(1 + math.e + math.e**2)
    expected = [math.log(3), 0.75 * (normaliser - 1) + 0.25 * (normaliser - 2)]
    assert twohot.loss(logits, torch.tensor([0.25, 0.25])).tolist() == pytest.approx(expected)


def test_gradient_vanishes_only_at_the_value() -> None:
    value = torch.tensor([3.0])
    wrong = torch.zeros(1, 41, requires_grad=True)
    SMALL.loss(wrong, value).sum().backward()
    assert wrong.grad is not None
    assert wrong.grad.abs().sum() > 0.5
    right = (SMALL.encode(value) + 1e-9).log().requires_grad_()
    SMALL.loss(right, value).sum().backward()
    assert right.grad is not None
    assert right.grad.abs().max() < 1e-6


def test_half_precision_logits_are_read_in_fp32() -> None:
    logits = SMALL.encode(torch.tensor([7.0])).clamp_min(1e-6).log()
    rounded = logits.bfloat16()
    assert SMALL.mean(rounded).dtype == SMALL.loss(rounded, torch.tensor([7.0])).dtype == torch.float32
    assert SMALL.mean(rounded).item() == pytest.approx(7.0, rel=0.05)


def test_any_shape() -> None:
    value = torch.randn(2, 3, 4)
    assert SMALL.encode(value).shape == (2, 3, 4, 41)
    assert SMALL.loss(torch.randn(2, 3, 4, 41), value).shape == (2, 3, 4)
    torch.testing.assert_close(SMALL.mean(SMALL.encode(value.mT).log()), value.mT, rtol=1e-4, atol=1e-5)
