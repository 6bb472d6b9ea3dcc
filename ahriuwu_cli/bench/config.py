"""The work that `ahriuwu bench` measures; the defaults are the reference work (no torch import)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from ahriuwu_cli.core.config import Section, apply_overrides, read_toml, validate
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.training.config import RunSection, TrainSettings
from ahriuwu_cli.dynamics.config import DynamicsModelConfig, ObjectiveConfig, SamplerConfig
from ahriuwu_cli.tokenizer.config import TokenizerModel, TransformerModel

REFERENCE = "reference work"
"""Name of a bench whose work nobody has changed."""


class TimingSection(Section):
    """How often things are done, and the sizes of the machine's own measures."""

    repeats: int = Field(default=10, ge=1, le=100_000, description="timed repeats of every item")
    warmup: int = Field(default=3, ge=0, le=10_000, description="repeats before them that are not timed")
    matmul_size: int = Field(
        default=0, ge=0, le=32768, description="side of the square matrices of the peak; 0: 1024, on a GPU 8192"
    )
    bandwidth_mib: int = Field(default=512, ge=1, le=65536, description="MiB read by the bandwidth measure")


class FrameWork(Section):
    """Frames the tokenizer works on."""

    height: int = Field(default=64, ge=8, le=2048, description="pixels")
    width: int = Field(default=64, ge=8, le=2048, description="pixels")


class LatentWork(Section):
    """Latents given to the dynamics, and the one action."""

    num_tokens: int = Field(default=16, ge=1, le=8192, description="latent tokens per frame, N_z")
    dim_token: int = Field(default=32, ge=1, le=1024, description="channels per token, D_z")
    num_actions: int = Field(default=6, ge=2, le=65536, description="choices of the one categorical action")


class StepWork(Section):
    """The optimiser step of both training benches; the names are those of a run's `train` tables."""

    learning_rate: float = Field(default=3e-4, gt=0, le=1, description="learning rate (AdamW)")
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="AdamW weight decay on matrices")
    clip_norm: float = Field(default=1.0, gt=0, description="global gradient norm limit")
    accumulate: int = Field(default=1, ge=1, le=65536, description="micro-batches of batch_size in one step")
    ema_decay: float = Field(default=0.0, ge=0, lt=1, description="decay of the average of the weights; 0 for none")
    recompute: bool = Field(default=False, description="compute blocks again in the backward pass")

    def settings(self, batch_size: int) -> TrainSettings:
        """The same as settings of the training loop's session."""
        return TrainSettings(steps=1, batch_size=batch_size, **self.model_dump())


class DynamicsWork(Section):
    """Training steps of the dynamics on given latents."""

    model: DynamicsModelConfig = Field(
        default_factory=lambda: DynamicsModelConfig(dim=256, num_kv_heads=4, feed_width=1152)
    )
    objective: ObjectiveConfig = Field(default_factory=lambda: ObjectiveConfig(bootstrap_fraction=0.25))
    length: int = Field(default=32, ge=1, le=8192, description="frames per example, T")
    batch_size: int = Field(default=4, ge=1, le=65536, description="examples per step, B")


class SamplerWork(SamplerConfig):
    """A dream that goes on frame by frame, decoded as it goes; the model is that of `dynamics`."""

    batch_size: int = Field(default=1, ge=1, le=65536, description="dreams at once")
    frames: int = Field(default=100, ge=10, le=10_000_000, description="timed frames, in one go")


class TokenizerWork(Section):
    """Training steps and streams of a tokenizer."""

    model: SerializeAsAny[TokenizerModel] = Field(
        default_factory=lambda: TransformerModel(
            dim=256, num_encoder_layers=8, num_decoder_layers=8, dim_bottleneck=32
        ),
        description="see `type`",
    )
    also_patch: int = Field(
        default=16, ge=0, le=64, description="a second patch size, measured beside model.patch; 0 for none"
    )
    clip_length: int = Field(default=8, ge=1, le=1024, description="frames per example, T")
    batch_size: int = Field(default=4, ge=1, le=65536, description="examples per step, B")

    @field_validator("model", mode="before")
    @classmethod
    def _pick(cls, value: Any) -> Any:
        from ahriuwu_cli.tokenizer.registry import config_class

        if isinstance(value, TokenizerModel):
            return value
        if not isinstance(value, dict) or not isinstance(value.get("type"), str):
            raise ValueError("expected a table with a `type` key")
        return config_class(value["type"]).model_validate(value, strict=True)


class WindowsWork(Section):
    """Reading windows of packed latents beside a plain memory map and a file for each frame."""

    layouts: list[Annotated[list[Annotated[int, Field(ge=1, le=8192)]], Field(min_length=2, max_length=2)]] = Field(
        default=[[16, 32], [256, 32]], description="tokens and channels of the latents, one after the other"
    )
    rows: int = Field(default=4096, ge=16, le=10_000_000, description="latents in all, as float16")
    length: int = Field(default=64, ge=1, le=8192, description="latents of a window, T")
    batch_size: int = Field(default=64, ge=1, le=65536, description="windows in one repeat, B")

    @model_validator(mode="after")
    def _windows_fit(self) -> WindowsWork:
        if self.length > self.rows // 4:
            raise ValueError(f"latents.windows.length {self.length} is beyond a quarter of rows {self.rows}")
        return self


