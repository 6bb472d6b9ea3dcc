"""The built-in game: Gymnasium's own checks, determinism, physics, returns, speed."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.games import bricks
from ahriuwu_cli.games.bricks import GAME_ID, LEFT, NOOP, RIGHT, BricksEnv, register_game


def play(env: BricksEnv, seed: int, actions: list[int]) -> tuple[list[np.ndarray], list[float]]:
    frame, _ = env.reset(seed=seed)
    frames, rewards = [frame], []
    for action in actions:
        frame, reward, terminal, truncated, _ = env.step(action)
        frames.append(frame)
        rewards.append(reward)
        if terminal or truncated:
            break
    return frames, rewards


def mean_return(noise: float, episodes: int = 200) -> float:
    env, total = BricksEnv(), 0.0
    for seed in range(episodes):
        rng = np.random.default_rng([7, seed])
        _, info = env.reset(seed=seed)
        over = False
        while not over:
            action = int(rng.integers(3)) if rng.random() < noise else info["expert_action"]
            _, reward, terminal, truncated, info = env.step(action)
            total += reward
            over = terminal or truncated
    return total / episodes


def test_registration_is_asked_for_and_may_be_repeated() -> None:
    register_game()
    register_game()
    env = gymnasium.make(GAME_ID, size=64)
    assert env.reset(seed=0)[0].shape == (64, 64, 3)
    assert env.unwrapped.get_action_meanings() == ["noop", "left", "right"]


@pytest.mark.parametrize("size", [32, 64])
def test_gymnasium_accepts_it(size: int) -> None:
    register_game()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(GAME_ID, disable_env_checker=True, size=size, render_mode="rgb_array").unwrapped
        check_env(env)


def test_render_gives_the_observation() -> None:
    env = BricksEnv(render_mode="rgb_array")
    observation, _ = env.reset(seed=3)
    assert np.array_equal(env.render(), observation)
    assert BricksEnv().render() is None


@pytest.mark.parametrize("options", [{"size": 48}, {"max_steps": 0}, {"sticky": 1.5}, {"render_mode": "human"}])
def test_bad_options_are_refused(options: dict) -> None:
    with pytest.raises(InputError) as caught:
        BricksEnv(**options)
    assert str(next(iter(options.values()))) in caught.value.message
    assert caught.value.hint


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.lists(st.integers(0, 2), min_size=1, max_size=60))
def test_same_seed_and_actions_give_the_same_play(seed: int, actions: list[int]) -> None:
    one, two = play(BricksEnv(), seed, actions), play(BricksEnv(), seed, actions)
    assert one[1] == two[1]
    assert np.array_equal(one[0], two[0])


def test_motion_needs_no_random_numbers_after_reset() -> None:
    env = BricksEnv()
    env.reset(seed=0)
    before = env.np_random.bit_generator.state
    for _ in range(6):
        env.step(LEFT)
    assert env.np_random.bit_generator.state == before


def test_starts_differ_and_unseeded_resets_go_on_with_the_stream() -> None:
    env = BricksEnv()
    starts = {env.reset(seed=seed)[0].tobytes() for seed in range(30)}
    assert len(starts) > 20
    first = [env.reset(seed=1)[0].tobytes(), env.reset()[0].tobytes()]
    assert first[0] != first[1]
    assert first == [env.reset(seed=1)[0].tobytes(), env.reset()[0].tobytes()]


def test_64_is_32_scaled_by_two() -> None:
    small, large = play(BricksEnv(size=32), 5, [1, 2, 0] * 5), play(BricksEnv(size=64), 5, [1, 2, 0] * 5)
    assert small[1] == large[1]
    for a, b in zip(small[0], large[0], strict=True):
        assert np.array_equal(np.kron(a, np.ones((2, 2, 1), np.uint8)), b)


def test_frames_are_not_shared() -> None:
    env = BricksEnv()
    frame, _ = env.reset(seed=0)
    kept = frame.copy()
    env.step(RIGHT)
    assert np.array_equal(frame, kept)


def test_picture_shows_wall_ball_and_paddle() -> None:
    frame, _ = BricksEnv().reset(seed=0)
    assert (frame[6:8] == bricks.ROW_COLOURS[0]).all()
    assert (frame[8:10] == bricks.ROW_COLOURS[1]).all()
    assert (frame[10:12] == bricks.ROW_COLOURS[2]).all()
    assert (frame == bricks.BALL_COLOUR).all(-1).sum() == 4
    assert (frame == bricks.PADDLE_COLOUR).all(-1).sum() == 14


def test_paddle_moves_and_stops_at_the_walls() -> None:
    env = BricksEnv()
    env.reset(seed=0)
    start = env._paddle_x
    env.step(NOOP)
    assert env._paddle_x == start
    for _ in range(12):
        env._move_paddle(LEFT)
    assert env._paddle_x == 0
    for _ in range(12):
        env._move_paddle(RIGHT)
    assert env._paddle_x == 25


def test_sticky_repeats_the_previous_action() -> None:
    env = BricksEnv(sticky=1.0)
    env.reset(seed=0)
    start = env._paddle_x
    for _ in range(5):
        env.step(RIGHT)  # the action before the first is noop, repeated for ever
    assert env._paddle_x == start
    first = play(BricksEnv(sticky=0.5), 4, [1, 2] * 10)
    assert np.array_equal(first[0], play(BricksEnv(sticky=0.5), 4, [1, 2] * 10)[0])


def test_lost_ball_ends_the_episode_and_long_play_is_truncated() -> None:
    env = BricksEnv()
    env.reset(seed=0)
    env._paddle_x, env._ball_x, env._speed_x = 0, 28, 1
    for _ in range(20):
        _, reward, terminal, truncated, _ = env.step(NOOP)
        if terminal:
            break
    assert terminal and not truncated and reward == 0.0

    env = BricksEnv(max_steps=5)
    env.reset(seed=0)
    flags = [env.step(NOOP)[2:4] for _ in range(5)]
    assert flags == [(False, False)] * 4 + [(False, True)]


def test_ball_breaks_one_brick_for_one_point_and_turns() -> None:
    env = BricksEnv()
    env.reset(seed=0)
    env._ball_x, env._ball_y, env._speed_x, env._speed_y = 9, 13, 1, -2
    frame, reward, *_ = env.step(NOOP)
    assert reward == 1.0
    assert not env._bricks[2, 2] and env._bricks.sum() == 23
    assert (env._ball_y, env._speed_y) == (12, 2)
    assert (frame[10:12, 8:12] == bricks.BACKGROUND).all()


def test_paddle_deflects_by_where_it_is_hit() -> None:
    speeds = []
    for landed in range(8):
        env = BricksEnv()
        env.reset(seed=0)
        env._paddle_x, env._ball_x, env._ball_y, env._speed_x, env._speed_y = 12, 10 + landed, 27, 1, 2
        env.step(NOOP)
        assert (env._ball_y, env._speed_y) == (27, -2)
        speeds.append(env._speed_x)
    assert speeds == [-2, -2, -1, -1, 1, 1, 2, 2]


def test_cleared_wall_is_built_anew() -> None:
    env = BricksEnv()
    env.reset(seed=0)
    env._bricks[:] = False
    env._bricks[2, 2] = True
    env._ball_x, env._ball_y, env._speed_x, env._speed_y = 9, 13, 1, -2
    assert env.step(NOOP)[1] == 1.0
    assert env._bricks.all()


def test_long_play_keeps_the_ball_out_of_bricks_and_counts_them() -> None:
    """Every point is one brick, and the ball never sits inside the wall, also after refills."""
    env, refills = BricksEnv(max_steps=1500), 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        _, info = env.reset(seed=seed)
        for _ in range(1500):
            before = int(env._bricks.sum())
            action = info["expert_action"] if rng.random() > 0.1 else int(rng.integers(3))
            _, reward, terminal, _, info = env.step(action)
            after = int(env._bricks.sum())
            refills += after > before
            assert after > before or before - after == reward
            assert env._brick_at(env._ball_x, env._ball_y) is None
            assert 0 <= env._ball_x <= 30
            if terminal:
                break
    assert refills > 0


def test_returns_of_random_expert_and_noisy_play() -> None:
    """Random, follow-the-ball and noisy play are as far apart as the demo needs."""
    random, expert, noisy = mean_return(1.0), mean_return(0.0), mean_return(0.3)
    assert 0.2 <= random <= 0.45
    assert 11 <= expert <= 16
    assert 2.5 <= noisy <= 7
