"""What an episode may not be: wrong shapes, types, flags, times and actions."""

import dataclasses

import numpy as np
import pytest

from ahriuwu_cli.core.errors import DataError


def test_a_proper_episode_passes(make_episode, action_spec, frame_spec) -> None:
    episode = make_episode(1, steps=1)
    episode.validate(action_spec, frame_spec)
    assert episode.num_steps == 1
    assert episode.total_reward == pytest.approx(float(episode.rewards[0]))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("frames", lambda a: a[:-1], "frames is uint8"),
        ("frames", lambda a: a[:, :4], r"expected uint8 \(5, 8, 10, 3\)"),
        ("frames", lambda a: a.astype(np.float32), "frames is float32"),
        ("actions", lambda a: a.astype(np.float64), "actions is float64"),
        ("actions", lambda a: a[:, :3], r"expected float32 \(4, 4\)"),
        ("actions", lambda a: a[:0], "has no steps"),
        ("action_valid", lambda a: a.astype(np.uint8), "action_valid is uint8"),
        ("rewards", lambda a: a[:-1], "rewards is float32"),
        ("rewards", lambda a: a * np.array([1, np.nan, 1, 1], np.float32), r"rewards\[1\] is not finite"),
        ("timestamps", lambda a: a[::-1], "timestamps do not rise after frame 0"),
        ("timestamps", lambda a: a * np.array([1, 1, 0, 1, 1]), "timestamps do not rise after frame 1"),
        ("terminals", lambda a: a[::-1], "terminals is set at step 0 of 4"),
        ("truncations", lambda a: np.array([False, True, False, False]), "truncations is set at step 1"),
    ],
)
def test_broken_episodes_are_refused(make_episode, action_spec, frame_spec, name, change, message) -> None:
    episode = make_episode(1)
    broken = dataclasses.replace(episode, **{name: change(getattr(episode, name))})
    with pytest.raises(DataError, match=message) as caught:
        broken.validate(action_spec, frame_spec)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, 3, r"'move' \(categorical\) is 3 at step 1; expected a whole number in 0..2"),
        (0, -1, "'move'"),
        (0, 0.5, "'move'"),
        (1, 2, r"'keys' \(binary\) is 2 at step 1; expected a whole number in 0..1"),
        (2, 0.5, "'keys'"),
        (3, 1.5, r"'aim' \(continuous\) is 1.5 at step 1; expected a number in -1..1"),
        (3, np.nan, "'aim'"),
        (3, np.inf, "'aim'"),
    ],
)
def test_actions_outside_their_range_are_named(make_episode, action_spec, frame_spec, column, value, message) -> None:
    episode = make_episode(1)
    episode.actions[1, column] = value
    with pytest.raises(DataError, match=message):
        episode.validate(action_spec, frame_spec)


def test_unknown_actions_need_only_be_finite(make_episode, action_spec, frame_spec) -> None:
    episode = make_episode(1)
    episode.action_valid[1] = False
    episode.actions[1] = 9
    episode.validate(action_spec, frame_spec)
    episode.actions[1, 3] = np.nan
    with pytest.raises(DataError, match="'aim'"):
        episode.validate(action_spec, frame_spec)
