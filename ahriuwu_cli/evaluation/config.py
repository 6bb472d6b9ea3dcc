"""The `[eval]` section: dream rollouts and episodes in the real game (no torch import)."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.episodes.config import DataSection

CHANGEABLE = ("env", "env_options", "max_episode_steps")
"""Keys of `[data]` that agents may play with other values than recorded; the others change what they see or do."""


class EvalSection(Section):
    """Both evaluations."""

    contexts: int = Field(
        default=64, ge=2, description="held-out contexts of `eval rollout`; two at least, to exchange actions between"
    )
    context_length: int = Field(default=8, ge=1, le=4096, description="true frames before the dream starts")
    horizon: int = Field(default=16, ge=1, le=4096, description="dreamed frames")
    sampling_steps: int | None = Field(
        default=None, ge=1, le=1024, description="Euler steps per dreamed frame, K; absent for those of the sampler"
    )
    fine_steps: int | None = Field(
        default=None, ge=1, le=1024, description="a second K, dreamed from the same noise; absent for none"
    )
    video_features: str = Field(
        default="", description="TorchScript network for the video distance; empty takes the built-in one"
    )
    gif_rows: int = Field(default=6, ge=1, le=64, description="contexts drawn in the GIF and MP4")
    episodes: int = Field(default=100, ge=1, description="paired episodes of `eval agent`")
    temperature: float = Field(default=1.0, gt=0, le=10, description="policy temperature in the real game")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="level of the bootstrap intervals")
    game: dict[str, Any] = Field(
        default_factory=dict,
        description="env, env_options or max_episode_steps to play with instead of the recorded ones",
    )

    @field_validator("game")
    @classmethod
    def _is_a_game(cls, game: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(game) - set(CHANGEABLE))
        if unknown:
            raise ValueError(f"eval.game has {', '.join(unknown)}; expected some of {', '.join(CHANGEABLE)}")
        try:
            DataSection.model_validate(game, strict=True)
        except ValidationError as error:
            fault = error.errors()[0]
            raise ValueError(f"eval.game.{fault['loc'][0]}: {fault['msg']}") from None
        return game

    @model_validator(mode="after")
    def _powers_of_two(self) -> EvalSection:
        for name in ("sampling_steps", "fine_steps"):
            steps = getattr(self, name)
            if steps is not None and steps & (steps - 1):
                raise ValueError(f"eval.{name} must be a power of two, found {steps}")
        return self
