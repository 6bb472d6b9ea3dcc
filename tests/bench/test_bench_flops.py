"""Operations worked out by hand for a small case, and held against torch's own count of what was computed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from ahriuwu_cli.bench.dynamics import build_dynamics, given_batch
from ahriuwu_cli.bench.flops import (
    Cost,
    decode_pass,
    dynamics_pass,
    dynamics_training,
    encode_pass,
    matrix_weights,
    num_parameters,
    past_pairs,
    tokenizer_training,
    usual_training,
)
from ahriuwu_cli.bench.tokenizer import build_tokenizer, given_frames
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.dynamics.train import dynamics_loss
from ahriuwu_cli.tokenizer.protocol import to_pixels

TAU_CONTEXT = 0.9  # signal level of past frames


def counted(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


# ---------------------------------------------------------------- by hand

# The minuscule dynamics: D = 16, 2 heads of 8, 1 key head, feed 24, k_max 8; a block over space, then one over time.
# Tokens of a step: 1 action, 1 signal, 3 latents of 2 channels, 1 register: S = 6, of which the latents are read.
ATTENTION = 16 * (2 + 2 * 1) * 8 + 16 * 16  # queries, keys, values; output
FEED = 3 * 16 * 24
BLOCK = ATTENTION + FEED
ENDS = 2 * 16 + 16 * 2  # latents in and out
TABLES = 8 * 8 + 4 * 8 + 6 * 16 + (1 + 3) * 16  # tau, d, slots, the learned action and its three choices
VECTORS = 16 + 2 + 2  # biases of the ends, a logit gain per layer


def test_parameters_by_hand(minuscule) -> None:
    model = build_dynamics(minuscule())
    assert matrix_weights(model.transformer) == 2 * BLOCK
    assert matrix_weights(model.embed_latent, model.read_latent) == ENDS
    assert num_parameters(model) == 2 * BLOCK + ENDS + TABLES + VECTORS


def test_a_pass_by_hand(minuscule) -> None:
    model = build_dynamics(minuscule())
    frames = 3 * 4
    products = 2 * frames * (BLOCK * 6 + BLOCK * 3 + ENDS * 3)  # registers and the like leave before the second block
    space = 4 * 16 * frames * 6**2
    time = 4 * 16 * 3 * 3 * (1 + 2 + 3 + 4)
    assert dynamics_pass(model, 3, 4) == Cost(2 * BLOCK + ENDS, products + space + time)
    # One row of three bootstraps: two more forward passes of it.
    one = dynamics_pass(model, 1, 4).flops
    assert dynamics_training(model, 3, 4, 0.25) == 3 * (products + space + time) + 2 * one
    assert dynamics_training(model, 3, 4, 0.0) == 3 * (products + space + time)


def test_the_usual_count_by_hand(minuscule) -> None:
    model = build_dynamics(minuscule())
    attention = 4 * 16 * 3 * (4 * 6**2 + 6 * (1 + 2 + 3 + 4))
    forward = 2 * num_parameters(model) * 3 * 4 * 6 + attention
    assert usual_training(model, 3, 4, 0.0) == 3 * forward
    assert usual_training(model, 3, 4, 0.25) == 3 * forward + 2 * forward // 3


def test_a_cached_pass_by_hand(minuscule) -> None:
    model = build_dynamics(minuscule())
    products = 2 * (BLOCK * 6 + BLOCK * 3 + ENDS * 3)
    assert dynamics_pass(model, 1, 1, context_length=3).flops == products + 4 * 16 * 6**2 + 4 * 16 * 3 * 4


def test_the_reference_has_about_nine_million_parameters() -> None:
    from ahriuwu_cli.bench.config import BenchConfig

    model = build_dynamics(BenchConfig())
    assert 9.0e6 < num_parameters(model) < 9.4e6
    usual, tokens = usual_training(model, 4, 32, 0.0), 4 * 32 * 22
    assert 6 * num_parameters(model) * tokens < usual < 6 * num_parameters(model) * tokens * 1.02
    # The last of eight blocks goes over 16 of the 22 tokens.
    assert dynamics_training(model, 4, 32, 0.0) == pytest.approx(usual * (1 - 6 / 22 / 8), rel=0.01)


@given(st.integers(1, 12), st.integers(0, 12) | st.none(), st.integers(0, 12))
def test_pairs_over_time(length, window, past) -> None:
    seen = 0
    for query in range(past, past + length):
        for key in range(query + 1):
            seen += window is None or query - key <= window
    assert past_pairs(length, window, past) == seen


def test_floor() -> None:
    assert Cost(100, 1000).floor(peak=10.0, bandwidth=50.0, weight_bytes=4) == 100
    assert Cost(100, 1000).floor(peak=1000.0, bandwidth=50.0, weight_bytes=4) == 8
    assert Cost(100, 1000).floor(peak=1000.0, bandwidth=50.0, weight_bytes=2) == 4


# ---------------------------------------------------------------- as computed


@pytest.mark.parametrize("time_every", [1, 2])
def test_a_pass_over_one_block_is_what_torch_counts(minuscule, time_every) -> None:
    """Nothing is hidden from anything there, so the two counts agree to the last operation."""
    model = build_dynamics(minuscule(f"dynamics.model.time_every={time_every}"))
    batch = given_batch(minuscule(), 2, 1)
    level, size = torch.zeros(2, 1), torch.full((2, 1), 1 / 8)
    found = counted(lambda: model(batch.latents, level, size, batch.action, batch.action_valid))
    assert found == dynamics_pass(model, 2, 1).flops


def test_a_dream_s_frame_is_what_torch_counts(minuscule) -> None:
    """K denoised blocks and the one that becomes the past, but for a slot of the cache that is written and hidden."""
    from ahriuwu_cli.bench.dream import DecodedDream
    from ahriuwu_cli.bench.sampler import frame_costs

    config = minuscule()
    world = DecodedDream(config, Runtime(torch.device("cpu"), "fp32"))
    costs = frame_costs(config, world)
    for _ in range(3):
        world.frame()
    assert len(costs.passes) in (config.sampler.steps, config.sampler.steps + 1)
    assert sum(costs.blocks) == config.sampler.steps + 1
    assert costs.dream_flops == (config.sampler.steps + 1) * costs.passes[-1].flops
    unseen = 4 * 16 * 3 * sum(costs.blocks)  # one pair for each token
    assert costs.dream_flops <= counted(world.dream) <= costs.dream_flops + unseen
    found = counted(world.decode)
    slot = 4 * 16 * 4  # one that is written and hidden, for each patch
    assert costs.decode.flops <= found <= costs.decode.flops + hidden(config.tokenizer.model, 1, 4) + slot


def test_a_training_step_is_what_torch_counts(minuscule) -> None:
    """But for pairs that are computed and then hidden, and for gradients of inputs that do not learn."""
    config = minuscule()
    model = build_dynamics(config)
    batch, objective = given_batch(config, 3, 4), config.dynamics.objective

    def step() -> None:
        dynamics_loss(model, batch, objective, TAU_CONTEXT)[0].backward()

    found = counted(step)
    formula = dynamics_training(model, 3, 4, 0.25)
    unseen = 4 * 16 * 3 * (4 * 4 - (1 + 2 + 3 + 4))  # of one row, one pass
    inputs = 2 * 2 * 16 * 3 * 3 * 4
    assert formula - inputs <= found <= formula + (3 * 3 + 2) * unseen


def hidden(model, frames: int, patches: int) -> int:
    """Operations of a minuscule tokenizer's pass that are not counted: hidden pairs, and a fixed matrix."""
    latents = model.num_bottleneck
    return (4 + 2) * model.dim * frames * patches * latents


