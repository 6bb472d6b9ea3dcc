"""Events: what a game says happened at a step, beside its reward; a task can be rewarded for one of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ahriuwu_cli.core.errors import DataError

EVENTS = "events"  # key under which an environment's info of a step maps names of events to numbers
EVENT_NAME = re.compile(r"[A-Za-z0-9_]+")

EVENT_HINT = 'wrap the environment so that info["events"] maps names of letters, digits and _ to numbers'


def event_array(name: str) -> str:
    """Name of an event's array in episode files and packed shards."""
    return f"{EVENTS}.{name}"


def event_of(array: str) -> str | None:
    """The event that an array of an episode file holds; None for the arrays that every episode has."""
    prefix, dot, name = array.partition(".")
    return name if prefix == EVENTS and dot else None


def events_of(info: Mapping[str, Any]) -> dict[str, float]:
    """The events of one step: name to number (a bool counts 0 or 1); empty where the environment says nothing.

    Raises:
        DataError: `info["events"]` is no mapping of proper names to finite numbers.
    """
    found = info.get(EVENTS, {})
    if not isinstance(found, Mapping):
        raise DataError(f"info[{EVENTS!r}] is {type(found).__name__}; expected a mapping", hint=EVENT_HINT)
    return {_checked_name(name): _number(name, value) for name, value in found.items()}


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not EVENT_NAME.fullmatch(name):
        raise DataError(f"info[{EVENTS!r}] names an event {name!r}; expected {EVENT_NAME.pattern}", hint=EVENT_HINT)
    return name


def _number(name: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    with np.errstate(over="ignore"):
        if not np.isfinite(np.float32(number)):
            raise DataError(f"event {name!r} is {value!r}; expected a finite number", hint=EVENT_HINT)
    return number
