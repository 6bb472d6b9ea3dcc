"""The `[tokenizer]` section and the model configs of the built-in tokenizers (no torch import)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.specs import Region
from ahriuwu_cli.core.training.config import TrainSettings


class TokenizerModel(Section):
    """Base of tokenizer model configs; `type` names the entry in the tokenizer registry."""

    type: str = Field(description="name of the tokenizer")

    @property
    def frame_multiple(self) -> int:
        """Frame heights and widths must be multiples of this; 1, as here, where any frame is taken."""
        return 1


class CnnModel(TokenizerModel):
    """Strided convolutions to a token grid with a tanh bottleneck; frames are padded to whole patches."""

    type: Literal["cnn"] = Field(default="cnn", description="strided convolutions, each frame by itself")
    patch: int = Field(default=8, ge=2, le=64, description="pixels per token side; a power of two")
    dim_token: int = Field(default=16, ge=1, le=1024, description="channels per token (D_z)")
    base_channels: int = Field(default=32, ge=4, le=1024, description="channels at full resolution")
    blocks_per_stage: int = Field(default=1, ge=0, le=8, description="residual blocks per resolution")
    stem: bool = Field(default=False, description="a convolution at full resolution before the first halving")

    @model_validator(mode="after")
    def _power_of_two(self) -> CnnModel:
        if self.patch & (self.patch - 1):
            raise ValueError(f"patch must be a power of two, found {self.patch}")
        return self


class TransformerModel(TokenizerModel):
    """Block-causal transformer with masked autoencoding ([D4] Sec. 3.1); frames are padded to whole patches."""

    type: Literal["transformer"] = Field(default="transformer", description="block-causal transformer")
    patch: int = Field(default=8, ge=2, le=64, description="pixels per patch side")
    dim: int = Field(default=128, ge=16, le=8192, description="model width")
    num_encoder_layers: int = Field(default=4, ge=1, le=128, description="encoder layers")
    num_decoder_layers: int = Field(default=4, ge=1, le=128, description="decoder layers")
    num_heads: int = Field(default=4, ge=1, le=256, description="attention heads")
    num_kv_heads: int = Field(default=4, ge=1, le=256, description="key/value heads (GQA)")
    time_every: int = Field(default=4, ge=1, le=128, description="every n-th layer attends over time")
    num_bottleneck: int = Field(default=16, ge=1, le=8192, description="latent tokens N_b")
    dim_bottleneck: int = Field(default=16, ge=1, le=1024, description="channels per latent token D_b")
    num_tokens: int = Field(default=16, ge=1, le=8192, description="tokens handed to the dynamics, N_z")
    context_length: int = Field(default=7, ge=0, le=4096, description="past frames a time layer attends to")
    soft_cap: float | None = Field(default=None, gt=0, description="attention logit soft cap; absent for none")
    mask_max: float = Field(default=0.9, ge=0, lt=1, description="p ~ U(0, mask_max) per image")
    mask_start_steps: int = Field(default=0, ge=0, description="steps without any masking at the beginning")
    mask_warmup_steps: int = Field(default=1000, ge=0, description="steps after these over which mask_max grows from 0")
    anchored: bool = Field(
        default=True, description="latents start from the patches below them, patch queries from the latents above"
    )
    positions: Literal["random", "sinusoidal"] = Field(
        default="random", description="what the learned position vectors of patches and patch queries begin as"
    )
    position_std: float = Field(
        default=0.02, gt=0, le=10, description="initial size of position vectors of encoder patches, decoder latents"
    )
    query_std: float = Field(
        default=0.02, gt=0, le=10, description="initial size of learned vectors of encoder latents, patch queries"
    )

    @model_validator(mode="after")
    def _divisible(self) -> TransformerModel:
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ValueError(f"dim {self.dim} must be an even multiple of num_heads {self.num_heads}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} must be a multiple of num_kv_heads {self.num_kv_heads}")
        if (self.num_bottleneck * self.dim_bottleneck) % self.num_tokens:
            raise ValueError(
                f"bottleneck {self.num_bottleneck}x{self.dim_bottleneck} does not divide into {self.num_tokens} tokens"
            )
        return self


class TokenizerLoss(Section):
    """Eq. 5 of [D4]: MSE plus weighted LPIPS, each divided by its running RMS."""

    lpips_weight: float = Field(default=0.2, ge=0, le=10, description="weight of LPIPS; 0 leaves it out")
    lpips_weights_path: str = Field(default="", description="vgg16 weights file; empty looks in the torch hub cache")
    ignored_regions: list[Region] = Field(
        default_factory=list, description="screen parts outside the loss: [top, left, height, width] in pixels each"
    )


class TokenizerSection(Section):
    """Model, loss and training of the tokenizer."""

    model: SerializeAsAny[TokenizerModel] = Field(default_factory=CnnModel, description="see `type`")
    loss: TokenizerLoss = Field(default_factory=TokenizerLoss)
    clip_length: int = Field(default=1, ge=1, le=1024, description="consecutive frames per example")
    train: TrainSettings

    @field_validator("model", mode="before")
    @classmethod
    def _pick(cls, value: Any) -> Any:
        from ahriuwu_cli.tokenizer.registry import config_class

        if isinstance(value, TokenizerModel):
            return value
        if not isinstance(value, dict) or not isinstance(value.get("type", "cnn"), str):
            raise ValueError("expected a table with a `type` key")
        return config_class(value.get("type", "cnn")).model_validate(value, strict=True)