class LatentsWork(Section):
    """Building, packing and reading of latents."""

    episodes: int = Field(default=2, ge=2, le=10_000, description="made-up episodes that are encoded")
    episode_frames: int = Field(default=128, ge=2, le=1_000_000, description="frames of each")
    batch_size: int = Field(default=256, ge=1, le=65536, description="frames encoded at once")
    windows: WindowsWork = Field(default_factory=WindowsWork)


class DataWork(Section):
    """Reading random clips of recorded frames."""

    sizes: list[Annotated[int, Field(ge=8, le=2048)]] = Field(
        default=[64, 256], min_length=1, description="height and width of the frames, one after the other"
    )
    clip_lengths: list[Annotated[int, Field(ge=1, le=1024)]] = Field(
        default=[1, 16], min_length=1, description="frames per clip, T"
    )
    episodes: int = Field(default=4, ge=2, le=10_000, description="made-up episodes")
    episode_frames: int = Field(default=256, ge=2, le=100_000, description="frames of each")
    clips: int = Field(default=32, ge=1, le=65536, description="clips in one repeat, B")

    @model_validator(mode="after")
    def _clips_fit(self) -> DataWork:
        if max(self.clip_lengths) > self.episode_frames:
            raise ValueError(f"data.clip_lengths {self.clip_lengths} are beyond data.episode_frames")
        return self


class BenchConfig(Section):
    """All that is measured. Compare on equal work: change a value here and in the other system."""

    run: RunSection = Field(
        default_factory=lambda: RunSection(name=REFERENCE, device="cpu", precision="fp32", threads=2, loader_workers=0)
    )
    timing: TimingSection = Field(default_factory=TimingSection)
    frame: FrameWork = Field(default_factory=FrameWork)
    latent: LatentWork = Field(default_factory=LatentWork)
    train: StepWork = Field(default_factory=StepWork)
    tokenizer: TokenizerWork = Field(default_factory=TokenizerWork)
    dynamics: DynamicsWork = Field(default_factory=DynamicsWork)
    sampler: SamplerWork = Field(default_factory=lambda: SamplerWork(context_length=32))
    latents: LatentsWork = Field(default_factory=LatentsWork)
    data: DataWork = Field(default_factory=DataWork)

    @model_validator(mode="after")
    def _step_sizes_exist(self) -> BenchConfig:
        model, steps = self.dynamics.model, self.sampler.steps
        if steps > model.k_max or steps & (steps - 1):
            raise ValueError(f"sampler.steps {steps} must be a power of two up to dynamics.model.k_max {model.k_max}")
        if not model.shortcut and self.dynamics.objective.bootstrap_fraction:
            raise ValueError("dynamics.model.shortcut is false: dynamics.objective.bootstrap_fraction must be 0")
        return self


# ---------------------------------------------------------------- loading


def load_bench(config: Path | None, overrides: Sequence[str] = ()) -> BenchConfig:
    """The reference work, changed by a TOML file with the same keys and by overrides on top of that.

    Changed work without a name of its own is no longer called that of the reference. A tokenizer of another
    `type` starts from its own defaults, not from those of the reference.

    Raises:
        InputError: the file is missing.
        ConfigError: it is not TOML, a key is unknown, a value does not fit.
    """
    changes: dict[str, Any] = {}
    if config is not None:
        if not config.is_file():
            raise InputError(
                f"{config} does not exist; expected a TOML file with the keys of the bench",
                hint="leave --config out for the reference work, or see the keys in `ahriuwu bench dynamics --json`",
            )
        changes = read_toml(config)
    changes = apply_overrides(changes, overrides)
    data = _over(BenchConfig().model_dump(exclude_none=True), changes)
    work = validate(BenchConfig, data, str(config) if config else f"the {REFERENCE}", overrides)
    if work.run.name == REFERENCE and _amount(work) != _amount(BenchConfig()):
        return work.model_copy(update={"run": work.run.model_copy(update={"name": "other work"})})
    return work


def _amount(config: BenchConfig) -> dict[str, Any]:
    """What is done, without where and how often."""
    return config.model_dump(exclude={"run": True, "timing": True, "sampler": {"frames"}})


def _over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` laid over `base`, table by table; a table of another `type` replaces the old one."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if not isinstance(old, Mapping) or not isinstance(value, Mapping):
            merged[key] = value
        elif "type" in old and value.get("type", old["type"]) != old["type"]:
            merged[key] = dict(value)
        else:
            merged[key] = _over(old, value)
    return merged
