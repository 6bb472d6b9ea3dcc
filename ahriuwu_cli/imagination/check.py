"""The policy in the real game while it learns in the dream: imagined reward beside real reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ahriuwu_cli.agent.checkpoint import LoadedAgent
from ahriuwu_cli.agent.player import AgentPolicy
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.training.generators import generator_states, restore_generators
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.games.environment import make_env
from ahriuwu_cli.games.runner import stream_episodes
from ahriuwu_cli.imagination.config import CheckSection
from ahriuwu_cli.latents.tasks import REWARD
from ahriuwu_cli.tokenizer.protocol import Tokenizer


@dataclass(frozen=True)
class RealGame:
    """What it takes to play: the environment as `[data]` describes it, the agent's tokenizer, and episode seeds."""

    data: DataSection
    tokenizer: Tokenizer
    seeds: Sequence[int]


class GameCheck:
    """Plays the same few episodes again and again with a policy that learns meanwhile.

    Training must not notice: the global generators come back as they were, and the weights are only read, never
    converted. The policy draws from streams of the episodes' seeds.

    Decision: it plays at the temperature that it dreams at, so that rewards per step can be compared; of several tasks
    the one that the game's episodes are recorded under, or else the first.

    Decision: an environment that cannot be made is refused before training. Whoever asks for checks wants the curve,
    and learns in a second rather than after hours that there is none.

    Args:
        settings: when and how long.
        game: the game.
        agent: the agent; its weights are looked at anew in every check.
        runtime: device and precision.
        temperature: of the policy.
        seed: of the policy.

    Attributes:
        comparable: the agent dreams of nothing but the game's own reward, so that the two can be set side by side.

    Raises:
        InputError: the environment cannot be made.
        ArtifactError: its actions are not the agent's.
        ConfigError: the agent's latents cover several frames each.
    """

    def __init__(
        self,
        settings: CheckSection,
        game: RealGame,
        agent: LoadedAgent,
        runtime: Runtime,
        *,
        temperature: float,
        seed: int,
    ) -> None:
        self._settings, self._game, self._runtime, self._seed = settings, game, runtime, seed
        task = game.data.task if game.data.task in agent.specs.tasks else None
        self._player = AgentPolicy("check", agent, game.tokenizer, runtime, temperature=temperature, task=task)
        self.comparable = list(agent.tasks.values()) == [REWARD]
        before = generator_states(runtime)
        try:
            env = make_env(game.data)
            action = env.action_spec
            env.close()
        finally:
            restore_generators(runtime, *before)
        self._player.require_spec(action)

    def due(self, step: int) -> bool:
        """Whether a check comes before the update of step `step` (from 0)."""
        return step % self._settings.every == 0

    def play(self) -> dict[str, float]:
        """Play all episodes; metrics `real_return` and `real_length` (means), and `real_reward_per_step`."""
        before, limit = generator_states(self._runtime), self._game.data.step_limit
        try:
            stream = stream_episodes(
                lambda: make_env(self._game.data),
                self._player,
                self._game.seeds,
                policy_seed=self._seed,
                max_steps=min(self._settings.max_steps or limit, limit),
                task=self._game.data.task,
            )
            played = [(episode.total_reward, episode.num_steps) for _, episode in stream]
        finally:
            restore_generators(self._runtime, *before)
        returns, lengths = np.array(played, np.float64).sum(axis=0)
        return {
            "real_return": returns / len(played),
            "real_length": lengths / len(played),
            "real_reward_per_step": returns / lengths,
        }
