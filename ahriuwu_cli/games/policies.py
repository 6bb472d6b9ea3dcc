"""Who plays: the policy protocol and the built-in policies (random, noisy expert, repeat-last).

Shapes: N environments side by side, H x W pixels, A = ActionSpec.dim.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ahriuwu_cli.core.errors import ConfigError, InputError
from ahriuwu_cli.core.specs import ActionSpec
from ahriuwu_cli.episodes.actions import as_row, random_row
from ahriuwu_cli.episodes.config import DataSection

EPISODE_SEED = "episode_seed"  # key of the runner's info entry that names the episode a slot is playing
EXPERT_ACTION = "expert_action"  # key under which an environment says what its scripted expert would do


class Policy(Protocol):
    """Plays N environments in lock-step.

    `infos[i]` is the environment's own info plus `EPISODE_SEED`, the seed of the episode slot i plays.
    A policy that draws random numbers draws them from a stream of that seed (see `episode_rng`), so
    that an episode does not depend on which others are played beside it.
    """

    @property
    def name(self) -> str:
        """What the episode store notes as the player."""
        ...

    def reset(self, num_envs: int, seed: int) -> None:
        """Get ready for `num_envs` slots; `seed` is the policy's own seed."""
        ...

    def act(self, frames: np.ndarray, first: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
        """Choose actions: frames (N, H, W, 3) uint8, first (N,) bool (episode just begun) -> (N, A) float32."""
        ...


def episode_rng(policy_seed: int, episode_seed: int) -> np.random.Generator:
    """Begin the stream of random numbers a policy uses within one episode."""
    return np.random.default_rng([policy_seed, episode_seed])


class SlotStreams:
    """One random stream per slot, begun anew with each episode; `streams[i]` is slot i's."""

    def __init__(self) -> None:
        self._seed = 0
        self.streams: list[np.random.Generator] = []

    def reset(self, num_envs: int, seed: int) -> None:
        """Get ready for `num_envs` slots of a policy with this seed."""
        self._seed = seed
        self.streams = [episode_rng(seed, 0) for _ in range(num_envs)]

    def begin(self, first: np.ndarray, infos: list[dict[str, Any]]) -> list[np.random.Generator]:
        """Start anew the streams of slots (N,) bool whose episode has just begun; returns all streams."""
        for slot in np.flatnonzero(first):
            self.streams[slot] = episode_rng(self._seed, int(infos[slot].get(EPISODE_SEED, slot)))
        return self.streams


class RandomPolicy:
    """Every component uniform over its range, at every step."""

    name = "random"

    def __init__(self, spec: ActionSpec) -> None:
        self._spec = spec
        self._slots = SlotStreams()

    def reset(self, num_envs: int, seed: int) -> None:
        """Get ready for `num_envs` slots."""
        self._slots.reset(num_envs, seed)

    def act(self, frames: np.ndarray, first: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
        """Random rows (N, A) float32."""
        return np.stack([random_row(self._spec, rng) for rng in self._slots.begin(first, infos)])


class NoisyExpertPolicy:
    """The environment's scripted expert, with a uniformly random action instead at a share `noise` of the steps.

    A share `random_episodes` of the episodes is played at random from end to end, as in recordings of several players
    of whom some cannot play.

    Raises:
        ConfigError: a share outside 0..1.
        InputError: (from `act`) the environment offers no expert, or one that does not fit the spec.
    """

    def __init__(self, spec: ActionSpec, noise: float, random_episodes: float = 0.0) -> None:
        for key, share in (("noise", noise), ("random_episodes", random_episodes)):
            if not 0.0 <= share <= 1.0:
                raise ConfigError(f"{key} is {share}; expected 0..1", hint=f"correct data.{key}")
        mixed = f", {random_episodes:g} of the episodes random" if random_episodes else ""
        self.name = f"noisy-expert({noise:g}{mixed})"
        self._spec = spec
        self._noise = noise
        self._random_episodes = random_episodes
        self._slots = SlotStreams()
        self._noises: list[float] = []

    def reset(self, num_envs: int, seed: int) -> None:
        """Get ready for `num_envs` slots."""
        self._slots.reset(num_envs, seed)
        self._noises = [self._noise] * num_envs

    def act(self, frames: np.ndarray, first: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
        """Give the expert's or random rows (N, A) float32."""
        streams = self._slots.begin(first, infos)
        if self._random_episodes:
            for slot in np.flatnonzero(first):
                self._noises[slot] = 1.0 if streams[slot].random() < self._random_episodes else self._noise
        rows = []
        for rng, info, noise in zip(streams, infos, self._noises, strict=True):
            expert = self._expert(info)
            rows.append(random_row(self._spec, rng) if rng.random() < noise else expert)
        return np.stack(rows)

    def _expert(self, info: dict[str, Any]) -> np.ndarray:
        if EXPERT_ACTION not in info:
            raise InputError(
                f"noisy-expert needs an environment that puts {EXPERT_ACTION!r} into its info; this one does not",
                hint="record with policy = 'random' or an agent checkpoint, or wrap the environment with an expert",
            )
        row = as_row(info[EXPERT_ACTION], self._spec.dim)
        if row is None:
            raise InputError(
                f"the environment's {EXPERT_ACTION!r} is {info[EXPERT_ACTION]!r}; expected an action of width "
                f"{self._spec.dim}",
                hint="correct the environment's expert",
            )
        return row


class RepeatLastPolicy:
    """One random action per episode, repeated to its end: a baseline for policies that copy the last action."""

    name = "repeat-last"

    def __init__(self, spec: ActionSpec) -> None:
        self._spec = spec
        self._slots = SlotStreams()
        self._rows = np.zeros((0, spec.dim), np.float32)

    def reset(self, num_envs: int, seed: int) -> None:
        """Get ready for `num_envs` slots."""
        self._slots.reset(num_envs, seed)
        self._rows = np.zeros((num_envs, self._spec.dim), np.float32)

    def act(self, frames: np.ndarray, first: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
        """Give the rows (N, A) float32 of the step before, drawn anew where an episode begins."""
        streams = self._slots.begin(first, infos)
        for slot in np.flatnonzero(first):
            self._rows[slot] = random_row(self._spec, streams[slot])
        return self._rows.copy()


def built_in_policy(data: DataSection, spec: ActionSpec) -> Policy:
    """Make the built-in policy that `data.policy` names.

    Raises:
        InputError: it names none.
    """
    if data.policy == "random":
        return RandomPolicy(spec)
    if data.policy == "noisy-expert":
        return NoisyExpertPolicy(spec, data.noise, data.random_episodes)
    raise InputError(
        f"policy {data.policy!r} is not known; expected random, noisy-expert or an agent checkpoint",
        hint="correct data.policy or --policy",
    )
