"""What a tune.toml lets a key be: a range of numbers or a list of choices, held against the run's config."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from ahriuwu_cli.core.config import Section, apply_overrides, validate
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.schema import allowed, alternatives, walk
from ahriuwu_cli.core.toml import value_text
from ahriuwu_cli.experiments.plans import plan_section
from ahriuwu_cli.pipeline.config import RunConfig

EXAMPLE = "examples/bricks/tune.toml"
MOST_CHECKED = 64
"""A range of so many integers has each of them checked beforehand, a longer one its ends."""

Value = int | float | str
"""What the search hands out: a number of a range, or the TOML text of a choice."""


class Range(Section):
    """Numbers from low to high, both included; integers where the key is one."""

    low: int | float = Field(description="least value")
    high: int | float = Field(description="largest value")
    step: int | float | None = Field(default=None, gt=0, description="distance of neighbouring values; absent for 1")
    log: bool = Field(default=False, description="every order of magnitude is as likely")

    @model_validator(mode="after")
    def _is_a_range(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0 and no step")
        if self.step is not None and not _is_whole((self.high - self.low) / self.step):
            raise ValueError(f"high {self.high} is no whole number of steps of {self.step} from low {self.low}")
        return self

    def holds(self, value: Any) -> bool:
        """True for a number of the range."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or _is_whole((value - self.low) / self.step)


class Choices(Section):
    """Values without an order."""

    choices: list[Any] = Field(min_length=2, description="any values that TOML has")

    @model_validator(mode="after")
    def _are_distinct(self) -> Choices:
        if len(set(self.texts)) != len(self.texts):
            raise ValueError(f"choices are {', '.join(self.texts)}; expected distinct ones")
        return self

    @property
    def texts(self) -> list[str]:
        """The choices as TOML."""
        return [value_text(choice) for choice in self.choices]


@dataclass(frozen=True)
class Key:
    """One key that is searched.

    Attributes:
        name: its dotted path in run.toml.
        space: what it may be.
        integer: a range holds integers only.
    """

    name: str
    space: Range | Choices
    integer: bool = False

    def override(self, value: Value) -> str:
        """`section.key=value` of a value that the search has handed out."""
        return f"{self.name}={value if isinstance(self.space, Choices) else value_text(value)}"

    def given(self, config: Section) -> Value | None:
        """The value in a config as the search would hand it out; None where the search never would."""
        found: Any = config
        for part in self.name.split("."):
            found = getattr(found, part)
        if isinstance(found, Section) or found is None:
            return None
        if isinstance(self.space, Choices):
            text = value_text(found)
            return text if text in self.space.texts else None
        return found if self.space.holds(found) else None

    def checked(self) -> list[Value]:
        """Values that stand for all when the space is checked."""
        space = self.space
        if isinstance(space, Choices):
            return [*space.texts]
        if self.integer:
            low, high, step = int(space.low), int(space.high), int(space.step or 1)
            if (high - low) // step < MOST_CHECKED:
                return [*range(low, high + 1, step)]
        return [space.low, space.high]


def read_keys(path: Path, table: Any, shared: Mapping[str, Any]) -> list[Key]:
    """The `[keys]` of a tune.toml, every one of them a key of the run's config that takes all values it is given.

    Args:
        path: the tune.toml.
        table: what `[keys]` holds; names may be quoted (`"a.b" = ...`) or not.
        shared: the run's config as plain values.

    Raises:
        ConfigError: there is none, one is unknown or no number where a range is given, a value is out of its bounds.
    """
    if not isinstance(table, dict) or not table:
        raise ConfigError(f"{path} has no [keys]; expected one at least", hint=f"see {EXAMPLE}")
    fields = dict(walk(RunConfig, shared))
    keys = []
    for name, data in _flat(table):
        where = f"{path}, [keys] {name}"
        is_list = isinstance(data, dict) and "choices" in data
        kind: type[Range] | type[Choices] = Choices if is_list else Range
        space: Range | Choices = plan_section(kind, data, where, EXAMPLE)
        if name not in fields:  # the config itself knows how to say what is near
            validate(RunConfig, apply_overrides(shared, [f"{name}=0"]), f"{path}, [keys]")
        keys.append(Key(name, space, _is_integer(where, fields[name], space)))
    for key in keys:
        for value in key.checked():
            validate(RunConfig, apply_overrides(shared, [key.override(value)]), f"{path}, [keys]")
    return keys


def _is_integer(where: str, field: FieldInfo, space: Range | Choices) -> bool:
    """True where a range is one of integers.

    Raises:
        ConfigError: the key is no number, or an integer with a range that has others.
    """
    kinds = alternatives(field.annotation)
    if isinstance(space, Choices) or float in kinds:
        return False
    if int not in kinds:
        raise ConfigError(f"{where} has a range; the key is {allowed(field)}", hint="give it `choices = [...]`")
    if not _are_integers(space.low, space.high, space.step or 1):
        raise ConfigError(f"{where} has a range of fractions; the key is {allowed(field)}", hint="give it integers")
    return True


def _is_whole(count: float) -> bool:
    return math.isclose(count, round(count), abs_tol=1e-9)


def _are_integers(*values: float) -> bool:
    return all(isinstance(value, int) for value in values)


def _flat(table: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names with what stands behind them: a table whose values are all tables is a part of a name."""
    for name, value in table.items():
        if isinstance(value, dict) and value and all(isinstance(inner, dict) for inner in value.values()):
            yield from _flat(value, f"{place}{name}.")
        else:
            yield f"{place}{name}", value
