"""Attention against a plain reference, and its masks by perturbation."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from ahriuwu_cli.nn import attention as module
from ahriuwu_cli.nn.attention import Attention, TimeScope, time_mask
from ahriuwu_cli.nn.cache import KVCache
from ahriuwu_cli.nn.layout import TokenLayout
from ahriuwu_cli.nn.rotary import Rotary, rotary_table, rotate
from ahriuwu_cli.nn.transformer import SpaceTimeTransformer

Tokens = Callable[..., torch.Tensor]
Stack = Callable[..., SpaceTimeTransformer]


def over_space(layer: Attention, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return layer.over_space(x, mask, rotary_table(0, x.shape[2], layer.dim_head, x.device))


def over_time(layer: Attention, x: torch.Tensor, scope: TimeScope) -> torch.Tensor:
    past = scope.cache and scope.cache.layer(0, x, x.shape[2] * layer.num_kv_heads, layer.dim_head, x.dtype)
    return layer.over_time(x, scope.sight(x, Rotary(layer.dim_head)), past)


HEADS = {"all heads": (4, 4), "grouped": (4, 2), "one key head": (4, 1)}


def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, cap: float | None):
    """q (N, H, Lq, E), k and v (N, G, Lk, E): head by head, query by query, key by key, in double precision."""
    q, k, v = (part.detach().double() for part in (q, k, v))
    out = torch.zeros_like(q)
    share = q.shape[1] // k.shape[1]
    visible = torch.ones(q.shape[0], q.shape[1], q.shape[2], k.shape[2], dtype=torch.bool)
    if mask is not None:
        visible = visible & mask
    for n in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                logits = [float(q[n, h, i] @ key) / math.sqrt(q.shape[3]) for key in k[n, h // share]]
                if cap is not None:
                    logits = [cap * math.tanh(value / cap) for value in logits]
                weights = [math.exp(x) if visible[n, h, i, j] else 0.0 for j, x in enumerate(logits)]
                for j, weight in enumerate(weights):
                    out[n, h, i] += weight / sum(weights) * v[n, h // share, j]
    return out.float()


@pytest.fixture(params=["products", "fused"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to compute: plain products, and torch's fused kernel (which knows no soft cap)."""
    calls = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k))
    monkeypatch.setattr(module, "MANUAL_LENGTH", 0 if request.param == "fused" else 10**9)
    yield request.param
    assert bool(calls) == (request.param == "fused")


def draw(heads: tuple[int, int], queries: int, keys: int, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, heads[0], queries, 8), (2, heads[1], keys, 8), (2, heads[1], keys, 8)]
    return tuple(scale * torch.randn(shape, generator=generator) for shape in shapes)


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("masked", ["none", "all examples", "each example"])
def test_attention_is_that_of_the_reference(path: str, heads: tuple[int, int], masked: str) -> None:
    q, k, v = draw(heads, 5, 5)
    mask = None
    if masked == "all examples":
        mask = torch.tril(torch.ones(5, 5, dtype=torch.bool))
    elif masked == "each example":
        mask = time_mask(5, 2, torch.tensor([True, False]), q.device)  # (2, 1, 5, 5)
    attention = Attention(8 * heads[0], *heads, soft_cap=None)
    found = attention._attend(q.unflatten(1, (heads[1], -1)), k, v, mask).flatten(1, 2)
    torch.testing.assert_close(found, reference(q, k, v, mask, None))


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("masked", [False, True])
def test_soft_cap_is_that_of_the_reference(heads: tuple[int, int], masked: bool) -> None:
    q, k, v = draw(heads, 4, 4, scale=3.0)
    mask = torch.tril(torch.ones(4, 4, dtype=torch.bool)) if masked else None
    grouped = q.unflatten(1, (heads[1], -1))  # (N, G, R, Lq, E)
    capped = Attention(8 * heads[0], *heads, soft_cap=2.0)._attend(grouped, k, v, mask).flatten(1, 2)
    torch.testing.assert_close(capped, reference(q, k, v, mask, 2.0))
    assert not torch.allclose(capped, reference(q, k, v, mask, None), atol=0.1)


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_both_paths_agree_on_whole_layers(
    heads: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tokens: Tokens
) -> None:
    layer, x = Attention(16, *heads, soft_cap=None), tokens(2, 5, 3)
    mask = TokenLayout({"a": 2, "b": 1}).visibility({"a": ["a"]})
    scope = TimeScope(separate=torch.tensor([False, True]), window=2)
    results = []
    for limit in (0, 10**9):
        monkeypatch.setattr(module, "MANUAL_LENGTH", limit)
        results.append((over_space(layer, x, mask), over_time(layer, x, scope)))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("over", ["space", "time"])
