"""Rotary embedding: a rotation, by an angle that depends on the position alone, so that products are relative."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.nn.norm import rms_norm
from ahriuwu_cli.nn.rotary import Rotary, norm_rotate, rotary_table, rotate

DIM_HEAD, CPU = 8, torch.device("cpu")


def rotated(x: torch.Tensor, position: int) -> torch.Tensor:
    """x (E,) at one position."""
    return rotate(x[None], rotary_table(position, 1, DIM_HEAD, CPU))[0]


@given(first=st.integers(0, 300), second=st.integers(0, 300), shift=st.integers(0, 10**8), seed=st.integers(0, 99))
def test_product_depends_on_the_distance_alone(first: int, second: int, shift: int, seed: int) -> None:
    q, k = torch.randn(2, DIM_HEAD, generator=torch.Generator().manual_seed(seed))
    here = rotated(q, first) @ rotated(k, second)
    there = rotated(q, first + shift) @ rotated(k, second + shift)
    torch.testing.assert_close(there, here, atol=1e-4, rtol=0)


def test_product_depends_on_the_distance() -> None:
    q, k = torch.randn(2, DIM_HEAD, generator=torch.Generator().manual_seed(0))
    products = torch.stack([rotated(q, 0) @ rotated(k, distance) for distance in range(6)])
    assert (products.diff().abs() > 1e-3).all()


@given(position=st.integers(0, 10_000), seed=st.integers(0, 99))
def test_norm_is_kept(position: int, seed: int) -> None:
    x = torch.randn(DIM_HEAD, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(rotated(x, position).norm(), x.norm(), rtol=1e-4, atol=1e-5)


def test_by_hand() -> None:
    # Width 2: one pair, turned by one radian per position.
    table = rotary_table(0, 2, 2, CPU)
    turned = rotate(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), table)
    torch.testing.assert_close(turned, torch.tensor([[1.0, 0.0], [math.cos(1), math.sin(1)]]))


@given(start=st.integers(0, 5000), length=st.integers(1, 40))
def test_kept_tables_are_those_of_their_positions(start: int, length: int) -> None:
    rotary = Rotary(DIM_HEAD)
    for at in (start, 0, start, start + 1, start + 300):
        table = rotary.table(at, length, torch.float32, CPU)
        torch.testing.assert_close(table, rotary_table(at, length, DIM_HEAD, CPU), rtol=0, atol=0)
    assert len(rotary._kept) <= 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keeps_the_type(dtype: torch.dtype) -> None:
    assert rotate(torch.ones(3, 4, dtype=dtype), rotary_table(0, 3, 4, CPU)).dtype == dtype


def test_norm_and_rotation_in_one_have_the_value_and_the_gradient_of_both() -> None:
    x = torch.randn(2, 3, 5, DIM_HEAD).transpose(0, 1).requires_grad_()  # not contiguous
    table = rotary_table(0, 5, DIM_HEAD, CPU)
    cos, sin = table[0][:, : DIM_HEAD // 2], table[1][:, DIM_HEAD // 2 :]
    target = torch.randn(3, 2, 5, DIM_HEAD)
    first, second = rms_norm(x).chunk(2, dim=-1)
    by_formula = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    (expected,) = torch.autograd.grad((by_formula * target).sum(), x)
    y = norm_rotate(x, table)
    assert y.is_contiguous()
    torch.testing.assert_close(y, by_formula)
    (found,) = torch.autograd.grad((y * target).sum(), x)
    torch.testing.assert_close(found, expected)
