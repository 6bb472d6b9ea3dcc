"""The model config of the `cosmos` tokenizer (no torch import)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ahriuwu_cli.tokenizer.config import TokenizerModel


class CosmosModel(TokenizerModel):
    """A frozen NVIDIA Cosmos continuous tokenizer, from TorchScript files of yours."""

    type: Literal["cosmos"] = Field(default="cosmos", description="frozen NVIDIA Cosmos tokenizer, not trained")
    path: str = Field(
        min_length=1,
        description="folder with encoder.jit and decoder.jit; TorchScript runs code, so name only files you trust",
    )
    kind: Literal["CV8x8x8", "CI8x8", "CI16x16"] = Field(
        default="CV8x8x8", description="CV: video, one latent for 8 frames; CI: each frame by itself"
    )
    fold: int = Field(default=1, ge=1, le=16, description="fold x fold neighbours become one token; 1 folds nothing")
    resize_height: int | None = Field(
        default=None, ge=16, le=4096, description="frames are resized to this height (bicubic) and back"
    )
    resize_width: int | None = Field(default=None, ge=16, le=4096, description="the same for the width; both or none")
    clip_latents: int = Field(
        default=6, ge=1, le=1024, description="CV: latents of one pass after its first (6: passes of 49 frames)"
    )
    clip_overlap: int = Field(
        default=2, ge=0, le=1023, description="CV: how many of these a pass sees once more from the pass before"
    )

    @model_validator(mode="after")
    def _sizes(self) -> CosmosModel:
        if (self.resize_height is None) != (self.resize_width is None):
            raise ValueError("resize_height and resize_width go together: set both or none")
        if self.clip_overlap >= self.clip_latents:
            raise ValueError(f"clip_overlap {self.clip_overlap} must be below clip_latents {self.clip_latents}")
        return self
