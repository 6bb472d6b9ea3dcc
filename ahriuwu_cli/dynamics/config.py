"""The `[dynamics]` section: model, objective, batch lengths, sampler (no torch import)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.training.config import TrainSettings


class DynamicsModelConfig(Section):
    """The block-causal transformer of [D4] Sec. 3.2 and 3.4."""

    dim: int = Field(default=128, ge=16, le=8192, description="model width")
    num_layers: int = Field(default=8, ge=1, le=256, description="transformer layers")
    num_heads: int = Field(default=4, ge=1, le=256, description="attention heads")
    num_kv_heads: int = Field(default=2, ge=1, le=256, description="key/value heads (GQA)")
    time_every: int = Field(
        default=4, ge=1, le=256, description="every n-th layer attends over time, others over space; 1: each over both"
    )
    feed_width: int | None = Field(
        default=None, ge=8, le=65536, description="hidden width of the feed-forward layers; absent for 8/3 of dim"
    )
    num_registers: int = Field(default=4, ge=0, le=256, description="learned register tokens S_r")
    num_action_tokens: int = Field(default=1, ge=1, le=64, description="action tokens S_a")
    conditioning: Literal["tokens", "latents"] = Field(
        default="tokens", description="action and signal level are tokens; latents: added to each latent token as well"
    )
    soft_cap: float | None = Field(default=None, gt=0, description="attention logit soft cap; absent for none")
    # Measured on the built-in game after 300 steps: at tau = 0 / 0.5 a normalised error of 0.22 / 0.07 with 1.0
    # and of 0.26 / 0.23 with 0.25.
    latent_scale: float = Field(
        default=1.0, gt=0, le=10, description="spread of latents beside noise of spread 1; less leans more on the past"
    )
    k_max: int = Field(default=64, ge=2, le=1024, description="finest step count; d_min = 1/k_max; a power of two")
    prediction: Literal["x", "v"] = Field(
        default="x", description="what the network gives: clean latents or the velocity towards them"
    )
    shortcut: bool = Field(
        default=True, description="tell the network the step size; false is diffusion forcing, sampled in k_max steps"
    )

    @model_validator(mode="after")
    def _divisible(self) -> DynamicsModelConfig:
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ValueError(f"dim {self.dim} must be an even multiple of num_heads {self.num_heads}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} must be a multiple of num_kv_heads {self.num_kv_heads}")
        if self.time_every > self.num_layers:
            raise ValueError(
                f"time_every {self.time_every} is above num_layers {self.num_layers}: no layer sees the past"
            )
        if self.k_max & (self.k_max - 1):
            raise ValueError(f"k_max must be a power of two, found {self.k_max}")
        return self


class ObjectiveConfig(Section):
    """Shortcut forcing ([D4] Eq. 4, 7, 8)."""

    bootstrap_fraction: float = Field(
        default=1.0, ge=0, le=1, description="share of rows that draw d from all powers of two; the rest use d_min"
    )
    loss_space: Literal["x", "v"] = Field(
        default="x", description="space of the squared error: clean latents or velocities"
    )
    ramp: bool = Field(default=True, description="weigh errors by 0.9 tau + 0.1")
    image_fraction: float = Field(default=0.3, ge=0, le=1, description="share of examples treated as single images")
    context_fraction: float = Field(
        default=0.0, ge=0, le=1, description="share of frames at sampler.tau_context, as a dream sees its past"
    )
    noise_fraction: float = Field(
        default=0.0, ge=0, le=1, description="share of frames that are noise alone, as a dream begins its next one"
    )
    action_dropout: float = Field(default=0.0, ge=0, le=1, description="share of examples trained as unlabelled video")

    @model_validator(mode="after")
    def _shares(self) -> ObjectiveConfig:
        if self.context_fraction + self.noise_fraction > 1:
            raise ValueError(
                f"context_fraction {self.context_fraction} and noise_fraction {self.noise_fraction} are more than all"
            )
        return self


class SamplerConfig(Section):
    """Frame-by-frame generation."""

    steps: int = Field(default=4, ge=1, le=1024, description="Euler steps per frame, K; a power of two")
    context_length: int = Field(default=15, ge=1, le=4096, description="past frames the model attends to, C")
    tau_context: float = Field(default=0.9, gt=0, lt=1, description="signal level of past frames")


class DynamicsSection(Section):
    """Model, objective, lengths and training of the dynamics."""

    model: DynamicsModelConfig = Field(default_factory=DynamicsModelConfig)
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)
    sampler: SamplerConfig = Field(default_factory=SamplerConfig)
    short_length: int = Field(default=16, ge=2, le=8192, description="frames per example in short batches, T1")
    long_length: int = Field(default=16, ge=2, le=8192, description="frames per example in long batches, T2")
    long_every: int = Field(default=4, ge=1, description="one batch in this many is long")
    long_only_fraction: float = Field(default=0.1, ge=0, le=1, description="last share of the steps: long batches only")
    train: TrainSettings

    @model_validator(mode="after")
    def _consistent(self) -> DynamicsSection:
        if self.long_length < self.short_length:
            raise ValueError(f"long_length {self.long_length} is below short_length {self.short_length}")
        if self.sampler.context_length >= self.long_length:
            raise ValueError(
                f"sampler.context_length {self.sampler.context_length} must be below long_length {self.long_length}"
            )
        if self.sampler.steps > self.model.k_max or self.sampler.steps & (self.sampler.steps - 1):
            raise ValueError(
                f"sampler.steps {self.sampler.steps} must be a power of two up to k_max {self.model.k_max}"
            )
        return self

    @model_validator(mode="after")
    def _steps_are_trained(self) -> DynamicsSection:
        fraction = self.objective.bootstrap_fraction
        if not self.model.shortcut and fraction:
            raise ValueError(f"model.shortcut is false: objective.bootstrap_fraction must be 0, found {fraction}")
        if self.model.shortcut and not fraction:
            raise ValueError(
                "objective.bootstrap_fraction 0 trains no step size but the finest: "
                "set model.shortcut = false (diffusion forcing), or a fraction above 0"
            )
        return self
