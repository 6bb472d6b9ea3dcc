"""A frozen NVIDIA Cosmos continuous tokenizer, from the user's `encoder.jit` and `decoder.jit`.

TorchScript files are programs. Only the two files in the folder that `tokenizer.model.path` names are opened;
name no files that you would not run. An artifact made for them loads no others: it records their hashes.

Shapes: B batch, T frames, S stride, K latents (1 + ceil((T-1)/S)), H and W frame size, H' and W' canvas size,
h and w grid of the tokenizer, f fold, N = h*w/f^2 tokens, C = 16*f^2 channels.

What the files take and give (the first element where they give a tuple):

    CV  encoder (B, 3, 1+S(K-1), H', W') -> (B, 16, K, h, w), decoder the inverse; latent 0 is frame 0 alone
    CI  encoder (M, 3, H', W') -> (M, 16, h, w), decoder the inverse; each frame by itself

Decision: 32x32 tokens are many for the dynamics. They become fewer by folding neighbours into channels, which loses
nothing; averaging them is not offered, because what was averaged cannot be decoded.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ahriuwu_cli.core.errors import ArtifactError
from ahriuwu_cli.core.specs import FrameSpec, LatentSpec
from ahriuwu_cli.episodes.alignment import num_latents
from ahriuwu_cli.tokenizer.cosmos_canvas import Canvas, fold, unfold
from ahriuwu_cli.tokenizer.cosmos_config import CosmosModel
from ahriuwu_cli.tokenizer.cosmos_script import ScriptFile
from ahriuwu_cli.tokenizer.cosmos_stream import ClipDecodeStream, ClipEncodeStream
from ahriuwu_cli.tokenizer.frozen import FrozenTokenizer
from ahriuwu_cli.tokenizer.protocol import DecodeStream, EncodeStream

CHANNELS = 16
GEOMETRY = {"CV8x8x8": (8, 8), "CI8x8": (8, 1), "CI16x16": (16, 1)}
"""By kind: pixels a side of one place in the grid, and frames of one latent."""
CAUSAL_TOLERANCE = 0.01
"""Share of the largest value by which latent 0 may move when later frames change (rounding in bf16)."""


class CosmosTokenizer(FrozenTokenizer):
    """Frames through TorchScript files; latents are not bounded and are normalised by what `latents build` measures."""

    config: CosmosModel

    def __init__(self, config: CosmosModel, frame: FrameSpec) -> None:
        super().__init__(config, frame)
        pixels, stride = GEOMETRY[config.kind]
        resized = config.resize_height is not None and config.resize_width is not None
        image = (config.resize_height or 0, config.resize_width or 0) if resized else None
        self.canvas = Canvas.of(frame, image, pixels * config.fold)
        self.grid = (self.canvas.size[0] // pixels, self.canvas.size[1] // pixels)
        folded = "" if config.fold == 1 else f" folded by {config.fold}x{config.fold}"
        self.latent_spec = LatentSpec(
            num_tokens=self.grid[0] * self.grid[1] // config.fold**2,
            dim_token=CHANNELS * config.fold**2,
            layout=f"grid {self.grid[0]}x{self.grid[1]} of {config.kind}{folded}{self.canvas.note}",
            stride=stride,
        )
        folder = Path(config.path).expanduser()
        self.encoder, self.decoder = ScriptFile(folder / "encoder.jit"), ScriptFile(folder / "decoder.jit")

    def files(self) -> dict[str, str]:
        """SHA-256 of the two files."""
        return {script.path.name: script.sha256 for script in (self.encoder, self.decoder)}

    def encode(self, pixels: Tensor) -> Tensor:
        """pixels (B, T, 3, H, W) in [-1, 1] -> latents (B, K, N, C); the last one sees the last frame repeated."""
        if self.latent_spec.stride == 1:
            return self.encode_clip(pixels)
        stream = self.encode_stream()
        parts = [stream.encode(pixels), stream.finish()]
        return torch.cat([part for part in parts if part is not None], dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        """latents (B, K, N, C) -> pixels (B, 1+S(K-1), 3, H, W), not clamped."""
        return self.decode_clip(latents) if self.latent_spec.stride == 1 else self.decode_stream().decode(latents)

    def encode_stream(self) -> EncodeStream:
        """An encoder for frames that arrive in order; of video it gives a latent when its frames are complete."""
        config = self.config
        if self.latent_spec.stride == 1:
            return super().encode_stream()
        return ClipEncodeStream(self, self.encode_clip, config.clip_latents, config.clip_overlap)

    def decode_stream(self) -> DecodeStream:
        """A decoder for latents that arrive in order."""
        config = self.config
        if self.latent_spec.stride == 1:
            return super().decode_stream()
        return ClipDecodeStream(self, self.decode_clip, config.clip_latents, config.clip_overlap)

    def encode_clip(self, pixels: Tensor) -> Tensor:
        """One pass of the encoder: pixels (B, 1+S(K-1), 3, H, W) -> latents (B, K, N, C)."""
        batch, length = pixels.shape[:2]
        count = num_latents(length, self.latent_spec.stride)
        laid = self.canvas.lay(pixels.flatten(0, 1).float())  # (B*T, 3, H', W')
        if self.latent_spec.stride == 1:
            grid = self.encoder(laid)  # (B*T, 16, h, w)
            _require_shape(self.encoder, grid, (batch * length, CHANNELS, *self.grid), self.config.kind)
        else:
            video = laid.reshape(batch, length, *laid.shape[1:]).transpose(1, 2)  # (B, 3, T, H', W')
            grid = self.encoder(video)  # (B, 16, K, h, w)
            _require_shape(self.encoder, grid, (batch, CHANNELS, count, *self.grid), self.config.kind)
            grid = grid.transpose(1, 2).flatten(0, 1)
        return fold(grid, self.config.fold).reshape(batch, count, -1, self.latent_spec.dim_token)

    def decode_clip(self, latents: Tensor) -> Tensor:
        """One pass of the decoder: latents (B, K, N, C) -> pixels (B, 1+S(K-1), 3, H, W)."""
        batch, count = latents.shape[:2]
        length = 1 + self.latent_spec.stride * (count - 1)
        grid = unfold(latents.flatten(0, 1).float(), self.grid[0], self.config.fold)  # (B*K, 16, h, w)
        if self.latent_spec.stride == 1:
            laid = self.decoder(grid)  # (B*T, 3, H', W')
            _require_shape(self.decoder, laid, (batch * length, 3, *self.canvas.size), self.config.kind)
        else:
            video = self.decoder(grid.reshape(batch, count, *grid.shape[1:]).transpose(1, 2))  # (B, 3, T, H', W')
            _require_shape(self.decoder, video, (batch, 3, length, *self.canvas.size), self.config.kind)
            laid = video.transpose(1, 2).flatten(0, 1)
        return self.canvas.lift(laid).reshape(batch, length, 3, *self.canvas.frame)

    def check(self, pixels: Tensor) -> None:
        """Try both files on pixels (1, T, 3, H, W): shapes, finite values, and that latent 0 is of frame 0 alone.

        Raises:
            ArtifactError: something is not as the kind says.
        """
        stride = self.latent_spec.stride
        first, white = pixels[:, :1], torch.ones_like(pixels[:, :1]).expand(-1, stride, -1, -1, -1)
        one, two = (self.encode_clip(torch.cat([first, later], dim=1)) for later in (white, -white))
        decoded = self.decode_clip(one)
        for script, values in ((self.encoder, one), (self.decoder, decoded)):
            if not torch.isfinite(values).all():
                raise ArtifactError(
                    f"{script.path} gives values that are not finite",
                    hint="download the file again; if it is whole, try another device",
                )
        # Pitfall 34: were latent 0 of other frames too, every action after it would stand at the wrong place.
        moved, size = (one[:, 0] - two[:, 0]).abs().max(), one[:, 0].abs().max()
        if moved > CAUSAL_TOLERANCE * size:
            raise ArtifactError(
                f"{self.encoder.path} is not causal: latent 0 moves by {moved:.3g} when frames after frame 0 change "
                f"(its largest value is {size:.3g})",
                hint="tokenizer.model.kind must name what the files are; Cosmos tokenizers of video begin with CV",
            )


def _require_shape(script: ScriptFile, found: Tensor, wanted: tuple[int, ...], kind: str) -> None:
    """Refuse an output that is not what the kind of tokenizer gives."""
    if tuple(found.shape) != wanted:
        raise ArtifactError(
            f"{script.path} gives {tuple(found.shape)}; expected {wanted} of a {kind} tokenizer",
            hint="set tokenizer.model.kind to what the files are",
        )
