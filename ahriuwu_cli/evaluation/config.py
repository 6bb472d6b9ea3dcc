"""The `[eval]` section: dream rollouts and episodes in the real game (no torch import)."""

from __future__ import annotations

from pydantic import Field

from ahriuwu_cli.core.config import Section


class EvalSection(Section):
    """Both evaluations."""

    contexts: int = Field(
        default=64, ge=2, description="held-out contexts of `eval rollout`; two at least, to exchange actions between"
    )
    context_length: int = Field(default=8, ge=1, le=4096, description="true frames before the dream starts")
    horizon: int = Field(default=16, ge=1, le=4096, description="dreamed frames")
    gif_rows: int = Field(default=6, ge=1, le=64, description="contexts drawn in the GIF and MP4")
    episodes: int = Field(default=100, ge=1, description="paired episodes of `eval agent`")
    temperature: float = Field(default=1.0, gt=0, le=10, description="policy temperature in the real game")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="level of the bootstrap intervals")
