"""The `[agent]` section: agent tokens, heads and finetuning (no torch import)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.training.config import TrainSettings
from ahriuwu_cli.latents.tasks import SOURCE

Rule = Literal["reward", "return"]
"""By what a window is relevant (see latents/rewards.py)."""


class HeadsConfig(Section):
    """Heads on the agent tokens ([D4] Sec. 3.3)."""

    dim_hidden: int = Field(default=128, ge=8, le=8192, description="hidden width of every head")
    num_hidden: int = Field(default=1, ge=0, le=8, description="hidden layers of every head")
    mtp_length: int = Field(default=8, ge=1, le=64, description="multi-token prediction distances L")
    num_buckets: int = Field(default=41, ge=3, le=1023, description="buckets of the symexp two-hot heads; odd")
    bucket_limit: float = Field(
        default=5.0, gt=0, le=20, description="two-hot range in symlog space: [-bucket_limit, bucket_limit]"
    )
    action_bins: int = Field(default=11, ge=2, le=255, description="bins per continuous action dimension")


class AgentSection(Section):
    """Finetuning: heads, data mixture, training."""

    heads: HeadsConfig = Field(default_factory=HeadsConfig)
    batch_length: int = Field(default=16, ge=2, le=8192, description="frames per example")
    relevant_fraction: float = Field(
        default=0.5, gt=0, le=1, description="share of relevant sequences in a batch; BC is learned on these"
    )
    ended_fraction: float = Field(
        default=0.0, ge=0, lt=1, description="share of the other sequences that hold the terminal end of an episode"
    )
    reward_weight: float = Field(
        default=0.1, gt=0, le=10, description="weight of the reward and continue losses; that of the policy is 1"
    )
    dynamics_weight: float = Field(default=0.1, gt=0, le=10, description="weight of the dynamics loss")
    relevant: Rule = Field(
        default="reward",
        description="which sequences are relevant: those that reach more than the usual reward, or those whose rewards "
        "add up to a higher return than most, as where rewards only punish",
    )
    relevant_quantile: float = Field(
        default=0.75, ge=0.5, le=0.999, description="share of all sequences whose return a relevant one is above"
    )
    relevant_reach: int = Field(
        default=0,
        ge=0,
        description="rewards that come at most this many latents after a sequence count as reached by it",
    )
    tasks: dict[str, str] = Field(
        default_factory=dict,
        description='tasks by name, each "reward" or "event:NAME"; none: those of the episodes, from their reward',
    )
    train: TrainSettings

    @field_validator("tasks")
    @classmethod
    def _named_and_sourced(cls, tasks: dict[str, str]) -> dict[str, str]:
        for name, source in tasks.items():
            if not name or not SOURCE.fullmatch(source):
                raise ValueError(f'task "{name}" is "{source}"; expected a name with "reward" or "event:NAME"')
        return tasks
