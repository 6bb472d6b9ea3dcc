"""One episode in memory: frames, actions, rewards and flags in Gymnasium's alignment, and its checks.

Shapes: T steps, T+1 frames, H x W pixels, A = ActionSpec.dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.core.specs import ActionSpec, FrameSpec
from ahriuwu_cli.episodes.actions import check_actions
from ahriuwu_cli.episodes.events import EVENT_NAME, event_array

RECORD_HINT = "correct the environment, or what it declares of itself"


@dataclass(frozen=True)
class Episode:
    """`frames[t]`, then `actions[t]` taken on seeing it, then what came back together with `frames[t+1]`.

    Attributes:
        frames: (T+1, H, W, 3) uint8 RGB.
        actions: (T, A) float32, columns by ActionSpec.slices().
        action_valid: (T,) bool, False where the action is not known.
        rewards: (T,) float32.
        terminals: (T,) bool, the game ended here; True at most at the last step.
        truncations: (T,) bool, play was cut here though the game went on; True at most at the last step.
        timestamps: (T+1,) float64 seconds, rising.
        task: name of the task.
        seed: seed of the environment's reset.
        policy: name of who played.
        events: (T,) float32 by name, what else came back together with frames[t+1]; see events.py.
    """

    frames: np.ndarray
    actions: np.ndarray
    action_valid: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    truncations: np.ndarray
    timestamps: np.ndarray
    task: str
    seed: int
    policy: str
    events: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def num_steps(self) -> int:
        """T, the number of actions."""
        return len(self.actions)

    @property
    def total_reward(self) -> float:
        """Undiscounted return."""
        return float(self.rewards.sum(dtype=np.float64))

    def arrays(self) -> dict[str, np.ndarray]:
        """Give the arrays by name, as the store writes them."""
        own = {name: getattr(self, name) for name in ARRAYS}
        return own | {event_array(name): values for name, values in self.events.items()}

    def event(self, name: str) -> np.ndarray:
        """Give what an event was at every step, (T,) float32; zero all along where it never appeared."""
        return self.events.get(name, np.zeros(self.num_steps, np.float32))

    def validate(self, action_spec: ActionSpec, frame_spec: FrameSpec) -> None:
        """Check shapes, types, ranges and flags against the specs.

        Raises:
            DataError: the first thing found wrong; an action outside its range is named by
                component, value, range and step.
        """
        steps = self.num_steps
        if steps < 1:
            raise DataError(f"{self._name()} has no steps; expected at least 1", hint=RECORD_HINT)
        height, width = frame_spec.height, frame_spec.width
        wanted: dict[str, tuple[tuple[int, ...], Any]] = {
            "frames": ((steps + 1, height, width, 3), np.uint8),
            "actions": ((steps, action_spec.dim), np.float32),
            "action_valid": ((steps,), np.bool_),
            "rewards": ((steps,), np.float32),
            "terminals": ((steps,), np.bool_),
            "truncations": ((steps,), np.bool_),
            "timestamps": ((steps + 1,), np.float64),
        }
        for name in self.events:
            if not EVENT_NAME.fullmatch(name):
                raise DataError(
                    f"{self._name()} has an event {name!r}; expected a name like {EVENT_NAME.pattern}", hint=RECORD_HINT
                )
            wanted[event_array(name)] = ((steps,), np.float32)
        arrays = self.arrays()
        for name, (shape, dtype) in wanted.items():
            array = arrays[name]
            if array.shape != shape or array.dtype != dtype:
                raise DataError(
                    f"{self._name()}: {name} is {array.dtype} {array.shape}; expected {np.dtype(dtype)} {shape}",
                    hint=RECORD_HINT,
                )
        for name in ("rewards", "timestamps", *map(event_array, self.events)):
            _check_finite(arrays[name], f"{self._name()}: {name}")
        if not (np.diff(self.timestamps) > 0).all():
            step = int(np.argmin(np.diff(self.timestamps) > 0))
            raise DataError(f"{self._name()}: timestamps do not rise after frame {step}", hint=RECORD_HINT)
        for name in ("terminals", "truncations"):
            if getattr(self, name)[:-1].any():
                step = int(np.argmax(getattr(self, name)))
                raise DataError(
                    f"{self._name()}: {name} is set at step {step} of {steps}; expected it at the last step only",
                    hint="cut the recording there into two episodes",
                )
        check_actions(action_spec, self.actions, self.action_valid, where=self._name())

    def _name(self) -> str:
        return f"the episode with seed {self.seed}"


def _check_finite(values: np.ndarray, where: str) -> None:
    fine = np.isfinite(values)
    if not fine.all():
        raise DataError(f"{where}[{int(np.argmin(fine))}] is not finite", hint=RECORD_HINT)


ARRAYS = ("frames", "actions", "action_valid", "rewards", "terminals", "truncations", "timestamps")
