"""Scripted experts: they play well, and never take the step that ends a game."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ahriuwu_cli.episodes.frames import FrameTransform
from ahriuwu_cli.games.environment import GameEnv
from ahriuwu_cli.games.experts import expert_for
from ahriuwu_cli.games.policies import EXPERT_ACTION, NoisyExpertPolicy, RandomPolicy
from ahriuwu_cli.games.runner import play_episodes

OBSTACLES = "MiniGrid-Dynamic-Obstacles-Random-6x6-v0"


def obstacles() -> GameEnv:
    pytest.importorskip("minigrid")
    return GameEnv(OBSTACLES, FrameTransform(48, 48), options={"highlight": False, "tile_size": 8})


def test_games_without_a_script_have_no_expert():
    assert expert_for("ALE/Pong-v5") is None
    assert expert_for(OBSTACLES) is not None


def test_the_way_round_obstacles_reaches_the_goal():
    env = obstacles()
    spec = env.action_spec
    env.close()
    expert = play_episodes(obstacles, NoisyExpertPolicy(spec, 0.0), range(12), policy_seed=0)
    random = play_episodes(obstacles, RandomPolicy(spec), range(12), policy_seed=0)
    assert min(episode.total_reward for episode in expert) > 0.5
    assert np.mean([episode.total_reward for episode in random]) < 0


def test_the_expert_waits_where_every_way_is_closed():
    env = obstacles()
    _, info = env.reset(0)
    grid = env._env.unwrapped
    from minigrid.core.world_object import Ball

    x, y = grid.agent_pos
    for step_x, step_y in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        if grid.grid.get(x + step_x, y + step_y) is None:
            grid.grid.set(x + step_x, y + step_y, Ball())
    assert expert_for(OBSTACLES)(grid) != 2  # forward would end the game
    assert info[EXPERT_ACTION].shape == (1,)
    env.close()


def test_freeway_walks_up():
    pytest.importorskip("ale_py")
    env = GameEnv("ALE/Freeway-v5", FrameTransform(64, 64))
    _, info = env.reset(0)
    assert env.action_spec.components[0].labels[int(info[EXPERT_ACTION][0])] == "UP"
    env.close()


@pytest.mark.parametrize("game", ["MinAtar/Breakout-v0", "MinAtar/Breakout-v1"])  # all six actions, only three
def test_breakout_never_misses_the_ball(game: str):
    pytest.importorskip("minatar")

    def court() -> GameEnv:
        return GameEnv(game, FrameTransform(40, 40), options={"sticky_action_prob": 0.0})

    env = court()
    spec = env.action_spec
    env.close()
    for episode in play_episodes(court, NoisyExpertPolicy(spec, 0.0), range(4), policy_seed=0, max_steps=200):
        assert len(episode.rewards) == 200
        assert episode.total_reward > 10


@pytest.mark.parametrize(
    ("game", "least"),
    [
        ("Asterix-v0", 1.5),
        ("Freeway-v1", 1.5),
        ("SpaceInvaders-v1", 8.0),
        ("SpaceInvaders-v0", 8.0),
        ("Seaquest-v0", 1.0),
    ],
)
def test_minatar_scripts_play_far_better_than_chance(game: str, least: float):
    pytest.importorskip("minatar")

    def arcade() -> GameEnv:
        return GameEnv(f"MinAtar/{game}", FrameTransform(40, 40), options={"sticky_action_prob": 0.0})

    env = arcade()
    spec = env.action_spec
    env.close()

    def mean_return(policy: NoisyExpertPolicy | RandomPolicy) -> float:
        played = play_episodes(arcade, policy, range(4), policy_seed=0, max_steps=100)
        return float(np.mean([episode.total_reward for episode in played]))

    script, random = mean_return(NoisyExpertPolicy(spec, 0.0)), mean_return(RandomPolicy(spec))
    assert script > least, f"script {script}, random {random}"
    assert script > random + least / 2


@pytest.fixture
def shooting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Makes ViZDoom's first scenario; it leaves its settings in the folder it is started in."""
    pytest.importorskip("vizdoom")
    monkeypatch.chdir(tmp_path)

    def range_with(env_id: str = "VizdoomBasic-v1", **options: object) -> GameEnv:
        return GameEnv(env_id, FrameTransform(64, 64, crop=[92, 0, 84, 320]), options={"frame_skip": 4, **options})

    return range_with


def test_the_marksman_hits_every_monster(shooting):
    def range_with_labels() -> GameEnv:
        return shooting(labels_buffer_enabled=True)

    env = range_with_labels()
    spec = env.action_spec
    env.close()
    expert = play_episodes(range_with_labels, NoisyExpertPolicy(spec, 0.0), range(6), policy_seed=0, max_steps=74)
    random = play_episodes(range_with_labels, RandomPolicy(spec), range(6), policy_seed=0, max_steps=74)
    assert min(episode.total_reward for episode in expert) > 50
    for episode in expert:  # the game draws nothing for a last step
        np.testing.assert_array_equal(episode.frames[-1], episode.frames[-2])
    assert all(episode.terminals[-1] for episode in expert)
    assert np.mean([episode.total_reward for episode in random]) < 0


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("VizdoomBasic-v1", {}),  # nothing says where the monster is
        ("VizdoomBasic-v1", {"labels_buffer_enabled": True, "max_buttons_pressed": 0}),  # many buttons at once
        ("VizdoomBasic-MultiBinary-v1", {"labels_buffer_enabled": True}),
    ],
)
def test_a_marksman_who_cannot_see_or_press_one_button_is_not_offered(shooting, env_id, options):
    env = shooting(env_id, **options)
    assert EXPERT_ACTION not in env.reset(0)[1]
    env.close()
