"""Floating-point operations of the work, counted from the sizes, not from what a kernel happens to do.

Counted: two operations for every weight of a matrix product and every token that goes through it, and four times
the width of the heads for every pair of a query and a key that it may see (scores and weighted values). Tokens that
a stack drops because nobody reads them are not counted where they are gone. Causal and windowed attention count the
visible pairs only; examples in image mode count as video. A backward pass counts as two forward passes, a bootstrap
target as two forward passes of its rows. Not counted: embeddings, products with fixed matrices, norms, softmax,
activations, loss, clipping, the optimiser, and what recomputation in the backward pass does again.

`usual_training` counts as papers do, for comparison: 6 x parameters x tokens, dropped or not, plus attention.

Shapes: B batch, T time steps, S tokens per step, P patches, L latent tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ahriuwu_cli.dynamics.model import DynamicsModel
from ahriuwu_cli.nn.transformer import Block, SpaceTimeTransformer
from ahriuwu_cli.tokenizer.protocol import Tokenizer
from ahriuwu_cli.tokenizer.transformer import TransformerTokenizer

TRAINING = 3
"""Forward passes that a forward and a backward pass count as."""


@dataclass(frozen=True)
class Cost:
    """What one forward pass must do: weights to read, operations to carry out."""

    weights: int
    flops: int

    def floor(self, peak: float, bandwidth: float, weight_bytes: int) -> float:
        """Seconds that it takes at the least: the weights read once, or the operations, whichever is longer."""
        return max(self.weights * weight_bytes / bandwidth, self.flops / peak)


def matrix_weights(*modules: nn.Module) -> int:
    """Weights that take part in matrix products: tensors of two or more dimensions."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters() if parameter.ndim >= 2)


