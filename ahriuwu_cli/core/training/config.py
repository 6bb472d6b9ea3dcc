"""Settings every training stage shares, and the run-wide section."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.training.budget import SHARES


class RunSection(Section):
    """What holds for every stage of one run."""

    name: str = Field(default="run", min_length=1, description="name shown in reports")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="seed of every random choice")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", description="where tensors live")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="autocast type; auto takes bf16 where the hardware has it, else fp32"
    )
    threads: int = Field(default=0, ge=0, le=1024, description="CPU threads; 0 leaves torch's choice")
    loader_workers: int = Field(
        default=2,
        ge=0,
        le=64,
        description="threads that read batches while others are trained on, at most one batch more than threads ahead; "
        "0: a step reads its own; results are the same",
    )
    minutes: float = Field(
        default=0.0,
        ge=0,
        le=1_000_000,
        description="wall-clock minutes that training may take, of which "
        + ", ".join(f"{kind} has {share:.0%}" for kind, share in SHARES.items())
        + "; a stage whose share would not do for all its steps ends earlier, wsd with its decay; 0: no limit",
    )
    compile: bool = Field(
        default=False,
        description="torch.compile in training and in dreams; where it fails, a line says why and it goes on without",
    )


class TrainSettings(Section):
    """Optimiser, schedule and bookkeeping of one training stage."""

    steps: int = Field(ge=1, description="optimiser steps in all, at most")
    batch_size: int = Field(ge=1, description="examples per step (per micro-batch when accumulate is above 1)")
    accumulate: int = Field(
        default=1, ge=1, description="micro-batches whose gradients are averaged in one optimiser step"
    )
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: for the matrices inside transformers, AdamW for the rest"
    )
    learning_rate: float = Field(gt=0, le=1, description="peak learning rate")
    warmup_steps: int = Field(default=50, ge=0, description="linear warm-up")
    schedule: Literal["constant", "cosine", "wsd"] = Field(
        default="wsd", description="after warm-up: constant, cosine to zero, or stable then linear decay"
    )
    decay_fraction: float = Field(default=0.3, gt=0, le=1, description="share of the steps that wsd decays over")
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="weight decay on matrices")
    clip_norm: float = Field(default=1.0, gt=0, description="global gradient norm limit")
    ema_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights that becomes the result; 0: none",
    )
    recompute: bool = Field(
        default=False, description="compute transformer blocks again in the backward pass: less memory, more time"
    )
    log_every: int = Field(default=20, ge=1, description="steps between metric lines")
    checkpoint_every: int = Field(default=500, ge=1, description="steps between checkpoints")
    heldout_every: int = Field(
        default=100, ge=0, description="steps between measurements on held-out recordings; 0: none, not even at the end"
    )
    heldout_examples: int = Field(
        default=32, ge=2, le=65536, description="held-out examples they are made on, the same ones every time"
    )
    keep: Literal["last", "best"] = Field(
        default="last",
        description="weights that become the result: the last ones, or the best by the held-out measurements",
    )
    patience: int = Field(
        default=0,
        ge=0,
        description="held-out measurements in a row without progress after which training ends before all steps are "
        "done, wsd with its decay; 0: never",
    )
    min_gain: float = Field(
        default=0.01, ge=0, lt=1, description="share by which a held-out loss must improve to count as progress"
    )
    max_bad_steps: int = Field(default=20, ge=1, description="skipped non-finite steps before training gives up")

    @model_validator(mode="after")
    def _measured_where_judged(self) -> TrainSettings:
        if not self.heldout_every and (self.patience or self.keep == "best"):
            wanted = "keep = 'best'" if self.keep == "best" else f"patience = {self.patience}"
            raise ValueError(f"{wanted} needs held-out measurements; expected heldout_every above 0")
        return self
