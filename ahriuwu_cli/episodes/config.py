"""The `[data]` section: which environment is played, by whom, and how episodes are split."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.specs import Region
from ahriuwu_cli.episodes.manifest import Storage
from ahriuwu_cli.episodes.video import LOSSLESS_PIXELS

Fit = Literal["stretch", "pad", "cover"]

NOT_RECORDED = {"num_envs", "source"}
"""Keys that leave what is recorded as it is."""
LONGEST_EPISODE = 100_000
"""Steps of an episode that nothing else ends."""
EPISODE_BYTES = 1 << 30
"""Its frames."""
LONGEST_LAG = 10.0
"""Seconds."""
GAME_KEYS = (
    "env", "env_options", "height", "width", "crop", "fit", "masks", "frame_from", "fps", "action_bounds",
    "max_episode_steps",
)  # fmt: skip
"""Keys that say which game is played: whoever plays what was recorded takes them from the store."""


class SourceSection(Section):
    """Where recordings are imported from, and how they are read."""

    kind: str = Field(default="auto", min_length=1, description="kind of recordings; auto: what it looks like")
    path: str = Field(default="", description="folder or file; empty where the command line names it")
    mapping: str | dict[str, Any] = Field(
        default="", description="which columns and keys are what: a TOML file, the name of a mapping that comes with it"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="settings of the kind")
    gap: float = Field(default=1.0, gt=0, le=3600, description="frames more than so many seconds apart: two episodes")
    lag: float = Field(
        default=0.0,
        ge=-LONGEST_LAG,
        le=LONGEST_LAG,
        description="seconds by which actions are taken to come later than they are noted (`data lag` measures it)",
    )
    check_lag: bool = Field(
        default=True, description="look at the end of an import, for about ten seconds, whether lag is right"
    )
    played_by: str = Field(default="human", min_length=1, description="who played, as episodes name it")


class DataSection(Section):
    """Recording and splitting of episodes."""

    env: str = Field(
        default="ahriuwu/Bricks-v0", description="Gymnasium environment id; empty where recordings have no game"
    )
    env_options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of gymnasium.make")
    height: int = Field(default=32, ge=8, le=2048, description="frame height in pixels after resizing")
    width: int = Field(default=32, ge=8, le=2048, description="frame width in pixels after resizing")
    crop: list[int] | None = Field(
        default=None,
        min_length=4,
        max_length=4,
        description="part of the picture that is used: [top, left, height, width]; absent for all of it",
    )
    fit: Fit = Field(
        default="stretch",
        description="a picture of another aspect than the frame's: stretch it, pad it with black, or cover the frame "
        "and cut off what is beyond",
    )
    masks: list[Region] = Field(
        default_factory=list,
        max_length=64,
        description="regions painted black: [[top, left, height, width], ...] in pixels of the whole picture; "
        "tokenizer.loss.ignored_regions leaves them out of the loss",
    )
    frame_from: str = Field(
        default="auto",
        min_length=1,
        description="the picture: auto, observation, render, or the key of a part of the observation (KEY/KEY)",
    )
    fps: float | None = Field(
        default=None, gt=0, le=1000, description="frames per second; absent for the environment's render_fps, or 15"
    )
    action_bounds: dict[str, list[float]] = Field(
        default_factory=dict,
        description="[low, high] by action component, where the environment gives none or huge ones",
    )
    episodes: int = Field(default=200, ge=1, description="episodes to record")
    num_envs: int = Field(
        default=16, ge=1, le=1024, description="environments that play side by side; 1 where only one can run"
    )
    policy: str = Field(
        default="noisy-expert",
        min_length=1,
        description="random, noisy-expert, auto (random where there is no expert), or the path of a checkpoint",
    )
    noise: float = Field(default=0.5, ge=0, le=1, description="share of random actions of noisy-expert")
    random_episodes: float = Field(
        default=0.0, ge=0, le=1, description="share of whole episodes that noisy-expert plays at random"
    )
    max_episode_steps: int = Field(
        default=0,
        ge=0,
        description="truncate episodes here; 0 keeps the env's own limit, up to 100,000 steps and 1 GiB of frames",
    )
    storage: Literal["auto", "raw", "video"] = Field(
        default="auto",
        description="frames raw, or as video (H.264 in RGB, lossless up to 64x64); auto: raw up to 64x64, else video",
    )
    heldout_fraction: float = Field(default=0.1, gt=0, lt=1, description="share of whole episodes held out")
    task: str = Field(default="play", min_length=1, description="name of the task in the episode store")
    source: SourceSection = Field(default_factory=SourceSection)

    @model_validator(mode="before")
    @classmethod
    def _recordings_have_no_game(cls, values: Any) -> Any:
        """Where a source is given, an environment is one that is named; else there is one."""
        if not isinstance(values, dict):
            return values
        imported = isinstance(values.get("source"), dict) and bool(values["source"].get("path"))
        if imported:
            return {"env": "", **values}
        if values.get("env") == "" and "source" not in values:
            raise ValueError('data.env is "" and no data.source is given; expected a Gymnasium environment id')
        return values

    @property
    def kept_as(self) -> Storage:
        """How frames are kept, by their size where that is left open."""
        if self.storage != "auto":
            return self.storage
        return "raw" if self.height * self.width <= LOSSLESS_PIXELS else "video"

    @property
    def step_limit(self) -> int:
        """Steps after which an episode is truncated: an environment without a limit does not play for ever."""
        return self.max_episode_steps or min(LONGEST_EPISODE, EPISODE_BYTES // (self.height * self.width * 3))

    @model_validator(mode="after")
    def _bounds_are_bounds(self) -> DataSection:
        for name, bounds in self.action_bounds.items():
            if len(bounds) != 2 or not bounds[0] < bounds[1]:
                raise ValueError(f"data.action_bounds gives {name!r} {bounds}; expected [low, high]")
        return self

    @model_validator(mode="after")
    def _regions_are_regions(self) -> DataSection:
        if self.crop is not None and (min(self.crop) < 0 or min(self.crop[2:]) < 8):
            raise ValueError(
                f"data.crop is {self.crop}; expected [top, left, height, width] with sides of 8 pixels or more"
            )
        for mask in self.masks:
            if min(mask[2:]) < 1:
                raise ValueError(f"data.masks has {mask}; expected [top, left, height, width] with sides above 0")
        return self