def num_parameters(module: nn.Module) -> int:
    """All parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def past_pairs(length: int, window: int | None, past: int = 0) -> int:
    """Visible (query, key) pairs over time of one token: `length` steps after `past` earlier ones.

    Each step sees itself and the steps before it, at most `window` of them.
    """
    reach = past + length if window is None else window
    return sum(1 + min(step, reach) for step in range(past, past + length))


@dataclass(frozen=True)
class Tokens:
    """What goes through a stack of blocks.

    Attributes:
        frames: B * T.
        each: S.
        read: tokens of a step that are read in the end; the others leave after the last block over space.
        space_pairs: visible pairs within one step.
        time_pairs: visible pairs over time of one token, summed over the batch.
    """

    frames: int
    each: int
    read: int
    space_pairs: int
    time_pairs: int


def _stack(stack: SpaceTimeTransformer, dim: int, tokens: Tokens) -> tuple[int, int]:
    """Operations of a stack of width `dim`: of its weights, of its attention."""
    blocks = [block for block in stack.blocks if isinstance(block, Block)]
    last = max(index for index, block in enumerate(blocks) if block.space is not None)
    products = pairs = 0
    for index, block in enumerate(blocks):
        here = tokens.each if index <= last else tokens.read
        products += 2 * matrix_weights(block) * tokens.frames * here
        pairs += tokens.frames * tokens.space_pairs if block.space is not None else 0
        pairs += here * tokens.time_pairs if block.time is not None else 0
    return products, 4 * dim * pairs


# ---------------------------------------------------------------- dynamics


def dynamics_pass(model: DynamicsModel, batch: int, length: int, context_length: int | None = None) -> Cost:
    """One forward pass over (B, T) blocks without agent token; in a dream after `context_length` others or more."""
    products, attention = _stack(
        model.transformer, model.config.dim, _world_tokens(model, batch, length, context_length)
    )
    ends = matrix_weights(model.embed_latent, model.read_latent)
    products += 2 * ends * batch * length * model.latent.num_tokens
    return Cost(matrix_weights(model.transformer) + ends, products + attention)


def dynamics_training(model: DynamicsModel, batch: int, length: int, bootstrap_fraction: float) -> int:
    """Operations of one training step on (B, T) blocks."""
    return _with_bootstrap(lambda rows: dynamics_pass(model, rows, length).flops, batch, bootstrap_fraction)


def usual_training(model: DynamicsModel, batch: int, length: int, bootstrap_fraction: float) -> int:
    """The same counted as 2 x parameters x tokens and attention in a forward pass, all tokens everywhere."""

    def forward(rows: int) -> int:
        tokens = replace(_world_tokens(model, rows, length, None), read=model.slot.shape[0])
        _, attention = _stack(model.transformer, model.config.dim, tokens)
        return 2 * num_parameters(model) * tokens.frames * tokens.each + attention

    return _with_bootstrap(forward, batch, bootstrap_fraction)


def _world_tokens(model: DynamicsModel, batch: int, length: int, context_length: int | None) -> Tokens:
    each, pairs = model.slot.shape[0], past_pairs(length, context_length, context_length or 0)
    return Tokens(batch * length, each, model.latent.num_tokens, each**2, batch * pairs)


def _with_bootstrap(forward: Callable[[int], int], batch: int, fraction: float) -> int:
    """Operations of a training step whose forward pass of so many rows takes `forward(rows)`."""
    rows = math.ceil(batch * fraction)
    return TRAINING * forward(batch) + (2 * forward(rows) if rows else 0)


# ---------------------------------------------------------------- tokenizer


def encode_pass(tokenizer: Tokenizer, batch: int, length: int, past: int = 0) -> Cost:
    """Encoding (B, T) frames, after `past` ones in the stream."""
    if not isinstance(tokenizer, TransformerTokenizer):
        pixels = torch.zeros(batch, length, 3, tokenizer.frame.height, tokenizer.frame.width)
        return _counted(tokenizer.encode, pixels)
    patches, latents = _groups(tokenizer)
    seen = patches**2 + latents * (patches + latents)  # patches see patches, latents see all
    pairs = batch * past_pairs(length, tokenizer.config.context_length, past)
    tokens = Tokens(batch * length, patches + latents, latents, seen, pairs)
    products, attention = _stack(tokenizer.encoder, tokenizer.config.dim, tokens)
    products += 2 * tokens.frames * patches * matrix_weights(tokenizer.embed_patch)
    products += 2 * tokens.frames * latents * matrix_weights(tokenizer.to_bottleneck)
    weights = matrix_weights(tokenizer.encoder, tokenizer.embed_patch, tokenizer.to_bottleneck)
    return Cost(weights, products + attention)


def decode_pass(tokenizer: Tokenizer, batch: int, length: int, past: int = 0) -> Cost:
    """Decoding (B, T) frames, after `past` ones in the stream."""
    if not isinstance(tokenizer, TransformerTokenizer):
        spec = tokenizer.latent_spec
        return _counted(tokenizer.decode, torch.zeros(batch, length, spec.num_tokens, spec.dim_token))
    patches, latents = _groups(tokenizer)
    seen = patches * (patches + latents) + latents**2  # queries see all, latents see latents
    pairs = batch * past_pairs(length, tokenizer.config.context_length, past)
    tokens = Tokens(batch * length, patches + latents, patches, seen, pairs)
    products, attention = _stack(tokenizer.decoder, tokenizer.config.dim, tokens)
    products += 2 * tokens.frames * latents * matrix_weights(tokenizer.from_bottleneck)
    products += 2 * tokens.frames * patches * matrix_weights(tokenizer.read_patch)
    weights = matrix_weights(tokenizer.decoder, tokenizer.from_bottleneck, tokenizer.read_patch)
    return Cost(weights, products + attention)


def _groups(tokenizer: TransformerTokenizer) -> tuple[int, int]:
    """Patches and latent tokens of a frame."""
    slices = tokenizer.layout.slices
    return slices["patch"].stop - slices["patch"].start, slices["latent"].stop - slices["latent"].start


def tokenizer_training(tokenizer: Tokenizer, batch: int, length: int) -> int:
    """Operations of one training step on (B, T) frames, without LPIPS."""
    return TRAINING * (encode_pass(tokenizer, batch, length).flops + decode_pass(tokenizer, batch, length).flops)


@torch.no_grad()
def _counted(work: Callable[[Tensor], Tensor], given: Tensor) -> Cost:
    """For tokenizers whose layers are not known here: torch's own count of products and convolutions.

    Their weights, small beside the operations, are left out of the floor.
    """
    with FlopCounterMode(display=False) as counter:
        work(given)
    return Cost(0, int(counter.get_total_flops()))
