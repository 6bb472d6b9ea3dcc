"""The key/value cache: what it gives is what one full pass over the same steps gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.nn.attention import TimeScope
from ahriuwu_cli.nn.cache import KVCache
from ahriuwu_cli.nn.layout import TokenLayout
from ahriuwu_cli.nn.transformer import SpaceTimeTransformer

Tokens = Callable[..., torch.Tensor]
Stack = Callable[..., SpaceTimeTransformer]

pytestmark = pytest.mark.usefixtures("exact")

LENGTH, TOKENS = 9, 3
CLOSE = {"atol": 1e-10, "rtol": 1e-10}


def stepwise(
    model: SpaceTimeTransformer, x: torch.Tensor, cache: KVCache, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """x (B, T, S, D), one committed step at a time."""
    out = []
    for step in torch.split(x, 1, dim=1):
        out.append(model(step, mask, TimeScope(cache=cache)))
        cache.advance(1)
    return torch.cat(out, dim=1)


@pytest.mark.parametrize("soft_cap", [None, 2.0])
@pytest.mark.parametrize("context", [0, 1, 3, LENGTH - 1, 20])
def test_steps_equal_one_full_pass(stack: Stack, tokens: Tokens, context: int, soft_cap: float | None) -> None:
    """Pitfall 19: cached generation = full forward, within the context and past it."""
    model, x = stack(soft_cap), tokens(2, LENGTH, TOKENS)
    cached = stepwise(model, x, model.new_cache(context))
    torch.testing.assert_close(cached, model(x, None, TimeScope(window=context)), **CLOSE)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("given_first", [1, 7])
def test_in_every_precision(stack: Stack, tokens: Tokens, precision: str, given_first: int) -> None:
    """Pitfall 19: past the context, after more steps than it, a row anew, the cache errs no more than a full pass."""
    model, x, context = stack(2.0), tokens(3, LENGTH + 5, TOKENS), 3
    rows = torch.tensor([False, True, False])

    def cached(model: SpaceTimeTransformer, x: torch.Tensor) -> torch.Tensor:
        cache = model.new_cache(context)
        parts = [model(x[:, :given_first], None, TimeScope(cache=cache))]
        cache.advance(given_first)
        parts.append(stepwise(model, x[:, given_first:LENGTH], cache))
        cache.forget(rows)
        return torch.cat([*parts, stepwise(model, x[:, LENGTH:], cache)], dim=1)

    def full(model: SpaceTimeTransformer, x: torch.Tensor) -> torch.Tensor:
        whole = model(x, None, TimeScope(window=context))
        anew = model(x[rows, LENGTH:], None, TimeScope(window=context))
        return torch.where(
            rows[:, None, None, None], torch.cat([whole[:, :LENGTH], anew.expand(3, -1, -1, -1)], 1), whole
        )

    truth = full(model, x)
    torch.testing.assert_close(cached(model, x), truth, **CLOSE)
    model, x = model.float(), x.float()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        errors = [(path(model, x).double() - truth).square().mean().sqrt() for path in (cached, full)]
    assert 0 < errors[0] < 3 * errors[1]
    assert errors[1] < (1e-3 if precision == "fp32" else 0.3) * truth.square().mean().sqrt()


def test_every_step_gives_a_block_tensors_of_the_same_shapes(stack: Stack, tokens: Tokens) -> None:
    """What torch compiles for one step serves for all: whatever is full, and whoever began anew."""
    model, x, seen = stack(), tokens(2, 12, TOKENS), []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda block, args: seen[-1].append(_layouts(args)))
    cache = model.new_cache(3)
    for index, step in enumerate(torch.split(x, 1, dim=1)):
        seen.append([])
        if index == 7:
            cache.forget(torch.tensor([False, True]))
        model(step, None, TimeScope(cache=cache))
        cache.advance(1)
    assert all(layouts == seen[0] for layouts in seen)


def _layouts(found: object) -> object:
    if isinstance(found, torch.Tensor):
        return found.dtype, tuple(found.shape), found.stride()
    return [_layouts(part) for part in found] if isinstance(found, tuple) else found


def test_the_context_is_a_limit(stack: Stack, tokens: Tokens) -> None:
    model, x = stack(), tokens(1, LENGTH, TOKENS)
    short = stepwise(model, x, model.new_cache(2))
    whole = stepwise(model, x, model.new_cache(LENGTH))
    torch.testing.assert_close(short[:, :3], whole[:, :3], **CLOSE)
    assert ((short - whole)[:, 3:].abs().amax(dim=(0, 2, 3)) > 1e-3).all()


@pytest.mark.parametrize("given_first", [1, 2, 4, 5, 8])
@pytest.mark.parametrize("context", [1, 3, 20])
def test_prefill_then_steps(stack: Stack, tokens: Tokens, context: int, given_first: int) -> None:
    """Pitfall 19: cached generation = full forward, when several steps are given at once first."""
    model, x = stack(), tokens(2, LENGTH, TOKENS)
    cache = model.new_cache(context)
    first = model(x[:, :given_first], None, TimeScope(cache=cache))
    cache.advance(given_first)
    cached = torch.cat([first, stepwise(model, x[:, given_first:], cache)], dim=1)
    torch.testing.assert_close(cached, model(x, None, TimeScope(window=context)), **CLOSE)


@pytest.mark.parametrize("context", [1, 3, 20])
def test_uncommitted_passes_are_overwritten(stack: Stack, tokens: Tokens, context: int) -> None:
    """The Euler steps of the sampler run the same block again and again; only the committed pass counts."""
    model, x = stack(), tokens(2, LENGTH, TOKENS)
    cache, out = model.new_cache(context), []
    for index, step in enumerate(torch.split(x, 1, dim=1)):
        for trial in range(2):
            model(tokens(2, 1, TOKENS, seed=100 + 2 * index + trial), None, TimeScope(cache=cache))
        out.append(model(step, None, TimeScope(cache=cache)))
        cache.advance(1)
    torch.testing.assert_close(torch.cat(out, dim=1), model(x, None, TimeScope(window=context)), **CLOSE)


@pytest.mark.parametrize("given_first", [1, 4])
def test_a_pass_may_leave_out_the_last_token(stack: Stack, tokens: Tokens, given_first: int) -> None:
    """The sampler dreams without the agent token, which nothing sees, and commits with it."""
    model, x, context = stack(), tokens(2, LENGTH, TOKENS), 3
    mask = TokenLayout({"world": TOKENS - 1, "agent": 1}).visibility({"world": ["world"]})
    full = model(x, mask, TimeScope(window=context))
    cache = model.new_cache(context)
    model(x[:, :given_first], mask, TimeScope(cache=cache))
    cache.advance(given_first)
    for index in range(given_first, LENGTH):
        step = x[:, index : index + 1]
        without = model(step[:, :, :-1], None, TimeScope(cache=cache))
        torch.testing.assert_close(without, full[:, index : index + 1, :-1], **CLOSE)
        with_agent = model(step, mask, TimeScope(cache=cache))
        torch.testing.assert_close(with_agent, full[:, index : index + 1], **CLOSE)
        cache.advance(1)


@pytest.mark.parametrize("context", [0, 2, 20])
@pytest.mark.parametrize("at", [0, 1, 4, 7])
def test_forgotten_rows_begin_anew(stack: Stack, tokens: Tokens, context: int, at: int) -> None:
    model, x = stack(), tokens(3, LENGTH, TOKENS)
    cache = model.new_cache(context)
    before = stepwise(model, x[:, :at], cache) if at else x[:, :0]
    cache.forget(torch.tensor([False, True, False]))
    out = torch.cat([before, stepwise(model, x[:, at:], cache)], dim=1)
    others = model(x, None, TimeScope(window=context))
    torch.testing.assert_close(out[[0, 2]], others[[0, 2]], **CLOSE)
    fresh = model(x[1:2, at:], None, TimeScope(window=context))
    torch.testing.assert_close(out[1:2, at:], fresh, **CLOSE)


@given(
    ends=st.lists(st.tuples(st.integers(0, LENGTH - 1), st.integers(0, 2)), max_size=6),
    context=st.integers(0, 5),
)
def test_any_pattern_of_episode_ends(ends: list[tuple[int, int]], context: int) -> None:
    """Each row equals its episodes run one by one, whenever the other rows' episodes end."""
    cache = KVCache(1, context)
    numbers = torch.arange(float(LENGTH))
    for step in range(LENGTH):
        rows = torch.tensor([(step, row) in ends for row in range(3)])
        if rows.any():
            cache.forget(rows)
        value = numbers[step].expand(3, 1, 1, 1)
        past = cache.layer(0, value, rows=1, dim_head=1, dtype=value.dtype)
        keys, _ = past.update(*[value.transpose(0, 1)] * 2, cache.slots(1, value.device))  # (1, B, C+2, 1): steps
        mask = cache.visible(1, 3, keys.device)
        for row in range(3):
            begun = max([0, *(at for at, which in ends if which == row and at <= step)])
            seen = keys[0, row, :, 0][mask[row, 0, 0]]
            assert sorted(seen.tolist()) == list(range(max(begun, step - context), step + 1))
        cache.advance(1)


