"""Which arrays of an HDF5 file are what: mappings as TOML, those that come with this program and one's own."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.specs import LARGEST, RULES, ActionComponent, Aggregate
from ahriuwu_cli.sources.imports.array_pictures import Colours
from ahriuwu_cli.sources.imports.hdf5_files import NUMBER
from ahriuwu_cli.sources.imports.mapping import read_mapping, shipped_names

ANY = "*"
"""In the path of a group: a number; in that of pictures: the name of a camera."""


class Column(Section):
    """Numbers, a row for each step."""

    path: str = Field(min_length=1, description="of the array, within the group; {i}: one array for each row")
    columns: list[int] = Field(default_factory=list, description="first column, and the one after the last; all")

    @model_validator(mode="after")
    def _in_order(self) -> Column:
        if self.columns and not (len(self.columns) == 2 and 0 <= self.columns[0] < self.columns[1] <= LARGEST):
            raise ValueError("columns is [first, after the last]")
        if self.path.count(NUMBER) > 1:
            raise ValueError(f"path has {NUMBER} more than once")
        return self


class Pictures(Section):
    """Frames."""

    path: str = Field(min_length=1, description="of the array, within the group; * stands for the name of a camera")
    order: Colours = Field(default="rgb", description="order of the colours")
    encoded: bool = Field(default=False, description="each row is the bytes of a picture file")
    shape: list[int] = Field(default_factory=list, description="of a picture, where rows are flat")
    pixels: Literal["auto", "bytes", "unit"] = Field(
        default="auto", description="bytes: 0 to 255; unit: 0 to 1; auto: unit where they are no whole numbers"
    )


class Action(Column):
    """One component of the action."""

    name: str = Field(min_length=1, description="of the component")
    type: Literal["continuous", "binary", "categorical", "one_hot"] = Field(description="what its numbers are")
    low: float | None = Field(default=None, description="lowest value; absent: that of the data")
    high: float | None = Field(default=None, description="highest value; absent: that of the data")
    first: int = Field(default=0, description="number of the first choice of a categorical one")
    num_classes: int | None = Field(default=None, ge=2, le=LARGEST, description="choices; absent: those in the data")
    labels: list[str] = Field(default_factory=list, description="names of columns or choices")
    aggregate: Aggregate | None = Field(default=None, description="how actions between two frames become one")

    @property
    def kind(self) -> Literal["continuous", "binary", "categorical"]:
        """Type of the component that it becomes."""
        return "categorical" if self.type == "one_hot" else self.type

    @property
    def rule(self) -> Aggregate:
        """`aggregate`, or what mostly fits: the mean of numbers, any press, what was chosen longest."""
        default: dict[str, Aggregate] = {"continuous": "mean", "binary": "any", "categorical": "mode"}
        return self.aggregate or default[self.kind]

    @model_validator(mode="after")
    def _fits(self) -> Action:
        if self.rule not in RULES[self.kind]:
            raise ValueError(f"aggregate of a {self.kind} component is one of {', '.join(RULES[self.kind])}")
        if self.low is not None and self.high is not None:
            ActionComponent(name=self.name, type="continuous", low=self.low, high=self.high)
        return self


class Came(Column):
    """What came back with a frame."""

    frame: Literal["next", "same"] = Field(default="next", description="row t came with frame t + 1, or with frame t")


class Event(Came):
    """What happened in the game, one number a row."""

    name: str = Field(min_length=1, description="of the event")


class HdfMapping(Section):
    """Which arrays of a file are what."""

    says: str = Field(default="", description="what it reads, in words")
    known_by: list[str] = Field(default_factory=list, description="paths by which such a file is known")
    fps: float = Field(default=15.0, gt=0, le=1000, description="rows per second")
    group: str = Field(default="", description="path of an episode's group, with * for its number; empty: the file")
    ends: list[str] = Field(
        default_factory=list, description="arrays that are not zero in the last row of an episode; none: groups are one"
    )
    terminal: str = Field(default="", description="array that is not zero in a row that ended the game")
    optional: list[str] = Field(default_factory=list, description="arrays, beside actions, that may be missing")
    subsets: str = Field(default="", description="path of the group with lists of episodes' names, for option subset")
    alignment: Literal["chosen", "led"] = Field(
        default="chosen", description="chosen: row t has the action chosen on seeing frame t; led: that led to it"
    )
    pictures: list[Pictures] = Field(min_length=1, description="frames; several are cameras")
    actions: list[Action] = Field(min_length=1, description="components of the action")
    reward: Came | None = Field(default=None, description="rewards")
    events: list[Event] = Field(default_factory=list, description="events")

    @model_validator(mode="after")
    def _names(self) -> HdfMapping:
        for names in ([part.name for part in self.actions], [event.name for event in self.events]):
            if len(set(names)) != len(names):
                raise ValueError(f"names repeat: {', '.join(names)}")
        if self.group.count(ANY) > 1 or any(picture.path.count(ANY) > 1 for picture in self.pictures):
            raise ValueError(f"a path has {ANY} more than once")
        return self


# ---------------------------------------------------------------- where mappings are from


@cache
def shipped() -> dict[str, HdfMapping]:
    """Mappings of HDF5 files that come with this program, by name."""
    found = {name: read_mapping(name) for name in shipped_names()}
    return {
        name: HdfMapping.model_validate(table)
        for name, table in found.items()
        if isinstance(table, dict) and "pictures" in table
    }


def as_mapping(given: str | dict[str, Any]) -> HdfMapping:
    """A mapping by its name, from a TOML file, or as a table.

    Raises:
        InputError: there is none of that name.
        ConfigError: the file is no TOML, or it makes no sense.
    """
    table = read_mapping(given)
    assert isinstance(table, dict)
    try:
        return HdfMapping.model_validate(table, strict=True)
    except ValidationError as error:
        faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
        place, reason = ".".join(map(str, faults[0]["loc"])), str(faults[0]["msg"]).removeprefix("Value error, ")
        if faults[0]["type"] == "extra_forbidden":
            reason = "there is no such key"
        reason = " ".join(reason.split())[:300]
        raise ConfigError(
            f"{given if isinstance(given, str) else 'mapping'}: {f'{place}: ' if place else ''}{reason}",
            hint=f"keys of a mapping of HDF5 files: {', '.join(HdfMapping.model_fields)}",
        ) from error
