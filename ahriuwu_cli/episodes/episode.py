"""One episode: frames, actions, rewards and flags in Gymnasium's alignment, and its checks.

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


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """An episode but for its frames: `actions[t]` taken on seeing frame t, then what came back with frame t+1.

    Attributes:
        actions: (T, A) float32, columns by ActionSpec.slices().
        action_valid: (T,) bool, False where the action is not known.
        rewards: (T,) float32.
        terminals: (T,) bool, the game ended here; True at most at the last step.
        truncations: (T,) bool, play was cut here though the game went on; True at most at the last step.
        timestamps: (T+1,) float64 seconds, rising, of the frames.
        task: name of the task.
        seed: seed of the environment's reset; of imported play its place among the parts of its recording.
        policy: name of who played.
        events: (T,) float32 by name, what else came back together with frame t+1; see events.py.
    """

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
    def num_frames(self) -> int:
        """T+1."""
        return len(self.timestamps)

    @property
    def total_reward(self) -> float:
        """Undiscounted return."""
        return float(self.rewards.sum(dtype=np.float64))

    def arrays(self) -> dict[str, np.ndarray]:
        """Give the arrays by name, as the store writes them."""
        own = {name: getattr(self, name) for name in TRACKS}
        return own | {event_array(name): values for name, values in self.events.items()}

    def event(self, name: str) -> np.ndarray:
        """Give what an event was at every step, (T,) float32; zero all along where it never appeared."""
        return self.events.get(name, np.zeros(self.num_steps, np.float32))

    def validate(self, action_spec: ActionSpec, frame_spec: FrameSpec) -> None:
        """Check shapes, types, ranges and flags against the specs; an episode's frames as well.

        Raises:
            DataError: the first thing found wrong; an action outside its range is named by
                component, value, range and step.
        """
        steps = self.num_steps
        if steps < 1:
            raise DataError(f"{self._name()} has no steps; expected at least 1", hint=RECORD_HINT)
        for name in self.events:
            if not EVENT_NAME.fullmatch(name):
                raise DataError(
                    f"{self._name()} has an event {name!r}; expected a name like {EVENT_NAME.pattern}", hint=RECORD_HINT
                )
        arrays = self.arrays()
        for name, (shape, dtype) in self._wanted(action_spec, frame_spec).items():
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

    def _wanted(self, action_spec: ActionSpec, frame_spec: FrameSpec) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and type of every array."""
        del frame_spec
        steps = self.num_steps
        wanted: dict[str, tuple[tuple[int, ...], Any]] = {
            "actions": ((steps, action_spec.dim), np.float32),
            "action_valid": ((steps,), np.bool_),
            "rewards": ((steps,), np.float32),
            "terminals": ((steps,), np.bool_),
            "truncations": ((steps,), np.bool_),
            "timestamps": ((steps + 1,), np.float64),
        }
        return wanted | {event_array(name): ((steps,), np.float32) for name in self.events}

    def _name(self) -> str:
        return f"the episode with seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Episode(Tracks):
    """Tracks with all frames in memory.

    Attributes:
        frames: (T+1, H, W, 3) uint8 RGB.
    """

    frames: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """Give the arrays by name, the frames among them."""
        return super().arrays() | {FRAMES: self.frames}

    def _wanted(self, action_spec: ActionSpec, frame_spec: FrameSpec) -> dict[str, tuple[tuple[int, ...], Any]]:
        shape = (self.num_steps + 1, frame_spec.height, frame_spec.width, 3)
        return {FRAMES: (shape, np.uint8)} | super()._wanted(action_spec, frame_spec)


def _check_finite(values: np.ndarray, where: str) -> None:
    fine = np.isfinite(values)
    if not fine.all():
        raise DataError(f"{where}[{int(np.argmin(fine))}] is not finite", hint=RECORD_HINT)


FRAMES = "frames"
TRACKS = ("actions", "action_valid", "rewards", "terminals", "truncations", "timestamps")