def test_whole_layer_is_that_of_the_reference(tokens: Tokens, over: str) -> None:
    layer, x = Attention(16, 4, 2, soft_cap=3.0), tokens(2, 3, 5)
    layer.logit_gain.data.fill_(1.7)
    found = over_space(layer, x, None) if over == "space" else over_time(layer, x, TimeScope())
    line = x if over == "space" else x.transpose(1, 2)  # (B, other, L, D), attention runs over L
    length = line.shape[2]
    heads = (line @ layer.qkv.weight.T).unflatten(-1, (2, 4, 4)).flatten(0, 1).permute(0, 2, 3, 1, 4)
    q, k, v = heads[:, :, :2].flatten(1, 2), heads[:, :, 2], heads[:, :, 3]  # (N, H, L, E), (N, G, L, E) twice
    table = rotary_table(0, length, 4, torch.device("cpu"))
    q, k = (rotate((part / part.square().mean(dim=-1, keepdim=True).sqrt()).detach(), table) for part in (q, k))
    mask = torch.ones(length, length, dtype=torch.bool)
    y = reference(1.7 * q, k, v, mask.tril() if over == "time" else mask, 3.0)  # (N, H, L, E)
    y = (y.transpose(1, 2).flatten(2) @ layer.out.weight.T).unflatten(0, line.shape[:2])
    torch.testing.assert_close(found, y if over == "space" else y.transpose(1, 2), atol=1e-5, rtol=1e-4)


def test_queries_and_keys_are_normalised(tokens: Tokens) -> None:
    layer, x = Attention(16, 2, 1, soft_cap=None), tokens(2, 4, 3)
    before = over_space(layer, x, None), over_time(layer, x, TimeScope())
    with torch.no_grad():
        layer.qkv.weight[:24] *= 7.0  # two query heads and one key head of width 8; the values follow
        after = over_space(layer, x, None), over_time(layer, x, TimeScope())
        torch.testing.assert_close(after, before, atol=1e-4, rtol=0)
        layer.qkv.weight[24:] *= 7.0
        torch.testing.assert_close(over_space(layer, x, None), 7 * before[0], atol=1e-4, rtol=1e-4)


def test_attention_depends_on_distances_not_on_places(tokens: Tokens) -> None:
    """Pitfall 19: QK-norm after RoPE (with gains) makes attention depend on where a step lies."""
    layer, x = Attention(16, 2, 1, soft_cap=None), tokens(1, 4, 1)
    cache, late = KVCache(1, 10), []
    for step in [torch.zeros_like(x[:, :1])] * 3 + list(torch.split(x, 1, dim=1)):
        if cache.count == 3:
            cache.forget(torch.tensor([True]))
        late.append(over_time(layer, step, TimeScope(cache=cache)))
        cache.advance(1)
    torch.testing.assert_close(torch.cat(late[3:], dim=1), over_time(layer, x, TimeScope()))


# ---------------------------------------------------------------- masks


