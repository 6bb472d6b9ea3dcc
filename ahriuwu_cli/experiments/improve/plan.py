"""What an improve.toml asks for: a base run, how many rounds, what each records, and where everything lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ahriuwu_cli.core.config import Section, apply_overrides, read_toml, validate
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.experiments.plans import AgentsRun, plan_section, require_within
from ahriuwu_cli.pipeline.config import Run, RunConfig

EXAMPLE = "examples/improve.toml"
CHANGEABLE = ("agent.", "imagine.")
"""Where later rounds may differ from the base run: tokenizer and dynamics are made once, in round 0."""


class Settings(Section):
    """The keys of an improve.toml."""

    run: str = Field(default="run.toml", min_length=1, description="config of the base run, beside or below this file")
    rounds: int = Field(default=3, ge=1, le=1000, description="rounds after round 0, which is the base run's own road")
    episodes: int = Field(default=100, ge=1, description="episodes that each round records with the policy before it")
    temperature: float = Field(default=1.0, gt=0, le=10, description="policy temperature when recording: exploration")
    evaluate: int = Field(default=100, ge=1, description="paired episodes of the evaluation that ends each round")
    overrides: list[str] = Field(
        default_factory=list, description="`agent.key=value` or `imagine.key=value`, for the rounds after round 0"
    )


@dataclass(frozen=True)
class Round:
    """One round: 0 is the base run's own road, the others record first.

    Attributes:
        number: from 0.
        run: its config and where its artifacts lie.
    """

    number: int
    run: AgentsRun

    @property
    def data(self) -> Path:
        """What the round was trained on (JSON), written when it is recorded, encoded and packed."""
        return self.run.place / "data.json"

    @property
    def result(self) -> Path:
        """Its returns (JSON)."""
        return self.run.place / "result.json"

    def __str__(self) -> str:
        return f"round {self.number}"


@dataclass(frozen=True)
class Plan:
    """A whole improvement.

    Attributes:
        path: the improve.toml.
        base: the base run where its config lies; it is read, never written.
        settings: the keys of the file.
        rounds: in order.
    """

    path: Path
    base: Run
    settings: Settings
    rounds: tuple[Round, ...]

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.rounds[0].run.folder


def load_plan(path: Path, folder: Path | None, rounds: int | None, overrides: Sequence[str]) -> Plan:
    """Read an improve.toml and check the config of its rounds.

    Args:
        path: the file.
        folder: where artifacts go; `runs/improve-NAME` when not given, with the base run's name.
        rounds: instead of the file's.
        overrides: laid over the base run, below the file's own.

    Raises:
        InputError: the file, or the run.toml it names, is missing; or `folder` is the base run's.
        ConfigError: a key or value does not fit, or later rounds change more than agent and imagination.
    """
    data = read_toml(path) | ({} if rounds is None else {"rounds": rounds})
    settings = plan_section(Settings, data, str(path), EXAMPLE)
    config = path.parent / settings.run
    shared = apply_overrides(read_toml(config), [*overrides, f"eval.episodes={settings.evaluate}"])
    first = validate(RunConfig, shared, str(config), overrides)
    require_within(
        settings.overrides,
        CHANGEABLE,
        f"{path}: overrides set",
        "later rounds may change keys of [agent] and [imagine] only",
        "change it for all rounds in the base run's config, or with --set",
    )
    later = validate(RunConfig, apply_overrides(shared, settings.overrides), str(path), settings.overrides)
    place = folder or Path("runs") / f"improve-{first.run.name}"
    if place.resolve() == config.parent.resolve():
        raise InputError(
            f"{place} is the folder of the base run, which is left as it is", hint="give another folder with --dir"
        )
    made = [
        Round(number, AgentsRun(later if number else first, place, place=place / f"round-{number}"))
        for number in range(settings.rounds + 1)
    ]
    return Plan(path, Run(first, config.parent), settings, tuple(made))
