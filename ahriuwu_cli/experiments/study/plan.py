"""What a study.toml asks for: a run, training seeds, who plays, and where each seed's artifacts lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ahriuwu_cli.core.config import Section, apply_overrides, read_toml, split_override, validate
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.experiments.plans import AgentsRun, plan_section, require_distinct, require_within
from ahriuwu_cli.pipeline.config import Run, RunConfig, as_overrides
from ahriuwu_cli.pipeline.players import AGENTS

EXAMPLE = "examples/lavagap/study.toml"
CHANGEABLE = "agent."
"""Where the baseline from scratch may differ: its data and the sizes of its transformer are those of the others."""
RATE = "agent.train.learning_rate"
PER_GAME = ("run.name", "run.device", "run.threads", "run.loader_workers", "run.compile", "data.")
"""What may differ between games that share a preset: their data, and the machine they are run on (pitfall 38)."""
USUAL = ("random", "repeat-last", "dataset", "scratch", "bc", "imagination")
"""Who belongs into every table."""

Rates = Mapping[str, float]
"""Learning rates that were chosen by search, by agent."""


Cloned = Literal["scratch", "bc"]


class SearchSettings(Section):
    """The learning rate of the cloned agents is searched, each with the same tries (pitfall 36)."""

    seed: int = Field(
        default=1_000_000, ge=0, le=2**31 - 1, description="training seed of every try; none of the study's seeds"
    )
    learning_rates: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=list, description="tried for every agent; none for no search"
    )
    agents: list[Cloned] = Field(
        default=["scratch", "bc"],
        description="for whom: those that clone, and so can be judged by the likelihood of held-out actions",
    )


class Settings(Section):
    """The keys of a study.toml."""

    run: str = Field(default="run.toml", min_length=1, description="config of the run, beside this file")
    preset: str | None = Field(
        default=None,
        min_length=1,
        description="settings that games share, beside this file; the run's config may then have [data] only, and of "
        "[run] the name, device, threads, loader_workers and compile",
    )
    seeds: list[int] = Field(description="training seeds; each also draws its own evaluation episodes")
    whole_roads: bool = Field(
        default=False, description="every seed records and learns all of it; else the seeds share one world model"
    )
    agents: list[str] = Field(
        default_factory=lambda: [*USUAL, "expert"], description="who plays; the expert where the environment offers one"
    )
    scratch: list[str] = Field(
        default_factory=list, description="`agent.key=value`, laid over the run for the baseline from scratch only"
    )
    search: SearchSettings = Field(default_factory=SearchSettings)
    best: float | None = Field(default=None, description="best known return, the end of the way where no expert plays")


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
        shared: the run's config as plain values, before a seed is set.
        rates: learning rates that the search chose.
    """

    path: Path
    base: Run
    settings: Settings
    shared: Mapping[str, Any]
    rates: Rates = field(default_factory=dict)

    @property
    def agents(self) -> list[str]:
        """Who plays, baselines first."""
        return [name for name in AGENTS if name in self.settings.agents]

    @property
    def items(self) -> tuple[Item, ...]:
        """One for each seed."""
        return tuple(self.item(seed, self.base.folder / f"seed{seed}", self.rates) for seed in self.settings.seeds)

    def with_rates(self, rates: Rates) -> Plan:
        """The plan with these learning rates."""
        return replace(self, rates=rates)

    def item(self, seed: int, place: Path, rates: Rates, world: Run | None = None) -> Item:
        """A training seed with its agents in `place`, learning at `rates`, in `world` when it is not its own."""
        mine = self._config(seed, _rate(rates, "bc"))
        baseline = self._config(seed, [*self.settings.scratch, *_rate(rates, "scratch")])
        if world is None and self.settings.whole_roads:
            run = Run(mine, place)
        else:
            run = AgentsRun(mine, (world or self.base).folder, (world or self.base).store, place)
        return Item(seed, run, replace(run, config=baseline), place)

    def _config(self, seed: int, changes: Sequence[str]) -> RunConfig:
        all_changes = [*changes, f"run.seed={seed}"]
        changed = apply_overrides(self.shared, all_changes)
        return validate(RunConfig, changed, f"{self.path}, seed {seed}", all_changes)


def _rate(rates: Rates, agent: str) -> list[str]:
    return as_overrides({RATE: rates.get(agent)})


# ---------------------------------------------------------------- reading


def load_plan(path: Path, folder: Path | None, overrides: Sequence[str]) -> Plan:
    """Read a study.toml and check every seed's config.

    Args:
        path: the file.
        folder: where artifacts go; `runs/study-NAME` when not given, with the run's name.
        overrides: laid over the run.

    Raises:
        InputError: the file, or one that it names, is missing.
        ConfigError: a key or value does not fit, seeds or agents repeat, an agent is not known, the baseline changes
            more than its training, or a game sets what its preset has for all.
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
    _check_search(path, settings)
    config = path.parent / settings.run
    shared = read_toml(config)
    if settings.preset is not None:
        shared = _over_preset(path.parent / settings.preset, config, shared, overrides)
    shared = apply_overrides(shared, overrides)
    base_config = validate(RunConfig, shared, str(config), overrides)
    base = Run(base_config, folder or Path("runs") / f"study-{base_config.run.name}")
    plan = Plan(path, base, settings, shared)
    assert plan.items, "seeds are not empty"  # and every config was made, so that faults show now
    return plan


def _check_search(path: Path, settings: Settings) -> None:
    search = settings.search
    if not search.learning_rates:
        return
    require_distinct(path, "search.learning_rates", search.learning_rates, "name each learning rate once")
    require_distinct(path, "search.agents", search.agents, "name each agent once")
    if search.seed in settings.seeds:
        raise ConfigError(
            f"{path}: search.seed {search.seed} is one of the seeds; what is searched on them is no test",
            hint="take another one",
        )
    silent = [name for name in search.agents if name not in settings.agents]
    if silent:
        raise ConfigError(
            f"{path}: search.agents has {silent[0]}, who does not play", hint="let it play, or leave it out"
        )
    if "scratch" in search.agents and any(split_override(change)[0] == RATE for change in settings.scratch):
        raise ConfigError(f"{path}: scratch sets {RATE}, which [search] chooses", hint="leave it out of one of them")


def _over_preset(preset: Path, config: Path, game: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The preset with what is a game's own laid over it.

    Raises:
        ConfigError: the game, or an override, sets anything else.
    """
    rule = f"{preset} has that for all games: only [data] and {', '.join(PER_GAME[:-1])} may differ"
    hint = f"change {preset}, and with it every game's study"
    for key in _keys(game):
        if not f"{key}.".startswith(PER_GAME):
            raise ConfigError(f"{config} sets {key}; {rule}", hint=hint)
    require_within(overrides, PER_GAME, "--set gives", rule, hint)
    return _merged(read_toml(preset), game)


def _keys(table: Mapping[str, Any], place: str = "") -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, Mapping) and f"{place}{name}." != "data.":
            yield from _keys(value, f"{place}{name}.")
        else:
            yield f"{place}{name}"


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: _merged(below[name], value)
        if isinstance(value, Mapping) and isinstance(below.get(name), Mapping)
        else value
        for name, value in above.items()
    }
    return {**below, **both}
