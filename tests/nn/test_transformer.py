"""The stack: which layers look over time, where gradients go, and half precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ahriuwu_cli.core.memory import saved_bytes
from ahriuwu_cli.core.training.recompute import set_recompute
from ahriuwu_cli.nn.attention import TimeScope
from ahriuwu_cli.nn.transformer import SpaceTimeTransformer, SwiGLU, gated

Tokens = Callable[..., torch.Tensor]
Stack = Callable[..., SpaceTimeTransformer]


@pytest.mark.parametrize(("every", "layers"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3]), (4, [3]), (6, [])])
def test_every_nth_layer_is_over_time(every: int, layers: list[int]) -> None:
    model = SpaceTimeTransformer(16, 5, 2, 1, time_every=every, soft_cap=None)
    assert [layer for layer, block in enumerate(model.blocks) if block.time is not None] == layers
    assert [block.time_layer for block in model.blocks if block.time is not None] == list(range(len(layers)))
    over_space = [layer for layer, block in enumerate(model.blocks) if block.space is not None]
    assert over_space == (layers if every == 1 else [layer for layer in range(5) if layer not in layers])
    assert model.num_time_layers == len(layers)


def test_every_tensor_learns(tokens: Tokens) -> None:
    """Pitfall 3: the tensors that are trained are all there are, and each one has a gradient."""
    model = SpaceTimeTransformer(16, 4, 4, 2, time_every=2, soft_cap=5.0)
    model(tokens(2, 3, 3), None, TimeScope()).square().mul(torch.rand(16)).sum().backward()
    still = [name for name, tensor in model.named_parameters() if tensor.grad is None or not tensor.grad.any()]
    assert not still


def test_what_writes_into_the_residual_stream_starts_smaller_in_deeper_stacks() -> None:
    for depth in (2, 8):
        model = SpaceTimeTransformer(64, depth, 4, 4, time_every=2, soft_cap=None)
        for name, tensor in model.named_parameters():
            if tensor.dim() == 2:
                writes = ".out." in name or "feed.down" in name
                expected = 0.02 * ((2 * depth) ** -0.5 if writes else 1)
                assert tensor.std().item() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("given", "hidden"), [(None, 64), (24, 24)])  # 8/3 * 16 = 42.7, up to a multiple of 32
def test_feed_forward_by_hand(given: int | None, hidden: int) -> None:
    layer = SwiGLU(16, given)
    assert layer.down.in_features == hidden
    x = torch.randn(3, 16)
    gate, value = x @ layer.gate.weight.T, x @ layer.up.weight.T
    torch.testing.assert_close(layer(x), (gate * torch.sigmoid(gate) * value) @ layer.down.weight.T)


def test_gated_product_has_the_gradient_of_its_formula() -> None:
    gate, up = torch.randn(2, 3, 4, dtype=torch.double, requires_grad=True).unbind()
    assert torch.autograd.gradcheck(gated, (gate, up))
    torch.testing.assert_close(gated(gate, up), gate * torch.sigmoid(gate) * up)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_reading_some_tokens_gives_what_all_tokens_give(tokens: Tokens, every: int) -> None:
    model, x = SpaceTimeTransformer(16, 4, 4, 2, time_every=every, soft_cap=None), tokens(2, 5, 6)
    whole = model(x, None, TimeScope(window=2))
    some = model(x, None, TimeScope(window=2), [slice(1, 3), slice(5, 6)])
    torch.testing.assert_close(some, whole[:, :, [1, 2, 5]])
    cache, steps = model.new_cache(2), []
    for step in torch.split(x, 1, dim=1):
        steps.append(model(step, None, TimeScope(cache=cache), [slice(1, 3), slice(5, 6)]))
        cache.advance(1)
    torch.testing.assert_close(torch.cat(steps, dim=1), some, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_recomputing_blocks_changes_no_gradient(tokens: Tokens, training: bool) -> None:
    """Pitfall 25: blocks are computed again whenever gradients are recorded, in eval mode as well."""
    model, x = SpaceTimeTransformer(16, 4, 4, 2, time_every=2, soft_cap=None).train(training), tokens(2, 3, 3)
    target, results = torch.randn(16), []
    for on in (False, True):
        set_recompute(model, on)
        model.zero_grad()
        kept = saved_bytes(model, lambda module: (module(x, None, TimeScope()) * target).sum())
        (model(x, None, TimeScope()) * target).sum().backward()
        results.append((kept, {name: tensor.grad.clone() for name, tensor in model.named_parameters()}))
    assert results[1][0] < results[0][0] / 3
    torch.testing.assert_close(results[1][1], results[0][1])


def test_half_precision_stays_close(stack: Stack, tokens: Tokens) -> None:
    """bf16 products, fp32 residual stream and norms; the cache holds bf16."""
    model, x = SpaceTimeTransformer(16, 4, 4, 2, time_every=2, soft_cap=None).requires_grad_(False), tokens(2, 6, 3)
    exact = model(x, None, TimeScope(window=3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        full = model(x, None, TimeScope(window=3))
        cache, steps = model.new_cache(3), []
        for step in torch.split(x, 1, dim=1):
            steps.append(model(step, None, TimeScope(cache=cache)))
            cache.advance(1)
    assert full.dtype == torch.float32
    assert cache._layers[0].keys.dtype == torch.bfloat16
    torch.testing.assert_close(full, exact, atol=0.02, rtol=0)
    torch.testing.assert_close(torch.cat(steps, dim=1), full, atol=0.02, rtol=0)
