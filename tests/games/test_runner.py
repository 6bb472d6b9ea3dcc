"""Playing in lock-step: order, determinism that does not depend on batching, flags, limits, slots."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ahriuwu_cli.core.errors import DataError, ForeignError
from ahriuwu_cli.episodes.episode import FRAMES, TRACKS, Episode
from ahriuwu_cli.episodes.frames import FrameTransform
from ahriuwu_cli.games.environment import GameEnv
from ahriuwu_cli.games.policies import NoisyExpertPolicy, RandomPolicy
from ahriuwu_cli.games.runner import play_episodes, stream_episodes


def make_env(**options: Any) -> GameEnv:
    return GameEnv("ahriuwu/Bricks-v0", FrameTransform(32, 32), options=options)


SPEC = make_env().action_spec


class Watcher:
    """Plays noop and notes what it was shown."""

    name = "watcher"

    def __init__(self) -> None:
        self.first: list[list[bool]] = []
        self.seeds: list[list[int]] = []
        self.frames: list[np.ndarray] = []
        self.num_envs = 0
        self.answer = np.zeros(1, np.float32)

    def reset(self, num_envs: int, seed: int) -> None:
        self.num_envs = num_envs

    def act(self, frames: np.ndarray, first: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
        self.first.append(first.tolist())
        self.seeds.append([info["episode_seed"] for info in infos])
        self.frames.append(frames)
        return np.stack([self.answer] * len(frames))


def same(one: Episode, two: Episode) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in (FRAMES, *TRACKS))


@pytest.mark.parametrize("kind", ["random", "noisy-expert"])
def test_episodes_do_not_depend_on_how_many_are_played_side_by_side(kind: str) -> None:
    def play(seeds: list[int], num_envs: int, policy_seed: int = 3) -> list[Episode]:
        policy = RandomPolicy(SPEC) if kind == "random" else NoisyExpertPolicy(SPEC, 0.7)
        options = {"sticky": 0.2}
        return play_episodes(lambda: make_env(**options), policy, seeds, policy_seed=policy_seed, num_envs=num_envs)

    seeds = list(range(10, 22))
    alone, few, many = play(seeds, 1), play(seeds, 5), play(seeds, 64)
    assert [episode.seed for episode in few] == seeds
    assert all(same(a, b) and same(a, c) for a, b, c in zip(alone, few, many, strict=True))
    assert all(same(a, b) for a, b in zip(reversed(alone), play(seeds[::-1], 4), strict=True))
    assert not all(same(a, b) for a, b in zip(alone, play(seeds, 5, policy_seed=4), strict=True))


def test_episodes_are_what_a_plain_loop_plays() -> None:
    policy = RandomPolicy(SPEC)
    episodes = play_episodes(make_env, policy, [5, 6], policy_seed=0, num_envs=2, task="bricks")
    for episode in episodes:
        env = make_env()
        episode.validate(env.action_spec, env.frame_spec)
        frame, _ = env.reset(episode.seed)
        assert np.array_equal(frame, episode.frames[0])
        for t in range(episode.num_steps):
            step = env.step(episode.actions[t])
            assert np.array_equal(step.frame, episode.frames[t + 1])
            assert step.reward == episode.rewards[t]
            assert step.terminal == episode.terminals[t]
        assert episode.terminals[-1] and not episode.truncations.any()
        assert episode.action_valid.all()
        assert np.allclose(np.diff(episode.timestamps), 1 / 15)
        assert (episode.task, episode.policy) == ("bricks", "random")


def test_first_marks_new_episodes_and_idle_slots_stay() -> None:
    watcher = Watcher()
    seeds = [0, 1, 2, 3, 4]
    episodes = play_episodes(make_env, watcher, seeds, policy_seed=0, num_envs=2)
    assert watcher.num_envs == 2
    assert {len(row) for row in watcher.first} == {2}
    assert sum(sum(row) for row in watcher.first) == len(seeds)
    begun = [
        seed
        for row, names in zip(watcher.first, watcher.seeds, strict=True)
        for seed, first in zip(names, row, strict=True)
        if first
    ]
    assert sorted(begun) == seeds
    for episode in episodes:
        shown = [
            frames[slot]
            for frames, names in zip(watcher.frames, watcher.seeds, strict=True)
            for slot in range(2)
            if names[slot] == episode.seed
        ]
        assert np.array_equal(np.stack(shown[: episode.num_steps]), episode.frames[:-1])
    last = max(episodes, key=lambda episode: episode.num_steps)
    assert len(watcher.frames) >= last.num_steps


def test_limit_truncates() -> None:
    episodes = play_episodes(make_env, NoisyExpertPolicy(SPEC, 0.0), [0, 1], policy_seed=0, max_steps=6)
    assert [episode.num_steps for episode in episodes] == [6, 6]
    assert all(episode.truncations.tolist() == [False] * 5 + [True] for episode in episodes)
    assert not any(episode.terminals.any() for episode in episodes)
    own = play_episodes(lambda: make_env(max_steps=4), NoisyExpertPolicy(SPEC, 0.0), [0], policy_seed=0, max_steps=6)
    assert own[0].num_steps == 4 and own[0].truncations[-1]


def test_episodes_are_told_as_they_end() -> None:
    seen: list[tuple[int, int]] = []
    episodes = play_episodes(
        make_env,
        RandomPolicy(SPEC),
        [7, 8, 9],
        policy_seed=0,
        num_envs=3,
        on_episode=lambda index, episode: seen.append((index, episode.seed)),
    )
    assert sorted(seen) == [(0, 7), (1, 8), (2, 9)]
    assert len(episodes) == 3
    assert play_episodes(make_env, RandomPolicy(SPEC), [], policy_seed=0) == []


def test_environments_are_closed_also_when_playing_stops_early() -> None:
    closed: list[int] = []

    class Noted(GameEnv):
        def close(self) -> None:
            closed.append(1)
            super().close()

    def make() -> GameEnv:
        return Noted("ahriuwu/Bricks-v0", FrameTransform(32, 32))

    stream = stream_episodes(make, RandomPolicy(SPEC), range(9), policy_seed=0, num_envs=3)
    next(stream)
    assert closed == []
    stream.close()
    assert len(closed) == 3


@pytest.mark.parametrize("answer", [np.zeros(2, np.float32), np.array([3.0], np.float32), np.array([np.nan])])
def test_wrong_answers_of_a_policy_are_refused(answer: np.ndarray) -> None:
    watcher = Watcher()
    watcher.answer = answer
    with pytest.raises(DataError) as caught:
        play_episodes(make_env, watcher, [0], policy_seed=0)
    assert "policy" in caught.value.message


def test_a_policy_may_use_its_array_again() -> None:
    class Alternating(Watcher):
        def act(self, frames: np.ndarray, first: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
            self.answer[:] = (self.answer + 1) % 3
            return self.answer[None]

    episode = play_episodes(make_env, Alternating(), [0], policy_seed=0)[0]
    assert episode.actions[:4, 0].tolist() == [1, 2, 0, 1]


# ---------------------------------------------------------------- games with faults of their own


class Brittle(gymnasium.Env):
    """An expert that has nothing to say at the end, and a close that may fail."""

    observation_space = spaces.Box(0, 255, (32, 32, 3), np.uint8)
    action_space = spaces.Discrete(3)
    closed: ClassVar[list[int]] = []

    def __init__(self, brittle: bool = False, broken: bool = False) -> None:
        self.brittle, self.broken = brittle, broken

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.left = 2 + (seed or 0)
        return np.zeros((32, 32, 3), np.uint8), {"expert_action": 1}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.broken:
            raise LookupError("broken")
        self.left -= 1
        info = {"expert_action": 1} if self.left else {}
        return np.zeros((32, 32, 3), np.uint8), 0.0, not self.left, False, info

    def close(self) -> None:
        self.closed.append(1)
        if self.brittle:
            raise OSError("no such window")


@pytest.fixture
def brittle() -> Iterator[Callable[..., GameEnv]]:
    Brittle.closed.clear()
    gymnasium.register("Brittle-v0", entry_point=Brittle)
    yield lambda **options: GameEnv("Brittle-v0", FrameTransform(32, 32), options=options)
    del gymnasium.registry["Brittle-v0"]


def test_an_expert_need_not_speak_at_the_end(brittle: Callable[..., GameEnv]) -> None:
    """The shorter episode is over while the longer one is still played."""
    episodes = play_episodes(brittle, NoisyExpertPolicy(SPEC, 0.0), [0, 5], policy_seed=0)
    assert [episode.num_steps for episode in episodes] == [2, 7]
    assert all((episode.actions == 1).all() for episode in episodes)


def test_all_environments_are_closed_and_a_failure_of_one_is_told(brittle: Callable[..., GameEnv]) -> None:
    with pytest.raises(ForeignError, match="Brittle-v0 failed in close: OSError: no such window"):
        play_episodes(lambda: brittle(brittle=True), RandomPolicy(SPEC), [0, 1, 2], policy_seed=0)
    assert len(Brittle.closed) == 3
    with pytest.raises(ForeignError, match="failed in step 0: LookupError: broken"):
        play_episodes(lambda: brittle(brittle=True, broken=True), RandomPolicy(SPEC), [0, 1], policy_seed=0)
    assert len(Brittle.closed) == 5
