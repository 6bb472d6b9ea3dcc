"""What a tune.toml asks for: a run, the stage whose held-out metric judges, which keys, and where each trial lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ahriuwu_cli.agent.heldout import GOAL as CLONING
from ahriuwu_cli.core.config import Section, apply_overrides, read_toml, validate
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.training.stage import Goal
from ahriuwu_cli.dynamics.heldout import GOAL as DENOISING
from ahriuwu_cli.experiments.plans import CADENCES, plan_section
from ahriuwu_cli.experiments.tune.space import EXAMPLE, Key, Value, read_keys
from ahriuwu_cli.pipeline.config import Run, RunConfig
from ahriuwu_cli.tokenizer.train import GOAL as RECONSTRUCTION

StageName = Literal["tokenizer", "dynamics", "agent", "scratch"]
MEASURING = {*CADENCES, "heldout_every", "heldout_examples"}
"""Settings of a training that are about looking at it."""
MADE_FROM = {"tokenizer": ("tokenizer", "latents", "packed", "dynamics"), "dynamics": ("dynamics",)}
"""What is made anew where a key of the section differs; agents always are."""


@dataclass(frozen=True)
class Searched:
    """One stage that can be searched.

    Attributes:
        goal: its own metric.
        section: of its training.
        open: beginnings of the keys that shape what its metric judges.
        closed: of those, beginnings of the ones that decide what is measured.
    """

    goal: Goal
    section: str
    open: tuple[str, ...]
    closed: tuple[str, ...]


# Decision: an agent's search may train tokenizer and dynamics anew, since its metric is the likelihood of the same
# actions whatever latents it sees; one of the dynamics may train no tokenizer: its metric is in units of the latents.
_AGENTS = ("agent.batch_length", "agent.heads.mtp_length", "agent.heads.action_bins", "agent.relevant",
           "agent.relevant_quantile", "agent.relevant_reach", "agent.tasks")  # fmt: skip
STAGES: dict[StageName, Searched] = {
    "tokenizer": Searched(
        RECONSTRUCTION, "tokenizer", ("tokenizer.",), ("tokenizer.clip_length", "tokenizer.loss.ignored_regions")
    ),
    "dynamics": Searched(
        DENOISING,
        "dynamics",
        ("dynamics.",),
        ("dynamics.long_length", "dynamics.model.k_max", "dynamics.model.latent_scale"),
    ),
    "agent": Searched(CLONING, "agent", ("tokenizer.", "dynamics.", "agent."), _AGENTS),
    "scratch": Searched(
        CLONING, "agent", ("tokenizer.", "dynamics.model.", "dynamics.sampler.", "agent."), _AGENTS
    ),
}  # fmt: skip


class Settings(Section):
    """The keys of a tune.toml above `[keys]`."""

    run: str = Field(default="run.toml", min_length=1, description="config of the run, beside this file")
    stage: StageName = Field(description="whose held-out metric judges")
    metric: str | None = Field(
        default=None, pattern="^heldout_[a-z0-9_]+$", description="another metric than the stage's own"
    )
    higher: bool = Field(default=False, description="of that other metric more is better")
    trials: int = Field(ge=1, le=100_000, description="trials in all, over all calls and processes")
    seed: int = Field(
        default=1_000_000,
        ge=0,
        le=2**31 - 1,
        description="training seed of every trial, and what the search draws from; none that results are made with",
    )


@dataclass(frozen=True)
class TrialRun(Run):
    """A run of its own but for what it shares with `base`: everything that is not in `own`."""

    base: Run | None = None
    own: frozenset[str] = frozenset()

    def _home(self, kind: str) -> Run:
        assert self.base is not None, "a trial has a base"
        return Run(self.config, self.folder, self.store) if kind in self.own else self.base

    @property
    def episodes(self) -> Path:
        """The base's recordings."""
        return self._home("episodes").episodes

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's weights."""
        return self._home("tokenizer").tokenizer

    @property
    def latents(self) -> Path:
        """Latents per episode (a folder)."""
        return self._home("latents").latents

    @property
    def packed(self) -> Path:
        """Latents in shards (a folder)."""
        return self._home("packed").packed

    @property
    def dynamics(self) -> Path:
        """The dynamics' weights."""
        return self._home("dynamics").dynamics


