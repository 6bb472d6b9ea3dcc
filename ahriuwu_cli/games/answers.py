"""What an environment gave back, checked: `reset` and `step` as Gymnasium has them, numbers that are numbers."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from ahriuwu_cli.core.errors import DataError, ForeignError

FORM = "reset gives (observation, info), step gives (observation, reward, terminated, truncated, info)"
HINT = f"correct the environment: {FORM}"
DEFAULT_FPS = 15.0
FASTEST = 1000.0


def reset_answer(answer: Any, env_id: str) -> tuple[Any, dict[str, Any]]:
    """Observation and info of a reset.

    Raises:
        ForeignError: it is not of that form.
    """
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise ForeignError(f"{env_id}: reset gave {_form(answer)}; expected 2 values", hint=HINT)
    return answer[0], _info(answer[1], f"{env_id}: reset")


def step_answer(answer: Any, env_id: str, step: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    """Observation, reward, terminated, truncated and info of step `step` (from 0).

    Raises:
        ForeignError: it is not of that form.
        DataError: the reward is not finite.
    """
    if not isinstance(answer, tuple) or len(answer) != 5:
        raise ForeignError(f"{env_id}: step gave {_form(answer)}; expected 5 values", hint=HINT)
    where = f"{env_id}: step {step}"
    reward = _number(answer[1])
    if reward is None:
        raise ForeignError(f"{where} gave the reward {_shown(answer[1])}; expected a number", hint=HINT)
    if not _is_finite(reward):
        raise DataError(f"{where} gave the reward {reward}; expected a finite 32-bit number", hint=HINT)
    flags = []
    for name, value in zip(("terminated", "truncated"), answer[2:4], strict=True):
        flag = _number(value)
        if flag not in (0.0, 1.0):
            raise ForeignError(f"{where} gave {name} = {_shown(value)}; expected True or False", hint=HINT)
        flags.append(bool(flag))
    return answer[0], reward, flags[0], flags[1], _info(answer[4], where)


def frames_per_second(metadata: Any) -> tuple[float, list[str]]:
    """`render_fps` of an environment's metadata, 15 where it names none; and what is to be said of it."""
    found = metadata.get("render_fps") if isinstance(metadata, Mapping) else None
    fps = None if isinstance(found, bool | np.bool_) else _number(found)
    if fps is not None and 0 < fps <= FASTEST:
        return fps, []
    if found is None or fps == 0:
        return DEFAULT_FPS, []
    return DEFAULT_FPS, [f"render_fps is {_shown(found)}, which is no rate: taken as {DEFAULT_FPS:g}; data.fps says it"]


def _number(value: Any) -> float | None:
    """A Python, NumPy or single-entry array's number; None for anything else."""
    if isinstance(value, np.ndarray | np.generic) or (hasattr(value, "shape") and hasattr(value, "item")):
        if np.prod(value.shape, dtype=int) != 1:
            return None
        value = value.item()
    return float(value) if isinstance(value, numbers.Real) else None


def _is_finite(number: float) -> bool:
    with np.errstate(over="ignore"):
        return math.isfinite(np.float32(number))


def _info(info: Any, where: str) -> dict[str, Any]:
    if not isinstance(info, dict):
        raise ForeignError(f"{where} gave {_shown(info)} for info; expected a dict", hint=HINT)
    return info


def _form(answer: Any) -> str:
    if not isinstance(answer, tuple):
        return f"{type(answer).__name__}, no tuple"
    return f"{len(answer)} values" + (", as the old gym did" if len(answer) == 4 else "")


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else type(value).__name__
