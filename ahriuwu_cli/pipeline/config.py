"""One `run.toml`: all sections of a run, the checks between them, presets, and where its artifacts lie."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from ahriuwu_cli.agent.config import AgentSection
from ahriuwu_cli.core.config import Section, apply_overrides, read_toml, validate
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.toml import value_text
from ahriuwu_cli.core.training.config import RunSection, TrainSettings
from ahriuwu_cli.dynamics.config import DynamicsSection
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.evaluation.config import EvalSection
from ahriuwu_cli.imagination.config import ImagineSection
from ahriuwu_cli.latents.config import LatentsSection
from ahriuwu_cli.tokenizer.config import TokenizerSection
from ahriuwu_cli.tokenizer.regions import counted_pixels

CONFIG_NAME = "run.toml"


class RunConfig(Section):
    """The sections of one run, in the order of the road.

    What later stages take from their parents' artifacts is checked there; the checks here catch, before
    anything runs, numbers that can never go together.
    """

    run: RunSection = Field(default_factory=RunSection)
    data: DataSection = Field(default_factory=DataSection)
    tokenizer: TokenizerSection
    latents: LatentsSection = Field(default_factory=LatentsSection)
    dynamics: DynamicsSection
    agent: AgentSection
    imagine: ImagineSection
    eval: EvalSection = Field(default_factory=EvalSection)

    @model_validator(mode="after")
    def _tokenizer_takes_the_frames(self) -> RunConfig:
        model = self.tokenizer.model
        for name, size in (("height", self.data.height), ("width", self.data.width)):
            if size % model.frame_multiple:
                raise ValueError(
                    f"data.{name} {size} is not divisible by {model.frame_multiple}, as tokenizer {model.type} needs"
                )
        counted_pixels(self.tokenizer.loss.ignored_regions, self.data.height, self.data.width)
        return self

    @model_validator(mode="after")
    def _contexts_fit_the_sampler(self) -> RunConfig:
        limit = self.dynamics.sampler.context_length
        for section, length in (("imagine", self.imagine.context_length), ("eval", self.eval.context_length)):
            if length > limit:
                raise ValueError(f"{section}.context_length {length} is above dynamics.sampler.context_length {limit}")
        if self.agent.batch_length <= limit:
            raise ValueError(
                f"agent.batch_length {self.agent.batch_length} must be above dynamics.sampler.context_length {limit}"
            )
        return self

    @model_validator(mode="after")
    def _sampling_steps_exist(self) -> RunConfig:
        steps, k_max = self.imagine.sampling_steps, self.dynamics.model.k_max
        if steps & (steps - 1) or steps > k_max:
            raise ValueError(
                f"imagine.sampling_steps {steps} must be a power of two up to dynamics.model.k_max {k_max}"
            )
        if self.imagine.guard.disagreement_every and 2 * steps > k_max:
            raise ValueError(
                f"imagine.guard.disagreement_every compares {steps} with {2 * steps} Euler steps, "
                f"above dynamics.model.k_max {k_max}"
            )
        return self

    @model_validator(mode="after")
    def _training_may_end_early(self) -> RunConfig:
        for name in ("tokenizer", "dynamics", "agent", "imagine") if self.run.minutes else ():
            settings: TrainSettings = getattr(self, name).train
            if settings.schedule == "cosine" or (settings.schedule == "wsd" and settings.decay_fraction == 1):
                raise ValueError(
                    f"run.minutes {self.run.minutes:g} may end {name}.train before all its steps, which its learning "
                    f"rate ({settings.schedule}, decay_fraction {settings.decay_fraction:g}) falls over; expected "
                    "constant, or wsd with a decay_fraction below 1"
                )
        return self

    @model_validator(mode="after")
    def _every_distance_has_targets(self) -> RunConfig:
        distances, length = self.agent.heads.mtp_length, self.agent.batch_length
        if distances >= length:
            raise ValueError(f"agent.heads.mtp_length {distances} must be below agent.batch_length {length}")
        return self


@dataclass(frozen=True)
class Run:
    """A validated config and the folder its artifacts lie in.

    Attributes:
        config: all sections.
        folder: where `run.toml` is; every artifact has its place below it.
        store: an episode store elsewhere than `folder/episodes`.
    """

    config: RunConfig
    folder: Path
    store: Path | None = None

    @property
    def episodes(self) -> Path:
        """The episode store (a folder)."""
        return self.store or self.folder / "episodes"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's weights."""
        return self.folder / "tokenizer" / "tokenizer.safetensors"

    @property
    def latents(self) -> Path:
        """Latents per episode (a folder)."""
        return self.folder / "latents"

    @property
    def packed(self) -> Path:
        """Latents in shards (a folder)."""
        return self.folder / "packed"

    @property
    def dynamics(self) -> Path:
        """The dynamics' weights."""
        return self.folder / "dynamics" / "dynamics.safetensors"

    @property
    def agent(self) -> Path:
        """The finetuned agent's weights."""
        return self.folder / "agent" / "agent.safetensors"

    @property
    def scratch(self) -> Path:
        """The weights of the baseline: an agent cloned without a world model."""
        return self.folder / "scratch" / "agent.safetensors"

    @property
    def imagination(self) -> Path:
        """The weights after imagination training."""
        return self.folder / "imagination" / "imagination.safetensors"

    @property
    def evaluation(self) -> Path:
        """Tables, plots and videos of both evaluations (a folder)."""
        return self.folder / "evaluation"