def test_tokenizer_passes_are_what_torch_counts(minuscule) -> None:
    config = minuscule()
    tokenizer = build_tokenizer(config, config.tokenizer.model).eval()
    pixels = to_pixels(given_frames(config, 2, 1))
    latents = tokenizer.encode(pixels)
    slack = hidden(tokenizer.config, 2, 4)
    encode, decode = encode_pass(tokenizer, 2, 1).flops, decode_pass(tokenizer, 2, 1).flops
    assert encode <= counted(lambda: tokenizer.encode(pixels)) <= encode + slack
    assert decode <= counted(lambda: tokenizer.decode(latents)) <= decode + slack
    assert tokenizer_training(tokenizer, 2, 1) == 3 * (encode + decode)


def test_a_tokenizer_pass_by_hand(minuscule) -> None:
    config = minuscule()
    tokenizer = build_tokenizer(config, config.tokenizer.model)
    # D = 16, 2 heads of 8, 1 key head, feed 8/3 D rounded up to 64; 4 patches of 192 values, 3 latents of 2 channels.
    stack = 2 * (16 * (2 + 2) * 8 + 16 * 16 + 3 * 16 * 64)
    assert matrix_weights(tokenizer.encoder) == matrix_weights(tokenizer.decoder) == stack
    over_time = 1 + 2 + 3 + 3  # four frames, each with at most two behind it
    ends = 192 * 16 * 4 + 16 * 2 * 3
    for found, read, space in (
        (encode_pass(tokenizer, 1, 4), 3, 4 * 4 + 3 * 7),  # latents are read; they see all, patches see patches
        (decode_pass(tokenizer, 1, 4), 4, 4 * 7 + 3 * 3),
    ):
        products = 2 * 4 * (stack // 2 * (7 + read) + ends)
        assert found.flops == products + 4 * 16 * (4 * space + read * over_time)