def changed(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Which tokens (B, T, S) differ."""
    return ((before - after).abs() > 1e-5).any(dim=-1)


def test_space_mask_hides_tokens(stack: Stack, tokens: Tokens) -> None:
    layout = TokenLayout({"a": 2, "b": 2})
    mask, model, x = layout.visibility({"a": ["a"]}), stack(), tokens(2, 3, 4)
    other = x.clone()
    other[:, 1, 2:] += 1.0  # modality b of step 1, which a does not see
    moved = changed(model(x, mask, TimeScope()), model(other, mask, TimeScope()))
    assert not moved[:, :, :2].any()
    assert moved[:, 1:, 2:].all()
    assert changed(model(x, None, TimeScope()), model(other, None, TimeScope()))[:, 1, :2].all()


@pytest.mark.parametrize("step", range(5))
def test_time_is_causal(stack: Stack, tokens: Tokens, step: int) -> None:
    """Pitfall 19: perturbing the future changes nothing earlier."""
    model, x = stack(), tokens(2, 5, 3)
    other = x.clone()
    other[:, step] += 1.0
    moved = changed(model(x, None, TimeScope()), model(other, None, TimeScope()))
    assert not moved[:, :step].any()
    assert moved[:, step:].all()


@pytest.mark.parametrize("window", [0, 1, 3])
def test_window_of_one_time_layer(tokens: Tokens, window: int) -> None:
    layer, x = Attention(16, 4, 2, soft_cap=None), tokens(2, 6, 2)
    other = x.clone()
    other[:, 1] += 1.0
    scope = TimeScope(window=window)
    moved = changed(over_time(layer, x, scope), over_time(layer, other, scope))  # (B, T, S)
    reached = torch.tensor([1 <= step <= 1 + window for step in range(6)])
    assert torch.equal(moved, reached[None, :, None].expand_as(moved))


def test_tokens_do_not_mix_over_time(tokens: Tokens) -> None:
    layer, x = Attention(16, 4, 2, soft_cap=None), tokens(1, 4, 3)
    other = x.clone()
    other[:, 0, 1] += 1.0
    moved = changed(over_time(layer, x, TimeScope()), over_time(layer, other, TimeScope()))
    assert moved[:, :, 1].all()
    assert not moved[:, :, [0, 2]].any()


def test_steps_do_not_mix_over_space(tokens: Tokens) -> None:
    layer, x = Attention(16, 4, 2, soft_cap=None), tokens(1, 4, 3)
    other = x.clone()
    other[:, 2] += 1.0
    assert changed(over_space(layer, x, None), over_space(layer, other, None)).any(dim=-1).tolist() == [
        [False, False, True, False]
    ]


def test_separate_rows_are_single_images(exact: None, stack: Stack, tokens: Tokens) -> None:
    model, x = stack(), tokens(2, 4, 3)
    out = model(x, None, TimeScope(separate=torch.tensor([True, False])))
    alone = torch.cat([model(x[:1, step : step + 1], None, TimeScope()) for step in range(4)], dim=1)
    torch.testing.assert_close(out[:1], alone)
    torch.testing.assert_close(out[1:], model(x[1:], None, TimeScope()))
    assert not torch.allclose(out[1, 1:], model(x[1:], None, TimeScope(separate=torch.tensor([True])))[0, 1:])


def test_separate_rows_see_only_themselves(stack: Stack, tokens: Tokens) -> None:
    """Pitfall 5: image mode belongs to an example, not to the batch."""
    model, x = stack(), tokens(2, 4, 3)
    scope = TimeScope(separate=torch.tensor([True, False]))
    other = x.clone()
    other[:, 1] += 1.0
    moved = changed(model(x, None, scope), model(other, None, scope)).all(dim=-1)
    assert moved.tolist() == [[False, True, False, False], [False, True, True, True]]


def test_time_mask_by_hand() -> None:
    mask = time_mask(4, 1, torch.tensor([False, True]), torch.device("cpu"))
    assert mask.shape == (2, 1, 4, 4)
    assert mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert torch.equal(mask[1, 0], torch.eye(4, dtype=torch.bool))


def test_a_cache_has_its_own_window() -> None:
    for extra in ({"window": 2}, {"separate": torch.tensor([True])}):
        with pytest.raises(AssertionError, match="cache"):
            TimeScope(cache=KVCache(1, 3), **extra)
