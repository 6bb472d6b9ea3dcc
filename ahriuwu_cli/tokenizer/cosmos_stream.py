"""Long videos through a tokenizer that takes whole clips: bounded passes that see some of the past once more.

Shapes: B batch, T frames, S stride, K latents, N tokens, C channels, H and W frame size.

A TorchScript module keeps no past, and an episode may have ten thousand frames. So a pass covers `length` latents
after its first and the next pass begins `length - overlap` latents later; of what it sees again nothing is given out
a second time:

    latents        0 1 2 3 4 5 6 7 8 9 10 ...        length 6, overlap 2
    pass 0        [0 1 2 3 4 5 6]
    pass 1                [4 . . 7 8 9 10]           . are computed again for context and dropped

Where passes begin is counted from the start of the stream, so a stream gives the same latents however its input is
cut into pieces (the module is causal: a pass that is not full yet already gives its first latents).

Decision: at the first frame of a later pass the module believes that a video begins there. What comes first after it
is dropped, and `overlap` says how much; a tokenizer that looks back no further than that gives what one pass over
everything would give.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ahriuwu_cli.tokenizer.protocol import DecodeStream, EncodeStream, Tokenizer

Pass = Callable[[Tensor], Tensor]


class ClipEncodeStream(EncodeStream):
    """Frames in, latents out as they become complete.

    Args:
        tokenizer: gives the stride and the layout.
        encode_clip: one pass, pixels (B, 1+S(K-1), 3, H, W) -> latents (B, K, N, C).
        length: latents of a pass after its first.
        overlap: how many of them the next pass sees again, below `length`.
    """

    def __init__(self, tokenizer: Tokenizer, encode_clip: Pass, length: int, overlap: int) -> None:
        super().__init__(tokenizer)
        self._pass, self._length, self._overlap = encode_clip, length, overlap
        self._stride = tokenizer.latent_spec.stride
        self._frames: Tensor | None = None  # (B, ., 3, H, W), from the first frame of the pass on
        self._given = 0  # latents of this pass that were given out

    def encode(self, pixels: Tensor) -> Tensor:
        """The next frames, pixels (B, T, 3, H, W) -> the latents (B, K, N, C) they complete, K = 0 when none."""
        frames = pixels if self._frames is None else torch.cat([self._frames, pixels], dim=1)
        spec = self.tokenizer.latent_spec
        parts = [pixels.new_zeros(len(pixels), 0, spec.num_tokens, spec.dim_token)]
        while frames.shape[1]:
            complete = 1 + (min(frames.shape[1] - 1, self._stride * self._length)) // self._stride
            if complete > self._given:
                latents = self._pass(frames[:, : 1 + self._stride * (complete - 1)])
                parts.append(latents[:, self._given :])
                self._given = complete
            if complete <= self._length:
                break
            frames = frames[:, self._stride * (self._length - self._overlap) :]
            self._given = 1 + self._overlap
        self._frames = frames
        return torch.cat(parts, dim=1)

    def finish(self) -> Tensor | None:
        """The latent (B, 1, N, C) of frames that wait for others, the last one repeated; None when none wait."""
        if self._frames is None or (self._frames.shape[1] - 1) % self._stride == 0:
            return None
        missing = -(self._frames.shape[1] - 1) % self._stride
        return self.encode(self._frames[:, -1:].expand(-1, missing, -1, -1, -1))

    def forget(self, rows: Tensor) -> None:
        """Begin anew; only all rows together, for rows of one stream stay in step."""
        assert rows.all() or not rows.any(), "rows of a stream with a stride begin their episodes together"
        if rows.any():
            self._frames, self._given = None, 0


class ClipDecodeStream(DecodeStream):
    """Latents in, their frames out.

    Args:
        tokenizer: gives the stride.
        decode_clip: one pass, latents (B, K, N, C) -> pixels (B, 1+S(K-1), 3, H, W).
        length: latents of a pass after its first.
        overlap: how many of them the next pass sees again, below `length`.
    """

    def __init__(self, tokenizer: Tokenizer, decode_clip: Pass, length: int, overlap: int) -> None:
        super().__init__(tokenizer)
        self._pass, self._length, self._overlap = decode_clip, length, overlap
        self._stride = tokenizer.latent_spec.stride
        self._latents: Tensor | None = None  # (B, ., N, C), from the first latent of the pass on
        self._given = 0  # latents of this pass whose frames were given out

    def decode(self, latents: Tensor) -> Tensor:
        """The next latents (B, K, N, C), at least one -> their frames: S of each, of the very first only one."""
        assert latents.shape[1], "there is something to decode"
        latents = latents if self._latents is None else torch.cat([self._latents, latents], dim=1)
        parts = []
        while True:
            present = min(latents.shape[1], 1 + self._length)
            if present > self._given:
                pixels = self._pass(latents[:, :present])
                parts.append(pixels[:, 1 + self._stride * (self._given - 1) if self._given else 0 :])
                self._given = present
            if present <= self._length:
                break
            latents = latents[:, self._length - self._overlap :]
            self._given = 1 + self._overlap
        self._latents = latents
        return torch.cat(parts, dim=1)

    def forget(self, rows: Tensor) -> None:
        """Begin anew; only all rows together, for rows of one stream stay in step."""
        assert rows.all() or not rows.any(), "rows of a stream with a stride begin their episodes together"
        if rows.any():
            self._latents, self._given = None, 0
