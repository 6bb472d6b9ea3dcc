"""The heads' network and the norm it uses, in full and half precision."""

from __future__ import annotations

import pytest
import torch

from ahriuwu_cli.nn.mlp import Mlp
from ahriuwu_cli.nn.norm import EPSILON, RmsNorm, rms_norm


def test_norm_by_hand() -> None:
    rms = ((9 + 16) / 2) ** 0.5
    torch.testing.assert_close(RmsNorm()(torch.tensor([3.0, 4.0])), torch.tensor([3 / rms, 4 / rms]))


def test_norm_is_torchs() -> None:
    x = torch.randn(3, 4, 8)
    torch.testing.assert_close(rms_norm(x), torch.nn.functional.rms_norm(x, (8,), eps=EPSILON))


def test_gradient_of_the_norm() -> None:
    """The backward pass is written by hand: it must be that of the formula."""
    for scale in (1e-3, 1.0, 100.0):
        x, weight = scale * torch.randn(3, 4, 8), torch.randn(3, 4, 8)
        gradients = []
        for norm in (rms_norm, lambda y: torch.nn.functional.rms_norm(y, (8,), eps=EPSILON)):
            leaf = x.clone().requires_grad_()
            (norm(leaf) * weight).sum().backward()
            gradients.append(leaf.grad)
        by_hand, automatic = gradients
        assert (by_hand - automatic).abs().max() < 1e-4 * automatic.abs().max()


def test_norm_computes_in_fp32() -> None:
    x = (300 * torch.randn(5, 64)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = rms_norm(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, x.float() / x.float().square().mean(dim=-1, keepdim=True).sqrt())


def test_norm_of_zeros_is_zero() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    y = rms_norm(x)
    y.sum().backward()
    assert not y.any()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("num_hidden", [0, 1, 3])
def test_mlp_shapes_and_gradients_in_half_precision(num_hidden: int) -> None:
    net, x = Mlp(8, 32, num_hidden, 5), torch.randn(2, 3, 8)
    exact = net(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(x)
    assert y.shape == (2, 3, 5)
    torch.testing.assert_close(y.float(), exact, atol=0.01, rtol=0)
    y.float().square().sum().backward()
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in net.parameters())
    assert sum(isinstance(layer, torch.nn.SiLU) for layer in net.hidden) == num_hidden


def test_mlp_starts_near_zero() -> None:
    y = Mlp(16, 64, 2, 10)(torch.randn(100, 16))
    assert 0 < y.abs().max() < 0.5