@pytest.mark.parametrize("context", [0, 1, 3, 20])
@pytest.mark.parametrize("forgetful", [False, True])
def test_two_steps_at_once_equal_one_full_pass(stack: Stack, tokens: Tokens, context: int, forgetful: bool) -> None:
    """Pitfall 19: a pass that commits one step and tries the next gives what separate passes give."""
    model, x = stack(), tokens(2, LENGTH, TOKENS)
    cache, at = model.new_cache(context), 4
    expected = model(x, None, TimeScope(window=context))
    for index in range(LENGTH - 1):
        if forgetful and index == at:
            cache.forget(torch.tensor([False, True]))
            fresh = model(x[1:, at:], None, TimeScope(window=context))
            expected = torch.cat([expected[:1], torch.cat([expected[1:, :at], fresh], dim=1)])
        both = model(x[:, index : index + 2], None, TimeScope(cache=cache))
        cache.advance(1)
        torch.testing.assert_close(both[:, :1], expected[:, index : index + 1], **CLOSE)
        if not (forgetful and index == at - 1):  # the next step was still tried with the past that is forgotten
            torch.testing.assert_close(both[:, 1:], expected[:, index + 1 : index + 2], **CLOSE)


def test_many_steps_only_fill_an_empty_cache(stack: Stack, tokens: Tokens) -> None:
    model, cache = stack(), KVCache(2, 3)
    stepwise(model, tokens(1, 1, TOKENS), cache)
    with pytest.raises(AssertionError, match="empty"):
        model(tokens(1, 3, TOKENS), None, TimeScope(cache=cache))


def test_memory_is_bounded(stack: Stack, tokens: Tokens) -> None:
    model = stack()
    cache = model.new_cache(3)
    stepwise(model, tokens(1, 12, TOKENS), cache)
    assert len(cache._layers) == 2
    for layer in cache._layers:
        assert layer.keys.shape[2] == 5
