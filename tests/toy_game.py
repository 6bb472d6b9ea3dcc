"""A game whose episodes end, break or crash as a test wants, by the place of their seed in the recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.sources.record import episode_seeds

GAME = "ahriuwu-test/Toy-v0"


class ToyGame(gymnasium.Env[np.ndarray, int]):
    """Frames of noise; `behave` maps the place of an episode to how long it is and what happens at its last step."""

    seeds: ClassVar[list[int]] = []
    lengths: ClassVar[Mapping[int, int]] = {}
    last: ClassVar[Mapping[int, Callable[[], float]]] = {}
    alive: ClassVar[int] = 0
    most_alive: ClassVar[int] = 0

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
        self.action_space = spaces.Discrete(3)
        ToyGame.alive += 1
        ToyGame.most_alive = max(ToyGame.most_alive, ToyGame.alive)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._place = self.seeds.index(seed) if seed in self.seeds else -1
        self._step = 0
        return self._frame(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        ended = self._step >= self.lengths.get(self._place, 3 + self._place % 5)
        reward = self.last[self._place]() if ended and self._place in self.last else float(action)
        return self._frame(), reward, ended, False, {"events": {f"e{self._place % 3}": 1.0}}

    def _frame(self) -> np.ndarray:
        return self.np_random.integers(0, 256, (8, 8, 3), np.uint8)

    def close(self) -> None:
        ToyGame.alive -= 1


def behave(
    lengths: Mapping[int, int] | None = None, last: Mapping[int, Callable[[], float]] | None = None, seed: int = 0
) -> None:
    """Make the game known, with these lengths and last rewards by the place of an episode."""
    if GAME not in gymnasium.registry:
        gymnasium.register(GAME, entry_point=ToyGame, disable_env_checker=True, order_enforce=False)
    ToyGame.seeds, ToyGame.lengths, ToyGame.last = episode_seeds(seed, 500, set()), lengths or {}, last or {}
    ToyGame.alive = ToyGame.most_alive = 0


def settings(**changes: Any) -> DataSection:
    """A recording of the game."""
    return DataSection(
        **({"env": GAME, "height": 8, "width": 8, "episodes": 12, "policy": "random", "num_envs": 4} | changes)
    )


def raising(error: BaseException) -> Callable[[], float]:
    """A last step that raises."""

    def reward() -> float:
        raise error

    return reward
