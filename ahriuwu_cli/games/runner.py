"""Playing episodes: several environments in lock-step, one policy call per step for all of them.

Shapes: N slots, T steps, H x W pixels, A = ActionSpec.dim.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ahriuwu_cli.core.errors import DataError, ForeignError
from ahriuwu_cli.core.specs import ActionSpec
from ahriuwu_cli.episodes.actions import POLICY_HINT
from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.events import events_of
from ahriuwu_cli.games.environment import GameEnv, Step
from ahriuwu_cli.games.policies import EPISODE_SEED, Policy
from ahriuwu_cli.games.tape import HELD_BYTES, FrameTape

MakeEnv = Callable[[], GameEnv]


def play_episodes(
    make_env: MakeEnv,
    policy: Policy,
    seeds: Sequence[int],
    *,
    policy_seed: int,
    num_envs: int = 16,
    max_steps: int = 0,
    task: str = "play",
    on_episode: Callable[[int, Episode], None] | None = None,
) -> list[Episode]:
    """Play one episode per seed; see `stream_episodes`. Returns them in the order of `seeds`.

    `on_episode(index, episode)` is called as each ends, in order of ending.
    """
    episodes: dict[int, Episode] = {}
    stream = stream_episodes(
        make_env, policy, seeds, policy_seed=policy_seed, num_envs=num_envs, max_steps=max_steps, task=task
    )
    for index, episode in stream:
        episodes[index] = episode
        if on_episode is not None:
            on_episode(index, episode)
    return [episodes[index] for index in range(len(seeds))]


def stream_episodes(
    make_env: MakeEnv,
    policy: Policy,
    seeds: Sequence[int],
    *,
    policy_seed: int,
    num_envs: int = 16,
    max_steps: int = 0,
    task: str = "play",
    spill: Path | None = None,
    on_bad: Callable[[int, DataError], None] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Generator[tuple[int, Episode], None, None]:
    """Play one episode per seed and yield (place in `seeds`, episode) as each ends.

    A slot whose episode ends begins the next seed at once; `first` tells the policy. Slots for which
    no seed is left show the policy their last frame and their actions are not used, so N stays the
    same throughout. Everything is a function of the seeds: the environment is reset with the
    episode's seed, and `infos[i]["episode_seed"]` tells the policy which stream to draw from.

    Args:
        make_env: makes one environment; called N = min(num_envs, len(seeds)) times.
        policy: who plays; reset here with N and `policy_seed`.
        seeds: one per episode.
        policy_seed: the policy's own seed.
        num_envs: slots at most.
        max_steps: truncates an episode after this many steps; 0 leaves it to the environment.
        task: name of the task, noted in every episode.
        spill: folder for the frames of long episodes (see tape.py); None for the system's own place.
        on_bad: takes (place in `seeds`, error) of an episode whose environment gave what cannot be used; play goes on
            with the next seed then. None raises the error.
        on_step: told after every step of all slots how many steps were played by all of them together.

    Raises:
        DataError: the policy's answer has the wrong shape or is outside the action spec, or the environment
            gives events that are none (events.py).
    """
    num_slots = min(num_envs, len(seeds))
    if num_slots == 0:
        return
    envs: list[GameEnv] = []
    slots: list[_Slot] = []
    upcoming, steps = 0, 0

    def begin(slot: _Slot) -> None:
        """Start the next seed whose episode can be started."""
        nonlocal upcoming
        while upcoming < len(seeds):
            slot.index, upcoming = upcoming, upcoming + 1
            try:
                return slot.begin(seeds[slot.index])
            except DataError as error:
                _report_bad(on_bad, slot.index, error)
        return None

    try:
        envs.extend(make_env() for _ in range(num_slots))
        spec = envs[0].action_spec
        share = HELD_BYTES // num_slots
        slots.extend(_Slot(env, FrameTape(share, spill), policy.name, task, max_steps) for env in envs)
        for slot in slots:
            begin(slot)
        slots = [slot for slot in slots if slot.running]
        num_slots = len(slots)
        policy.reset(num_slots, policy_seed)
        while any(slot.running for slot in slots):
            frames = np.stack([slot.frame for slot in slots])  # (N, H, W, 3)
            first = np.array([not slot.rewards for slot in slots])  # (N,)
            rows = policy.act(frames, first, [slot.info for slot in slots])  # (N, A)
            _check_rows(rows, [slot.running for slot in slots], spec, policy.name)
            for slot, row in zip(slots, rows, strict=True):
                if not slot.running:
                    continue
                steps += 1
                try:
                    episode = slot.advance(row)
                except DataError as error:
                    slot.running = False
                    _report_bad(on_bad, slot.index, error)
                else:
                    if episode is None:
                        continue
                    yield slot.index, episode
                begin(slot)
            if on_step is not None:
                on_step(steps)
    finally:
        for slot in slots:
            slot.close()
        _close(envs, unwinding=sys.exc_info()[0] is not None)


def _report_bad(on_bad: Callable[[int, DataError], None] | None, index: int, error: DataError) -> None:
    if on_bad is None:
        raise error
    on_bad(index, error)


def event_columns(steps: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """The events of T steps by name, (T,) float32 each; zero where a step does not name one."""
    names = sorted({name for step in steps for name in step})
    return {name: np.array([step.get(name, 0) for step in steps], np.float32) for name in names}


def _check_rows(rows: np.ndarray, running: Sequence[bool], spec: ActionSpec, policy: str) -> None:
    if rows.shape != (len(running), spec.dim):
        raise DataError(
            f"the policy {policy} gave actions of shape {rows.shape}; expected {(len(running), spec.dim)}",
            hint=POLICY_HINT,
        )
    if not np.isfinite(rows[np.array(running)]).all():
        raise DataError(
            f"the policy {policy} gave an action that is not a finite number",
            hint="correct the policy; of an agent, look at its weights with `ahriuwu doctor`",
        )


def _close(envs: Sequence[GameEnv], *, unwinding: bool) -> None:
    """Close all environments; the first that fails at it is told, unless something else has failed before."""
    failures = []
    for env in envs:
        try:
            env.close()
        except ForeignError as error:
            failures.append(error)
    if failures and not unwinding:
        raise failures[0]


class _Slot:
    """One environment and the episode it is playing."""

    def __init__(self, env: GameEnv, tape: FrameTape, policy_name: str, task: str, max_steps: int) -> None:
        self.env = env
        self.running = False
        self.index = -1
        self.seed = 0
        self.info: dict[str, Any] = {}
        self.rewards: list[float] = []
        self._tape = tape
        self._rows: list[np.ndarray] = []
        self._events: list[dict[str, float]] = []
        self._policy_name = policy_name
        self._task = task
        self._max_steps = max_steps

    @property
    def frame(self) -> np.ndarray:
        """The frame shown last, (H, W, 3) uint8."""
        return self._tape.last

    def begin(self, seed: int) -> None:
        frame, info = self.env.reset(seed)
        self.seed, self.running = seed, True
        self.info = {**info, EPISODE_SEED: seed}
        self._tape.begin(frame)
        self._rows, self._events, self.rewards = [], [], []

    def close(self) -> None:
        self._tape.close()

    def advance(self, row: np.ndarray) -> Episode | None:
        """Take one step; returns the episode when it ended with it."""
        step = self.env.step(row)
        self._rows.append(step.row)
        self._tape.append(step.frame)
        self.rewards.append(step.reward)
        self._events.append(events_of(step.info))
        cut = step.truncated or len(self.rewards) == self._max_steps
        if not (step.terminal or cut):
            self.info = {**step.info, EPISODE_SEED: self.seed}
            return None  # what is said at the end may lack an expert's action, and no policy needs it
        self.running = False
        return self._finish(step)

    def _finish(self, last: Step) -> Episode:
        steps = len(self.rewards)
        terminals, truncations = np.zeros(steps, bool), np.zeros(steps, bool)
        terminals[-1], truncations[-1] = last.terminal, not last.terminal
        return Episode(
            frames=self._tape.frames(),
            actions=np.stack(self._rows),
            action_valid=np.ones(steps, bool),
            rewards=np.array(self.rewards, np.float32),
            terminals=terminals,
            truncations=truncations,
            timestamps=np.arange(steps + 1) / self.env.frame_spec.fps,
            task=self._task,
            seed=self.seed,
            policy=self._policy_name,
            events=event_columns(self._events),
        )