@dataclass(frozen=True)
class Plan:
    """A whole search.

    Attributes:
        path: the tune.toml.
        folder: where trials and results go.
        config: of the run, as it is.
        settings: stage, metric, how many trials.
        keys: what is searched.
        shared: the run's config as plain values.
    """

    path: Path
    folder: Path
    config: RunConfig
    settings: Settings
    keys: tuple[Key, ...]
    shared: Mapping[str, Any]

    @property
    def stage(self) -> Searched:
        """What is searched."""
        return STAGES[self.settings.stage]

    @property
    def goal(self) -> Goal:
        """The metric that judges."""
        asked = self.settings
        return self.stage.goal if asked.metric in (None, self.stage.goal.name) else Goal(asked.metric, asked.higher)

    @property
    def own(self) -> frozenset[str]:
        """Kinds of artifacts before the judged stage that every trial makes for itself."""
        own = {kind for key in self.keys for kind in MADE_FROM.get(key.name.partition(".")[0], ())}
        if self.settings.stage == "scratch":
            own -= {"dynamics"}
        return frozenset(own)

    @property
    def bases(self) -> tuple[Run, Run]:
        """Where what the trials share may lie: beside the run.toml, and in the folder of the search."""
        return Run(self.config, (self.path.parent / self.settings.run).parent), Run(self.config, self.folder)

    def place(self, number: int) -> Path:
        """Folder of a trial."""
        return self.folder / "trials" / f"{number:03d}"

    def trial_run(self, base: Run, number: int, values: Mapping[str, Value]) -> TrialRun:
        """The run of one trial.

        Raises:
            ConfigError: these values do not go together.
        """
        changes = [*self.overrides(values), f"run.seed={self.settings.seed}"]
        config = validate(RunConfig, apply_overrides(self.shared, changes), f"{self.path}, trial {number}")
        return TrialRun(config, self.place(number), base=base, own=self.own)

    def overrides(self, values: Mapping[str, Value]) -> list[str]:
        """`section.key=value` of what the search has handed out."""
        return [key.override(values[key.name]) for key in self.keys]

    def given(self) -> dict[str, Value] | None:
        """The run's own values; None where the search would never hand them out."""
        values = {key.name: key.given(self.config) for key in self.keys}
        found = {name: value for name, value in values.items() if value is not None}
        return found if len(found) == len(values) else None


def load_plan(path: Path, folder: Path | None, overrides: Sequence[str]) -> Plan:
    """Read a tune.toml and check every key and value in it.

    Args:
        path: the file.
        folder: where trials go; `runs/tune-NAME` when not given, with the run's name.
        overrides: laid over the run.

    Raises:
        InputError: the file, or the run.toml that it names, is missing.
        ConfigError: a key or value does not fit, or belongs to another stage, or nothing is held out.
    """
    data = read_toml(path)
    table = data.pop("keys", None)
    settings = plan_section(Settings, data, str(path), EXAMPLE)
    config = path.parent / settings.run
    shared = apply_overrides(read_toml(config), overrides)
    base = validate(RunConfig, shared, str(config), overrides)
    keys = tuple(read_keys(path, table, shared))
    plan = Plan(path, folder or Path("runs") / f"tune-{base.run.name}", base, settings, keys, shared)
    for key in keys:
        _check_key(plan, key.name)
    _check_metric(plan)
    return plan


def _check_key(plan: Plan, name: str) -> None:
    """Refuse a key that the metric does not hear of, or that changes what it measures."""
    stage, where = plan.settings.stage, f"{plan.path}: [keys] has {name}"
    if not name.startswith(plan.stage.open):
        beginnings = ", ".join(f"{start}*" for start in plan.stage.open)
        fitting = [other for other, searched in STAGES.items() if name.startswith(searched.open)]
        hint = f"search it with stage = {fitting[0]!r}" if fitting else "set it in the run's config, or with --set"
        raise ConfigError(f"{where}, which does not shape the {stage} on equal terms; expected {beginnings}", hint=hint)
    leaf = name.rpartition(".")[2]
    meets = any(f"{name}.".startswith(f"{key}.") or key.startswith(f"{name}.") for key in plan.stage.closed)
    if meets or leaf in MEASURING or leaf == "train":
        raise ConfigError(
            f"{where}, which decides what is measured or how often: {plan.goal.name} would not compare trials",
            hint="set it in the run's config, or with --set, for all trials",
        )


def _check_metric(plan: Plan) -> None:
    """Refuse what no trial could measure."""
    settings, section = plan.settings, plan.stage.section
    if settings.metric is None and settings.higher:
        raise ConfigError(f"{plan.path}: higher is for another metric than the stage's own", hint="name the metric too")
    if settings.metric == plan.stage.goal.name and settings.higher != plan.stage.goal.higher:
        raise ConfigError(f"{plan.path}: of {settings.metric} less is better", hint="leave higher out")
    if not getattr(plan.config, section).train.heldout_every:
        key = f"{section}.train.heldout_every"
        raise ConfigError(
            f"{plan.path}: {key} is 0, so that no trial would measure {plan.goal.name}",
            hint=f"give --set {key}=100, or change it in the run's config",
        )
