"""The block-causal transformer tokenizer with masked autoencoding ([D4] Sec. 3.1).

Shapes: B batch, T time steps, P patches per frame, Q values per patch (3 * patch^2), L bottleneck tokens (N_b),
E bottleneck channels (D_b), N = N_z, C = D_z with L*E = N*C, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.specs import FrameSpec, LatentSpec
from ahriuwu_cli.nn.attention import TimeScope
from ahriuwu_cli.nn.cache import KVCache
from ahriuwu_cli.nn.layout import TokenLayout
from ahriuwu_cli.nn.transformer import INIT_STD, SpaceTimeTransformer
from ahriuwu_cli.tokenizer.config import TransformerModel
from ahriuwu_cli.tokenizer.protocol import EncodeStream, Tokenizer


class TransformerTokenizer(Tokenizer):
    """Encoder: patches and latent tokens; decoder: latents and learned patch queries; both causal in time."""

    config: TransformerModel
    encoder_mask: Tensor
    decoder_mask: Tensor

    def __init__(self, config: TransformerModel, frame: FrameSpec) -> None:
        super().__init__(config, frame)
        if frame.height % config.patch or frame.width % config.patch:
            raise ConfigError(
                f"frame size {frame.height}x{frame.width} is not divisible by tokenizer.model.patch {config.patch}",
                hint="change data.height and data.width to multiples of the patch, or choose another patch",
            )
        self.grid = (frame.height // config.patch, frame.width // config.patch)
        num_patches, values = self.grid[0] * self.grid[1], 3 * config.patch**2
        dim_token = config.num_bottleneck * config.dim_bottleneck // config.num_tokens
        bottleneck = f"{config.num_bottleneck}x{config.dim_bottleneck}"
        self.latent_spec = LatentSpec(
            num_tokens=config.num_tokens,
            dim_token=dim_token,
            layout=f"bottleneck {bottleneck} folded to {config.num_tokens}x{dim_token}",
            bound=1.0,
        )
        dim = config.dim
        sizes = {"patch": num_patches, "latent": config.num_bottleneck}
        self.layout = TokenLayout(sizes)
        self.embed_patch = nn.Linear(values, dim)
        self.mask_embedding = nn.Parameter(torch.randn(dim) * INIT_STD)
        self.encoder_slot = nn.Parameter(torch.randn(self.layout.num_tokens, dim) * INIT_STD)
        self.decoder_slot = nn.Parameter(torch.randn(self.layout.num_tokens, dim) * INIT_STD)
        self.encoder = _stack(config, config.num_encoder_layers)
        self.decoder = _stack(config, config.num_decoder_layers)
        self.to_bottleneck = nn.Linear(dim, config.dim_bottleneck)
        self.from_bottleneck = nn.Linear(config.dim_bottleneck, dim)
        self.read_patch = nn.Linear(dim, values)
        # Encoder: latents see all, patches only patches. Decoder: queries see all, latents only latents.
        self.register_buffer("encoder_mask", self.layout.visibility({"patch": ["patch"]}), persistent=False)
        self.register_buffer("decoder_mask", self.layout.visibility({"latent": ["latent"]}), persistent=False)

    def stream(self) -> EncodeStream:
        """An encoder that carries the keys and values of past frames along."""
        return CausalStream(self)

    def encode(self, pixels: Tensor) -> Tensor:
        """pixels (B, T, 3, H, W) in [-1, 1] -> latents (B, T, N, C) in [-1, 1]."""
        return self.encode_patches(self.embed_patch(self._patchify(pixels)), self._window())

    def encode_cached(self, pixels: Tensor, cache: KVCache) -> Tensor:
        """The same for frames that follow those in the cache: one, or several into an empty cache."""
        latents = self.encode_patches(self.embed_patch(self._patchify(pixels)), TimeScope(cache=cache))
        cache.advance(pixels.shape[1])
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """latents (B, T, N, C) -> pixels (B, T, 3, H, W)."""
        config = self.config
        bottleneck = latents.reshape(*latents.shape[:2], config.num_bottleneck, config.dim_bottleneck)  # (B, T, L, E)
        up = self.from_bottleneck(bottleneck)  # (B, T, L, D)
        queries = up.new_zeros(*up.shape[:2], self.layout.slices["latent"].start, up.shape[-1])
        x = torch.cat([queries, up], dim=2) + self.decoder_slot
        y = self.decoder(x, self.decoder_mask, self._window())
        return self._unpatchify(self.read_patch(y[:, :, self.layout.slices["patch"]]).float())

    def reconstruct_for_training(self, pixels: Tensor, step: int) -> Tensor:
        """Reconstruct from partly masked patches: p ~ U(0, mask_max) per image, growing over the warm-up."""
        patches = self.embed_patch(self._patchify(pixels))  # (B, T, P, D)
        warmup = self.config.mask_warmup_steps
        limit = self.config.mask_max * (min(1.0, step / warmup) if warmup else 1.0)
        share = torch.rand(*patches.shape[:2], 1, 1, device=patches.device) * limit
        masked = torch.rand(*patches.shape[:3], 1, device=patches.device) < share
        patches = torch.where(masked, self.mask_embedding.to(patches.dtype), patches)
        return self.decode(self.encode_patches(patches, self._window()))

    def encode_patches(self, patches: Tensor, scope: TimeScope) -> Tensor:
        """Embedded patches (B, T, P, D) -> latents (B, T, N, C)."""
        latents = patches.new_zeros(*patches.shape[:2], self.config.num_bottleneck, patches.shape[-1])
        x = torch.cat([patches, latents], dim=2) + self.encoder_slot
        y = self.encoder(x, self.encoder_mask, scope)[:, :, self.layout.slices["latent"]]
        bottleneck = torch.tanh(self.to_bottleneck(y).float())  # (B, T, L, E)
        return bottleneck.reshape(*patches.shape[:2], self.latent_spec.num_tokens, self.latent_spec.dim_token)

    def _window(self) -> TimeScope:
        """What time layers see of frames that come all at once."""
        return TimeScope(window=self.config.context_length)

    def _patchify(self, pixels: Tensor) -> Tensor:
        """pixels (B, T, 3, H, W) -> (B, T, P, Q)."""
        values = F.pixel_unshuffle(pixels.flatten(0, 1), self.config.patch)  # (B*T, Q, h, w)
        return values.flatten(2).transpose(1, 2).reshape(*pixels.shape[:2], -1, values.shape[1])

    def _unpatchify(self, patches: Tensor) -> Tensor:
        """patches (B, T, P, Q) -> pixels (B, T, 3, H, W)."""
        values = patches.flatten(0, 1).transpose(1, 2).reshape(-1, patches.shape[-1], *self.grid)  # (B*T, Q, h, w)
        pixels = F.pixel_shuffle(values, self.config.patch)  # (B*T, 3, H, W)
        return pixels.reshape(*patches.shape[:2], *pixels.shape[1:])


class CausalStream(EncodeStream):
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


def _stack(config: TransformerModel, num_layers: int) -> SpaceTimeTransformer:
    return SpaceTimeTransformer(
        config.dim, num_layers, config.num_heads, config.num_kv_heads, config.time_every, config.soft_cap
    )
