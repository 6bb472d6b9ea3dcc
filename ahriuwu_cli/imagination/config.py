"""The `[imagine]` section: rollouts, returns, PMPO, guards and the check in the real game (no torch import)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.training.config import TrainSettings


class GuardSection(Section):
    """Imagined steps that leave the recorded data: counted, and cut out of what is learned if wanted."""

    cut: bool = Field(
        default=False, description="avoid decisions that lead outside the data, and learn nothing from what comes after"
    )
    reward_margin: float = Field(
        default=0.1, ge=0, le=1000, description="how far beyond recorded rewards one may be read; share of their range"
    )
    latent_margin: float = Field(
        default=0.5,
        ge=0,
        le=1000,
        description="how far beyond recorded sizes those of latents may go; share of their range",
    )
    recorded_windows: int = Field(
        default=64, ge=1, le=65536, description="windows of recorded latents in which their sizes are measured"
    )
    disagreement_every: int = Field(
        default=0, ge=0, description="rollouts between comparisons of K with 2 K Euler steps; 0: never"
    )
    disagreement_rows: int = Field(default=8, ge=1, le=4096, description="rollouts of a batch that are compared")
    disagreement_limit: float = Field(
        default=0.5, gt=0, le=1000, description="largest difference between them; share of the change between frames"
    )


class CheckSection(Section):
    """Episodes of the real game that the policy plays while it learns in the dream."""

    every: int = Field(default=0, ge=0, description="steps between checks, the first before all of them; 0: never")
    episodes: int = Field(default=8, ge=1, le=10000, description="episodes per check, the same seeds in each")
    max_steps: int = Field(
        default=500, ge=0, description="steps after which an episode is cut off; 0 keeps the recorded limit"
    )


class ImagineSection(Section):
    """Imagination training ([D4] Sec. 3.3, Eq. 10 and 11)."""

    context_length: int = Field(default=8, ge=1, le=4096, description="recorded frames before the dream starts")
    horizon: int = Field(default=16, ge=1, le=1024, description="imagined steps")
    relevant_fraction: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of dreams that start at most a horizon before what makes play relevant (agent.relevant)",
    )
    sampling_steps: int = Field(default=4, ge=1, le=1024, description="Euler steps per imagined frame, K")
    updates_per_rollout: int = Field(default=1, ge=1, le=64, description="head updates on one batch of rollouts")
    policy_updates: int = Field(
        default=0, ge=0, le=64, description="first of these updates in which the policy learns too; 0: in all"
    )
    transformer: Literal["frozen", "finetuned"] = Field(
        default="frozen", description="finetuned: all weights learn, and the losses of [agent] on recorded data stay"
    )
    temperature: float = Field(
        default=1.0, gt=0, le=10, description="policy temperature: of its actions, their probabilities and the KL"
    )
    gamma: float = Field(default=0.997, gt=0, le=1, description="discount")
    lambda_return: float = Field(default=0.95, ge=0, le=1, description="lambda of the lambda-return")
    alpha: float = Field(default=0.5, ge=0, le=1, description="weight of the positive set in PMPO")
    beta: float = Field(default=0.3, ge=0, le=10, description="weight of the KL to the behavioural prior")
    value_ema: float = Field(default=0.98, ge=0, lt=1, description="decay of the slow value target; 0 turns it off")
    value_only_steps: int = Field(
        default=0, ge=0, description="first steps in which the value learns alone; the policy stays the prior"
    )
    guard: GuardSection = Field(default_factory=GuardSection)
    check: CheckSection = Field(default_factory=CheckSection)
    train: TrainSettings

    @model_validator(mode="after")
    def _one_rollout_a_step(self) -> ImagineSection:
        if self.train.accumulate != 1:
            raise ValueError(
                f"a step has one batch of rollouts: train.accumulate must be 1, found {self.train.accumulate}"
            )
        return self

    @model_validator(mode="after")
    def _no_more_than_all(self) -> ImagineSection:
        if self.policy_updates > self.updates_per_rollout:
            raise ValueError(
                f"imagine.policy_updates is {self.policy_updates}; expected at most imagine.updates_per_rollout, "
                f"{self.updates_per_rollout}"
            )
        return self

    @model_validator(mode="after")
    def _policy_learns_too(self) -> ImagineSection:
        if self.value_only_steps >= self.train.steps:
            raise ValueError(
                f"imagine.value_only_steps is {self.value_only_steps}; expected fewer than imagine.train.steps, "
                f"{self.train.steps}"
            )
        return self
