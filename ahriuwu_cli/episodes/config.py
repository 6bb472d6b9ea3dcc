"""The `[data]` section: which environment is played, by whom, and how episodes are split."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from ahriuwu_cli.core.config import Section


class DataSection(Section):
    """Recording and splitting of episodes."""

    env: str = Field(default="ahriuwu/Bricks-v0", min_length=1, description="Gymnasium environment id")
    env_options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of gymnasium.make")
    height: int = Field(default=32, ge=8, le=2048, description="frame height in pixels after resizing")
    width: int = Field(default=32, ge=8, le=2048, description="frame width in pixels after resizing")
    crop: list[int] | None = Field(
        default=None,
        min_length=4,
        max_length=4,
        description="part of the picture that is used: [top, left, height, width]; absent for all of it",
    )
    episodes: int = Field(default=200, ge=2, description="episodes to record")
    policy: str = Field(
        default="noisy-expert",
        min_length=1,
        description="random, noisy-expert, or the path of an agent or imagination checkpoint",
    )
    noise: float = Field(default=0.5, ge=0, le=1, description="share of random actions of noisy-expert")
    random_episodes: float = Field(
        default=0.0, ge=0, le=1, description="share of whole episodes that noisy-expert plays at random"
    )
    max_episode_steps: int = Field(default=0, ge=0, description="truncate episodes here; 0 keeps the env's own limit")
    heldout_fraction: float = Field(default=0.1, gt=0, lt=1, description="share of whole episodes held out")
    task: str = Field(default="play", min_length=1, description="name of the task in the episode store")

    @model_validator(mode="after")
    def _crop_is_a_part(self) -> DataSection:
        if self.crop is not None and (min(self.crop) < 0 or min(self.crop[2:]) < 8):
            raise ValueError(
                f"data.crop is {self.crop}; expected [top, left, height, width] with sides of 8 pixels or more"
            )
        return self
