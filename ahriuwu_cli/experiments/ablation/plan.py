"""What an ablation.toml asks for: a base run, variants of its dynamics, seeds, and where each result lies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from ahriuwu_cli.core.config import Section, apply_overrides, read_toml, validate
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.toml import value_text
from ahriuwu_cli.experiments.plans import plan_section, require_distinct, require_within
from ahriuwu_cli.pipeline.config import Run, RunConfig

EXAMPLE = "examples/ablation/bricks/ablation.toml"
CHANGEABLE = "dynamics."
"""Where variants may differ: everything else is the base run's, so that results can be compared."""


class Variant(Section):
    """One `[[variant]]`: a row of the table, or one row for each of its step counts."""

    name: str = Field(min_length=1, description="name of the row")
    overrides: list[str] = Field(default_factory=list, description="`dynamics.key=value`, laid over the base run")
    sampling_steps: list[int] | None = Field(default=None, description="step counts K instead of the plan's")
    optional: bool = Field(default=False, description="only made when it is named with --only")

    @property
    def slug(self) -> str:
        """Name of its folder."""
        return "-".join(re.findall(r"[a-z0-9]+", self.name.lower()))


class Settings(Section):
    """The keys of an ablation.toml above its variants."""

    run: str = Field(default="run.toml", min_length=1, description="config of the base run, beside this file")
    seeds: list[int] = Field(description="seeds of the dynamics; data and tokenizer are the base run's")
    sampling_steps: list[int] = Field(description="step counts K at which dreams are judged")


@dataclass(frozen=True)
class VariantRun(Run):
    """The base run with other dynamics in a place of their own."""

    place: Path = Path()

    @property
    def dynamics(self) -> Path:
        """The variant's weights."""
        return self.place / "dynamics" / "dynamics.safetensors"


@dataclass(frozen=True)
class Item:
    """One variant with one seed: what is trained and judged as a whole.

    Attributes:
        variant: what differs.
        seed: of weights and windows.
        steps: K at which it is judged.
        run: its config and where its artifacts lie.
    """

    variant: Variant
    seed: int
    steps: tuple[int, ...]
    run: VariantRun

    @property
    def result(self) -> Path:
        """Its measures (JSON)."""
        return self.run.place / "result.json"

    @property
    def cost(self) -> Path:
        """What its training took (JSON)."""
        return self.run.place / "cost.json"

    def __str__(self) -> str:
        return f"{self.variant.name}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """A whole ablation.

    Attributes:
        path: the ablation.toml.
        base: the run whose episodes, tokenizer and latents all variants share.
        settings: seeds and step counts.
        items: every variant with every seed, in the order of the table.
    """

    path: Path
    base: Run
    settings: Settings
    items: tuple[Item, ...]

    @property
    def variants(self) -> list[Variant]:
        """The variants, in order."""
        return list({item.variant.name: item.variant for item in self.items}.values())


def load_plan(path: Path, folder: Path | None, overrides: Sequence[str]) -> Plan:
    """Read an ablation.toml and check every variant's config.

    Args:
        path: the file.
        folder: where artifacts go; `runs/ablation-NAME` when not given, with the base run's name.
        overrides: laid over the base run, below those of the variants.

    Raises:
        InputError: the file, or the run.toml it names, is missing.
        ConfigError: a key or value does not fit, names repeat, or a variant changes more than the dynamics.
    """
    data = read_toml(path)
    entries = data.pop("variant", [])
    settings = plan_section(Settings, data, str(path), EXAMPLE)
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path} has no [[variant]]; expected one at least", hint=f"see {EXAMPLE}")
    variants = [
        plan_section(Variant, entry, f"{path}, variant {n}", EXAMPLE) for n, entry in enumerate(entries, start=1)
    ]
    hint = "variants differ in letters or digits of their names, since these name their folders"
    require_distinct(path, "variant names", [variant.slug for variant in variants], hint)
    require_distinct(path, "seeds", settings.seeds, "name each seed once")

    config = path.parent / settings.run
    shared = apply_overrides(read_toml(config), overrides)
    base_config = validate(RunConfig, shared, str(config), overrides)
    base = Run(base_config, folder or Path("runs") / f"ablation-{base_config.run.name}")
    items = [_item(path, base, shared, variant, seed, settings) for variant in variants for seed in settings.seeds]
    return Plan(path, base, settings, tuple(items))


def _item(path: Path, base: Run, shared: dict[str, Any], variant: Variant, seed: int, settings: Settings) -> Item:
    source = f"{path}, variant {value_text(variant.name)}"
    require_within(
        variant.overrides,
        CHANGEABLE,
        f"{source}: it sets",
        "variants may change keys of [dynamics] only",
        "change it for all of them in the base run's config, or with --set",
    )
    changes = [*variant.overrides, f"run.seed={seed}"]
    config = validate(RunConfig, apply_overrides(shared, changes), source, changes)
    steps = tuple(variant.sampling_steps or settings.sampling_steps)
    k_max = config.dynamics.model.k_max
    for count in steps:
        if count < 1 or count & (count - 1) or count > k_max:
            raise ConfigError(
                f"{source}: sampling_steps has {count}; expected powers of two up to k_max {k_max}",
                hint=f"for example sampling_steps = [4, {k_max}]",
            )
    place = base.folder / "ablation" / variant.slug / f"seed{seed}"
    return Item(variant, seed, steps, VariantRun(config, base.folder, base.store, place))
