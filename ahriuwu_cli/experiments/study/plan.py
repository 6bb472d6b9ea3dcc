"""What a study.toml asks for: a run, training seeds, who plays, and where each seed's artifacts lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from ahriuwu_cli.core.config import Section, apply_overrides, read_toml, validate
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.experiments.plans import AgentsRun, plan_section, require_distinct, require_within
from ahriuwu_cli.pipeline.config import Run, RunConfig
from ahriuwu_cli.pipeline.players import AGENTS

EXAMPLE = "examples/lavagap/study.toml"
CHANGEABLE = "agent."
"""Where the baseline from scratch may differ: its data and the sizes of its transformer are those of the others."""
USUAL = ("random", "repeat-last", "dataset", "scratch", "bc", "imagination")


class Settings(Section):
    """The keys of a study.toml."""

    run: str = Field(default="run.toml", min_length=1, description="config of the run, beside this file")
    seeds: list[int] = Field(description="training seeds; each also draws its own evaluation episodes")
    whole_roads: bool = Field(
        default=False, description="every seed records and learns all of it; else the seeds share one world model"
    )
    agents: list[str] = Field(default_factory=lambda: list(USUAL), description="who plays")
    scratch: list[str] = Field(
        default_factory=list, description="`agent.key=value`, laid over the run for the baseline from scratch only"
    )
    best: float | None = Field(default=None, description="best known return, to say how much of the way to it is done")


@dataclass(frozen=True)
class Item:
    """One training seed.

    Attributes:
        seed: of all that is not shared.
        run: its config and where its artifacts lie.
        baseline: the same run with the settings of the baseline from scratch.
        place: folder of what is the seed's own.
    """

    seed: int
    run: Run
    baseline: Run
    place: Path

    @property
    def result(self) -> Path:
        """What its agents reached (JSON)."""
        return self.place / "result.json"

    def __str__(self) -> str:
        return f"seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """A whole study.

    Attributes:
        path: the study.toml.
        base: the run; its folder holds the shared world, unless every seed goes the whole road.
        settings: seeds, agents and the rest.
        items: one for each seed.
    """

    path: Path
    base: Run
    settings: Settings
    items: tuple[Item, ...]

    @property
    def agents(self) -> list[str]:
        """Who plays, baselines first."""
        return [name for name in AGENTS if name in self.settings.agents]


def load_plan(path: Path, folder: Path | None, overrides: Sequence[str]) -> Plan:
    """Read a study.toml and check every seed's config.

    Args:
        path: the file.
        folder: where artifacts go; `runs/study-NAME` when not given, with the run's name.
        overrides: laid over the run.

    Raises:
        InputError: the file, or the run.toml it names, is missing.
        ConfigError: a key or value does not fit, seeds or agents repeat, an agent is not known, or the baseline
            changes more than its training.
    """
    settings = plan_section(Settings, read_toml(path), str(path), EXAMPLE)
    require_distinct(path, "seeds", settings.seeds, "name each seed once")
    require_distinct(path, "agents", settings.agents, "name each agent once")
    strange = [name for name in settings.agents if name not in AGENTS]
    if strange:
        raise ConfigError(
            f"{path}: agents has {strange[0]!r}; expected some of {', '.join(AGENTS)}", hint=f"see {EXAMPLE}"
        )
    require_within(
        settings.scratch,
        CHANGEABLE,
        f"{path}: scratch sets",
        "the baseline may change keys of [agent] only",
        "change it for all agents in the run's config, or with --set",
    )
    config = path.parent / settings.run
    shared = apply_overrides(read_toml(config), overrides)
    base_config = validate(RunConfig, shared, str(config), overrides)
    base = Run(base_config, folder or Path("runs") / f"study-{base_config.run.name}")
    items = tuple(_item(path, base, shared, seed, settings) for seed in settings.seeds)
    return Plan(path, base, settings, items)


def _item(path: Path, base: Run, shared: dict[str, Any], seed: int, settings: Settings) -> Item:
    def config(*changes: str) -> RunConfig:
        all_changes = [*changes, f"run.seed={seed}"]
        return validate(RunConfig, apply_overrides(shared, all_changes), f"{path}, seed {seed}", all_changes)

    place = base.folder / f"seed{seed}"
    mine = config()
    run = Run(mine, place) if settings.whole_roads else AgentsRun(mine, base.folder, base.store, place)
    return Item(seed, run, replace(run, config=config(*settings.scratch)), place)