# ---------------------------------------------------------------- presets


SIZES = ("tiny", "small", "medium", "large", "paper")


def preset_names() -> list[str]:
    """The presets in the package, smallest first."""
    return _names(_presets())


def preset_text(name: str) -> str:
    """A preset's file as it is, comments and all.

    Raises:
        InputError: there is no such preset.
    """
    return _text(_presets(), name, "preset")


def load_preset(name: str, tokenizer: str | None = None) -> dict[str, Any]:
    """A preset's values as plain data; see `preset_text` and `tokenizer_preset_text` for errors.

    Args:
        name: of the preset.
        tokenizer: name of a tokenizer preset whose model takes the place of the preset's own.
    """
    data = tomllib.loads(preset_text(name))
    if tokenizer is not None:
        data["tokenizer"]["model"] = tomllib.loads(tokenizer_preset_text(tokenizer))["tokenizer"]["model"]
    return data


def tokenizer_preset_names() -> list[str]:
    """The tokenizer models in the package, by kind, smallest first."""
    return _names(_presets() / "tokenizer")


def tokenizer_preset_text(name: str) -> str:
    """A tokenizer preset's file as it is: comments and one table, `[tokenizer.model]`.

    Raises:
        InputError: there is no such tokenizer preset.
    """
    return _text(_presets() / "tokenizer", name, "tokenizer")


def _names(folder: Traversable) -> list[str]:
    """Names of the TOML files of a folder, `<kind>-<size>` or `<size>`: by kind, then by size."""

    def order(name: str) -> tuple[str, int, str]:
        kind, _, size = name.rpartition("-")
        return kind, SIZES.index(size) if size in SIZES else len(SIZES), name

    return sorted((Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml")), key=order)


def _text(folder: Traversable, name: str, flag: str) -> str:
    names = _names(folder)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        raise InputError(
            f"there is no {flag} {value_text(name)}; expected one of {', '.join(names)}",
            hint=f"use --{flag} {near[0] if near else names[0]}",
        )
    return (folder / f"{name}.toml").read_text(encoding="utf-8")


def _presets() -> Traversable:
    return resources.files("ahriuwu_cli") / "presets"


# ---------------------------------------------------------------- loading


def as_overrides(values: Mapping[str, Any]) -> list[str]:
    """Flags as `section.key=value` overrides; a flag that was not given (None) makes none."""
    return [f"{key}={value_text(value)}" for key, value in values.items() if value is not None]


def size_overrides(size: str | None) -> list[str]:
    """`HEIGHTxWIDTH` as overrides; None makes none.

    Raises:
        InputError: it is not written so.
    """
    if size is None:
        return []
    height, _, width = size.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise InputError(f"--size is {size!r}; expected HEIGHTxWIDTH in pixels", hint="write it like --size 64x64")
    return [f"data.height={height}", f"data.width={width}"]


def load_run(config: Path, overrides: Sequence[str] = ()) -> Run:
    """Read and check a `run.toml` with overrides on top; the run's folder is the file's.

    Raises:
        InputError: the file is missing.
        ConfigError: it is not TOML, a key is unknown, a value does not fit.
    """
    data = apply_overrides(read_toml(config), overrides)
    return Run(validate(RunConfig, data, str(config), overrides), config.parent)


def preset_run(name: str, folder: Path, overrides: Sequence[str] = (), tokenizer: str | None = None) -> Run:
    """A run in `folder` straight from a preset, with overrides on top; see `load_preset` and `load_run`."""
    data = apply_overrides(load_preset(name, tokenizer), overrides)
    return Run(validate(RunConfig, data, f"preset {name}", overrides), folder)


def load_data_run(config: Path | None, overrides: Sequence[str], store: Path | None, *, preset: bool) -> Run:
    """The run a `data` command works on.

    Args:
        config: the `run.toml` the user named, or None for the one in the working folder.
        overrides: laid on top.
        store: an episode store elsewhere than the run's own.
        preset: without any `run.toml`, take the settings of `tiny`, with the policy that any
            environment has (a `store` must then be given).

    Raises:
        InputError: there is no config, and no leave to do without one.
        ConfigError: see `load_run`.
    """
    path = config or Path(CONFIG_NAME)
    if config is not None or path.exists():
        return replace(load_run(path, overrides), store=store)
    if preset and store is not None:
        return replace(preset_run("tiny", store, ['data.policy="auto"', *overrides]), store=store)
    raise InputError(
        f"there is no {CONFIG_NAME} here",
        hint="write one with `ahriuwu init DIR`, name one with --config, or see --help for how to do without",
    )
