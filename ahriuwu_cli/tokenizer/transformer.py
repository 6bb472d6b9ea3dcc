"""The block-causal transformer tokenizer with masked autoencoding ([D4] Sec. 3.1).

Shapes: B batch, T time steps, H and W frame size, P patches per frame (those of the padded frame), Q values per patch
(3 * patch^2), L bottleneck tokens (N_b), E bottleneck channels (D_b), N = N_z, C = D_z with L*E = N*C, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ahriuwu_cli.core.errors import ArtifactError
from ahriuwu_cli.core.specs import FrameSpec, LatentSpec
from ahriuwu_cli.nn.attention import TimeScope
from ahriuwu_cli.nn.cache import KVCache
from ahriuwu_cli.nn.layout import TokenLayout
from ahriuwu_cli.nn.transformer import INIT_STD, SpaceTimeTransformer
from ahriuwu_cli.tokenizer.anchor import Anchor
from ahriuwu_cli.tokenizer.config import TransformerModel
from ahriuwu_cli.tokenizer.padding import Padding
from ahriuwu_cli.tokenizer.positions import initial_slots
from ahriuwu_cli.tokenizer.protocol import DecodeStream, EncodeStream, Tokenizer


class TransformerTokenizer(Tokenizer):
    """Encoder: patches and latent tokens; decoder: latents and patch queries; both causal in time."""

    config: TransformerModel
    encoder_mask: Tensor
    decoder_mask: Tensor

    def __init__(self, config: TransformerModel, frame: FrameSpec) -> None:
        super().__init__(config, frame)
        self.padding = Padding.of(frame, config.patch)
        num_patches, values = self.padding.grid[0] * self.padding.grid[1], 3 * config.patch**2
        dim_token = config.num_bottleneck * config.dim_bottleneck // config.num_tokens
        bottleneck = f"{config.num_bottleneck}x{config.dim_bottleneck}"
        self.latent_spec = LatentSpec(
            num_tokens=config.num_tokens,
            dim_token=dim_token,
            layout=f"bottleneck {bottleneck} folded to {config.num_tokens}x{dim_token}{self.padding.note}",
            bound=1.0,
        )
        dim = config.dim
        self.layout = TokenLayout({"patch": num_patches, "latent": config.num_bottleneck})
        self.embed_patch = nn.Linear(values, dim)
        self.mask_embedding = nn.Parameter(torch.randn(dim) * INIT_STD)
        self.anchor = Anchor(self.padding.grid, config.num_bottleneck, dim) if config.anchored else None
        self.encoder_slot = nn.Parameter(
            initial_slots(config, self.padding.grid, config.position_std, config.query_std)  # (P+L, D)
        )
        self.decoder_slot = nn.Parameter(
            initial_slots(config, self.padding.grid, config.query_std, config.position_std)  # (P+L, D)
        )
        self.encoder = _stack(config, config.num_encoder_layers)
        self.decoder = _stack(config, config.num_decoder_layers)
        self.to_bottleneck = nn.Linear(dim, config.dim_bottleneck)
        self.from_bottleneck = nn.Linear(config.dim_bottleneck, dim)
        self.read_patch = nn.Linear(dim, values)
        # Encoder: latents see all, patches only patches. Decoder: queries see all, latents only latents.
        self.register_buffer("encoder_mask", self.layout.visibility({"patch": ["patch"]}), persistent=False)
        self.register_buffer("decoder_mask", self.layout.visibility({"latent": ["latent"]}), persistent=False)

    def encode_stream(self) -> EncodeStream:
        """An encoder that carries the keys and values of past frames along."""
        return CausalEncodeStream(self)

    def decode_stream(self) -> DecodeStream:
        """A decoder that carries the keys and values of past latents along."""
        return CausalDecodeStream(self)

    def encode(self, pixels: Tensor) -> Tensor:
        """pixels (B, T, 3, H, W) in [-1, 1] -> latents (B, T, N, C) in [-1, 1]."""
        return self.encode_patches(self.embed_patch(self._patchify(pixels)), self._window())

    def encode_cached(self, pixels: Tensor, cache: KVCache) -> Tensor:
        """The same for frames that follow those in the cache: one, or several into an empty cache."""
        latents = self.encode_patches(self.embed_patch(self._patchify(pixels)), TimeScope(cache=cache))
        cache.advance(pixels.shape[1])
        return latents

    def encode_for_training(self, pixels: Tensor, step: int) -> Tensor:
        """Latents of partly masked patches: p ~ U(0, mask_limit) per image, each patch masked with probability p."""
        patches = self.embed_patch(self._patchify(pixels))  # (B, T, P, D)
        share = torch.rand(*patches.shape[:2], 1, 1, device=patches.device) * mask_limit(self.config, step)
        masked = torch.rand(*patches.shape[:3], 1, device=patches.device) < share
        patches = torch.where(masked, self.mask_embedding.to(patches.dtype), patches)
        return self.encode_patches(patches, self._window())

    def encode_patches(self, patches: Tensor, scope: TimeScope) -> Tensor:
        """Embedded patches (B, T, P, D) -> latents (B, T, N, C)."""
        latents = patches.new_zeros(*patches.shape[:2], self.config.num_bottleneck, patches.shape[-1])
        if self.anchor is not None:
            latents = self.anchor.gather(patches)  # (B, T, L, D)
        x = torch.cat([patches, latents], dim=2) + self.encoder_slot
        y = self.encoder(x, self.encoder_mask, scope, [self.layout.slices["latent"]])  # (B, T, L, D)
        return self.fold(torch.tanh(self.to_bottleneck(y).float()))

    def decode(self, latents: Tensor) -> Tensor:
        """latents (B, T, N, C) -> pixels (B, T, 3, H, W)."""
        return self._decode(latents, self._window())

    def decode_cached(self, latents: Tensor, cache: KVCache) -> Tensor:
        """The same for latents that follow those in the cache: of one frame, or of several into an empty cache."""
        pixels = self._decode(latents, TimeScope(cache=cache))
        cache.advance(latents.shape[1])
        return pixels

    def fold(self, bottleneck: Tensor) -> Tensor:
        """The bottleneck (B, T, L, E) as the tokens that the dynamics take (B, T, N, C), in the same order."""
        return bottleneck.reshape(*bottleneck.shape[:2], self.latent_spec.num_tokens, self.latent_spec.dim_token)

    def unfold(self, latents: Tensor) -> Tensor:
        """Inverse of `fold`: latents (B, T, N, C) -> (B, T, L, E).

        Raises:
            ArtifactError: the latents are laid out otherwise.
        """
        wanted = (self.latent_spec.num_tokens, self.latent_spec.dim_token)
        if tuple(latents.shape[2:]) != wanted:
            found = " x ".join(str(size) for size in latents.shape[2:])
            raise ArtifactError(
                f"latents of {found} are not those of this tokenizer: {wanted[0]} x {wanted[1]} "
                f"({self.latent_spec.layout})",
                hint="decode latents with the tokenizer that made them",
            )
        return latents.reshape(*latents.shape[:2], self.config.num_bottleneck, self.config.dim_bottleneck)

    def _decode(self, latents: Tensor, scope: TimeScope) -> Tensor:
        """latents (B, T, N, C) -> pixels (B, T, 3, H, W)."""
        up = self.from_bottleneck(self.unfold(latents))  # (B, T, L, D)
        queries = up.new_zeros(*up.shape[:2], self.layout.slices["latent"].start, up.shape[-1])
        if self.anchor is not None:
            queries = self.anchor.scatter(up)  # (B, T, P, D)
        x = torch.cat([queries, up], dim=2) + self.decoder_slot
        y = self.decoder(x, self.decoder_mask, scope, [self.layout.slices["patch"]])  # (B, T, P, D)
        return self._unpatchify(self.read_patch(y).float())

    def _window(self) -> TimeScope:
        """What time layers see of frames that come all at once."""
        return TimeScope(window=self.config.context_length)

    def _patchify(self, pixels: Tensor) -> Tensor:
        """pixels (B, T, 3, H, W) -> (B, T, P, Q), row by row of the padded frame."""
        values = F.pixel_unshuffle(self.padding.pad(pixels).flatten(0, 1), self.config.patch)  # (B*T, Q, h, w)
        return values.flatten(2).transpose(1, 2).reshape(*pixels.shape[:2], -1, values.shape[1])

    def _unpatchify(self, patches: Tensor) -> Tensor:
        """patches (B, T, P, Q) -> pixels (B, T, 3, H, W)."""
        values = patches.flatten(0, 1).transpose(1, 2)  # (B*T, Q, P)
        values = values.reshape(-1, patches.shape[-1], *self.padding.grid)  # (B*T, Q, h, w)
        pixels = F.pixel_shuffle(values, self.config.patch)  # (B*T, 3, H', W')
        return self.padding.crop(pixels.reshape(*patches.shape[:2], *pixels.shape[1:]))


class CausalEncodeStream(EncodeStream):
    """Frame by frame with a cache; equal to one full pass."""

    tokenizer: TransformerTokenizer

    def __init__(self, tokenizer: TransformerTokenizer) -> None:
        super().__init__(tokenizer)
        self.cache = tokenizer.encoder.new_cache(tokenizer.config.context_length)

    def encode(self, pixels: Tensor) -> Tensor:
        """The next frames, pixels (B, T, 3, H, W) -> latents (B, T, N, C)."""
        if self.cache.count == 0:
            return self.tokenizer.encode_cached(pixels, self.cache)
        parts = [self.tokenizer.encode_cached(frame, self.cache) for frame in torch.split(pixels, 1, dim=1)]
        return torch.cat(parts, dim=1)

    def forget(self, rows: Tensor) -> None:
        """Rows (B,) where True begin a new episode with the next frame."""
        self.cache.forget(rows)


class CausalDecodeStream(DecodeStream):
    """Frame by frame with a cache; equal to one full pass."""

    tokenizer: TransformerTokenizer

    def __init__(self, tokenizer: TransformerTokenizer) -> None:
        super().__init__(tokenizer)
        self.cache = tokenizer.decoder.new_cache(tokenizer.config.context_length)

    def decode(self, latents: Tensor) -> Tensor:
        """The next latents (B, T, N, C) -> pixels (B, T, 3, H, W)."""
        if self.cache.count == 0:
            return self.tokenizer.decode_cached(latents, self.cache)
        parts = [self.tokenizer.decode_cached(frame, self.cache) for frame in torch.split(latents, 1, dim=1)]
        return torch.cat(parts, dim=1)

    def forget(self, rows: Tensor) -> None:
        """Rows (B,) where True begin a new episode with the next latent."""
        self.cache.forget(rows)


def mask_limit(config: TransformerModel, step: int) -> float:
    """The largest p of a training step: 0 at first, then growing to mask_max over the warm-up."""
    since = step - config.mask_start_steps
    if since < 0:
        return 0.0
    return config.mask_max * (min(1.0, since / config.mask_warmup_steps) if config.mask_warmup_steps else 1.0)


def _stack(config: TransformerModel, num_layers: int) -> SpaceTimeTransformer:
    return SpaceTimeTransformer(
        config.dim, num_layers, config.num_heads, config.num_kv_heads, config.time_every, config.soft_cap
    )
