"""Whether an environment obeys its seed: if not, no recording can be repeated, and no two episodes are paired."""

from __future__ import annotations

from typing import Any

import numpy as np

from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.episodes.actions import random_row
from ahriuwu_cli.games.environment import GameEnv

STEPS = 16
DISOBEDIENT = (
    "{env} does not obey its seed: reset twice with one seed and given the same actions, it played differently"
)


def obeys_seed(env: GameEnv, seed: int = 0, steps: int = STEPS) -> bool:
    """Reset twice with the same seed and take the same few random actions: frames, rewards and ends must agree.

    Raises:
        ForeignError: the environment fails.
    """
    first = _trace(env, seed, steps)
    return first == _trace(env, seed, steps)


def _trace(env: GameEnv, seed: int, steps: int) -> list[Any]:
    """What an episode of at most `steps` random actions shows."""
    rng = np.random.default_rng(seed)
    seen: list[Any] = []
    try:
        seen.append(env.reset(seed)[0].tobytes())
        for _ in range(steps):
            step = env.step(random_row(env.action_spec, rng))
            seen.append((step.frame.tobytes(), step.reward, step.terminal, step.truncated))
            if step.terminal or step.truncated:
                break
    except DataError as error:  # an episode that cannot be used is another matter
        seen.append(error.message)
    return seen
