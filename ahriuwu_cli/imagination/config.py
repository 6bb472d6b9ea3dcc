"""The `[imagine]` section: rollouts, returns, PMPO (no torch import)."""

from __future__ import annotations

from pydantic import Field, model_validator

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.training.config import TrainSettings


class ImagineSection(Section):
    """Imagination training ([D4] Sec. 3.3, Eq. 10 and 11)."""

    context_length: int = Field(default=8, ge=1, le=4096, description="recorded frames before the dream starts")
    horizon: int = Field(default=16, ge=1, le=1024, description="imagined steps")
    sampling_steps: int = Field(default=4, ge=1, le=1024, description="Euler steps per imagined frame, K")
    updates_per_rollout: int = Field(default=1, ge=1, le=64, description="head updates on one batch of rollouts")
    temperature: float = Field(default=1.0, gt=0, le=10, description="policy temperature in the dream")
    gamma: float = Field(default=0.997, gt=0, le=1, description="discount")
    lambda_return: float = Field(default=0.95, ge=0, le=1, description="lambda of the lambda-return")
    alpha: float = Field(default=0.5, ge=0, le=1, description="weight of the positive set in PMPO")
    beta: float = Field(default=0.3, ge=0, le=10, description="weight of the KL to the behavioural prior")
    value_ema: float = Field(default=0.98, ge=0, lt=1, description="decay of the slow value target; 0 turns it off")
    train: TrainSettings

    @model_validator(mode="after")
    def _one_rollout_a_step(self) -> ImagineSection:
        if self.train.accumulate != 1:
            raise ValueError(
                f"a step has one batch of rollouts: train.accumulate must be 1, found {self.train.accumulate}"
            )
        return self
