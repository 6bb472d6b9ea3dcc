"""What the columns, keys and events of a side-car are: a small TOML file that takes the place of code.

A side-car has one row for each frame, or is a log of events on a clock; README, "Your own recordings", shows both.
"""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from ahriuwu_cli.core.config import Section, read_toml
from ahriuwu_cli.core.errors import ConfigError, InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, Aggregate
from ahriuwu_cli.episodes.events import EVENT_NAME

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
SHIPPED = "mappings"


class TimeMap(Section):
    """When a row was."""

    column: str = Field(default="", description="column of the time; empty: row i is of frame i")
    unit: Literal["s", "ms", "us", "ns", "frames"] = Field(default="s", description="of the column")
    zero: Literal["video", "first row"] = Field(
        default="video", description="what time 0 is: the video's own zero, or the moment of the first row"
    )
    offset: float = Field(default=0.0, description="seconds in the video when the log's zero was")


class ActionMap(Section):
    """One component of the action, and where it is found.

    Rows hold it in `columns`. In a log, switches are `keys` that go down and up; numbers are in `columns` of the
    entries of kind `of`.
    """

    name: str = Field(min_length=1)
    type: Literal["categorical", "binary", "continuous"]
    columns: list[str] = Field(default_factory=list, description="one, or one for each switch or number")
    keys: list[str] = Field(default_factory=list, description="in a log: the names of keys or buttons")
    of: list[str] = Field(default_factory=list, description="in a log: kinds of entries that have the columns")
    labels: list[str] = Field(default_factory=list, description="names of the classes or switches")
    num_classes: int | None = Field(default=None, ge=2, le=1 << 20)
    low: float | None = None
    high: float | None = None
    clip: bool = Field(default=False, description="bring numbers beyond low and high to these; else they are defects")
    words: dict[str, float] = Field(default_factory=dict, description="numbers for text")
    aggregate: Aggregate | None = Field(default=None, description="how many between two frames become one")

    @model_validator(mode="after")
    def _complete(self) -> ActionMap:
        if bool(self.columns) == bool(self.keys):
            raise ValueError(f"action {self.name!r} needs columns, or keys, and not both")
        if self.type == "continuous" and self.aggregate is None:
            raise ValueError(f"action {self.name!r} is continuous: say its aggregate (sum, mean or last)")
        if self.keys and self.type != "binary":
            raise ValueError(f"action {self.name!r} has keys and is {self.type}; keys are binary")
        self.component()
        return self

    def component(self) -> ActionComponent:
        """The component of the action spec."""
        count = len(self.columns or self.keys)
        usual: Aggregate = "any" if self.type == "binary" else "mode"
        labels = self.labels or self.keys
        return ActionComponent(
            name=self.name,
            type=self.type,
            dim=count,
            num_classes=self.num_classes or (len(self.labels) if self.type == "categorical" and self.labels else None),
            low=self.low,
            high=self.high,
            labels=tuple(labels),
            aggregate=self.aggregate or usual,
        )


class ValueMap(Section):
    """A reward or an event: a column of rows, or entries of a log, each worth `value` where no column says how much."""

    column: str = ""
    of: list[str] = Field(default_factory=list)
    value: float = 1.0
    words: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _somewhere(self) -> ValueMap:
        if not self.column and not self.of:
            raise ValueError("needs a column, or the kinds of entries it is told by")
        return self


class LogMap(Section):
    """Which columns of a log say what an entry is."""

    kind: str = Field(min_length=1, description="column of the kind of entry")
    key: str = Field(default="", description="column of the key's name")
    down: list[str] = Field(default_factory=list, description="kinds that say a key went down")
    up: list[str] = Field(default_factory=list, description="kinds that say it went up")


class Mapping(Section):
    """A whole mapping."""

    suffix: str = Field(default="", description="what a side-car's name has after the video's; empty: any table")
    led: bool = Field(default=False, description="a row has the action that led to its frame, not the one taken at it")
    time: TimeMap = Field(default_factory=TimeMap)
    log: LogMap | None = Field(default=None, description="the side-car is a log of events; else it has rows of frames")
    actions: list[ActionMap] = Field(default_factory=list)
    reward: ValueMap | None = None
    events: dict[str, ValueMap] = Field(default_factory=dict)
    terminal: str = Field(default="", description="column that is true in the last row where the game ended")
    known: str = Field(default="", description="of rows of frames: column that is true where the action is known")
    task: str = Field(default="", description="column of the name of the task; what its first row says is taken")

    @model_validator(mode="after")
    def _consistent(self) -> Mapping:
        names = [action.name for action in self.actions]
        if len(set(names)) != len(names):
            raise ValueError(f"two actions have one name: {names}")
        if self.log is None and any(action.keys for action in self.actions):
            raise ValueError("keys that go down and up are in a log: add [log], or give columns")
        if self.log is not None and self.known:
            raise ValueError("known is a column of rows of frames; a log has none")
        if self.log is not None and not self.time.column:
            raise ValueError("entries of a log need a time: give time.column")
        for name in self.events:
            if not EVENT_NAME.fullmatch(name):
                raise ValueError(f"event {name!r}; expected a name like {EVENT_NAME.pattern}")
        return self

    def action_spec(self) -> ActionSpec:
        """The spec of its actions."""
        return (
            ActionSpec(components=tuple(action.component() for action in self.actions)) if self.actions else UNLABELLED
        )


UNLABELLED = ActionSpec(components=(ActionComponent(name="unlabelled", type="binary", aggregate="any"),))
"""Of recordings that say nothing of actions: one switch that is never known."""


def read_mapping(mapping: str | dict[str, Any]) -> dict[str, Any] | str:
    """The content of a mapping: of a TOML file, or of one that comes with this package, by name; as it is otherwise.

    Raises:
        InputError: there is neither a file nor a mapping of that name.
        ConfigError: the file is no TOML.
    """
    if not isinstance(mapping, str) or not mapping:
        return mapping
    path = Path(mapping)
    if path.suffix == ".toml" or path.exists():
        return read_toml(path)
    if mapping not in shipped_names():
        raise InputError(
            f"there is no mapping {mapping!r}; those that come with ahriuwu are {', '.join(shipped_names())}",
            hint="give one of them, or the path of a .toml file",
        )
    with resources.as_file(_folder() / f"{mapping}.toml") as file:
        return read_toml(file)


def shipped_names() -> list[str]:
    """Names of the mappings that come with this package, for any kind."""
    return sorted(Path(entry.name).stem for entry in _folder().iterdir())


def _folder() -> Traversable:
    return resources.files("ahriuwu_cli.sources.imports") / SHIPPED


def as_mapping(values: dict[str, Any]) -> Mapping:
    """A checked mapping.

    Raises:
        ConfigError: a key is unknown, or values do not go together.
    """
    try:
        return Mapping.model_validate(values)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"])) or "the mapping"
        raise ConfigError(f"mapping: {place}: {fault['msg']}", hint="see README, Your own recordings") from error
