"""The `[latents]` section: how latents are encoded and packed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ahriuwu_cli.core.config import Section


class LatentsSection(Section):
    """Encoding and packing."""

    batch_size: int = Field(default=256, ge=1, description="frames encoded at once")
    dtype: Literal["float16", "float32"] = Field(default="float16", description="stored type")
    shard_frames: int = Field(default=100_000, ge=1, description="latents per packed shard")


NOT_CONTENT = {"batch_size"}
"""Keys that say how the work is done, not what comes out: no part of an artifact's config or fingerprint."""
