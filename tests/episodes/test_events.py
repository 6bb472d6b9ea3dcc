"""Events: what an environment says of a step, recorded beside the rewards, stored, and summed over blocks."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.episodes.alignment import arrived, covered_frames, to_blocks
from ahriuwu_cli.episodes.events import event_array, event_of, events_of
from ahriuwu_cli.episodes.frames import FrameTransform
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.games.bricks import BALL, PADDLE_Y, BricksEnv
from ahriuwu_cli.games.environment import GameEnv
from ahriuwu_cli.games.policies import NoisyExpertPolicy, RandomPolicy
from ahriuwu_cli.games.runner import play_episodes

SAID: list[dict[str, Any]] = [{}, {"jump": True}, {}, {"jump": False, "coins": np.float32(2.5)}, {"coins": 3}]
"""What the teller says at its steps 0 to 4."""


class Teller(gymnasium.Env[np.ndarray, Any]):
    """Five steps; the info of each has the events of SAID, the reward is the step's number."""

    def __init__(self, said: Any = SAID) -> None:
        self.observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
        self.action_space = spaces.Discrete(2)
        self._said, self._step = said, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._step = 0
        return np.zeros((8, 8, 3), np.uint8), {"events": {"before": 1}}

    def step(self, action: int) -> Any:
        said, self._step = self._said[self._step], self._step + 1
        info = {"events": said} if said or said == [] else {}
        return np.full((8, 8, 3), self._step, np.uint8), float(self._step), False, self._step == len(SAID), info


def teller(**options: Any) -> GameEnv:
    if "Teller-v0" not in gymnasium.registry:
        gymnasium.register("Teller-v0", entry_point=Teller)
    return GameEnv("Teller-v0", FrameTransform(8, 8), options=options)


# ---------------------------------------------------------------- what an environment says


def test_numbers_and_flags_are_taken():
    assert events_of({}) == {}
    info = {"events": {"a": True, "b": np.bool_(False), "c": np.float32(0.5), "d": -3, "e": np.array(2)}}
    assert events_of(info) == {"a": 1.0, "b": 0.0, "c": 0.5, "d": -3.0, "e": 2.0}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["jump"], r"info\['events'\] is list; expected a mapping"),
        ({"a b": 1}, "names an event 'a b'; expected"),
        ({"": 1}, "names an event ''"),
        ({7: 1}, "names an event 7"),
        ({"jump": "1"}, "event 'jump' is '1'; expected a finite number"),
        ({"jump": None}, "event 'jump' is None"),
        ({"jump": [1, 2]}, r"event 'jump' is \[1, 2\]"),
        ({"jump": float("nan")}, "event 'jump' is nan"),
        ({"jump": float("inf")}, "event 'jump' is inf"),
    ],
)
def test_what_is_no_event_is_refused_while_playing(said, message):
    policy = RandomPolicy(teller().action_spec)
    with pytest.raises(DataError, match=message) as caught:
        play_episodes(lambda: teller(said=[said] * len(SAID)), policy, [0], policy_seed=0)
    assert 'info["events"]' in caught.value.hint


def test_events_come_with_the_reward_of_their_step():
    """One number per step; zero before an event first appears and wherever it is not named."""
    [episode] = play_episodes(teller, RandomPolicy(teller().action_spec), [0], policy_seed=0)
    assert episode.rewards.tolist() == [1, 2, 3, 4, 5]
    assert {name: values.tolist() for name, values in episode.events.items()} == {
        "coins": [0, 0, 0, 2.5, 3],
        "jump": [0, 1, 0, 0, 0],
    }
    assert all(values.dtype == np.float32 for values in episode.events.values())
    assert episode.event("flight").tolist() == [0] * 5
    episode.validate(teller().action_spec, teller().frame_spec)


def test_an_episode_has_its_own_events_only():
    policy = RandomPolicy(teller().action_spec)
    episodes = play_episodes(teller, policy, [0, 1, 2], policy_seed=0, num_envs=1)
    assert all(np.array_equal(episode.event("coins"), episodes[0].event("coins")) for episode in episodes)


def test_the_game_tells_of_every_ball_the_paddle_returns():
    """Worked out from the ball's motion: it turns upwards while it rests on the paddle."""
    game = GameEnv("ahriuwu/Bricks-v0", FrameTransform(32, 32))
    policy = NoisyExpertPolicy(game.action_spec, 0.2)
    for episode in play_episodes(lambda: game, policy, [3, 4], policy_seed=0, num_envs=1, max_steps=120):
        env, expected = BricksEnv(), []
        env.reset(seed=episode.seed)
        for row in episode.actions:
            falling = env._speed_y > 0
            env.step(int(row[0]))
            expected.append(falling and env._speed_y < 0 and env._ball_y == PADDLE_Y - BALL)
        assert episode.events.keys() == {"bounce"}
        assert episode.events["bounce"].tolist() == expected
        assert 0 < sum(expected) < len(expected)


# ---------------------------------------------------------------- episodes and stores


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ({"a.b": np.zeros(4, np.float32)}, "has an event 'a.b'; expected a name like"),
        ({"": np.zeros(4, np.float32)}, "has an event ''"),
        ({"a": np.zeros(3, np.float32)}, r"events.a is float32 \(3,\); expected float32 \(4,\)"),
        ({"a": np.zeros(4)}, "events.a is float64"),
        ({"a": np.array([0, 1, np.nan, 0], np.float32)}, r"events.a\[2\] is not finite"),
    ],
)
def test_broken_events_are_refused(make_episode, action_spec, frame_spec, events, message):
    with pytest.raises(DataError, match=message):
        dataclasses.replace(make_episode(), events=events).validate(action_spec, frame_spec)


def test_a_store_keeps_events(make_store, make_episode):
    store = make_store()
    jump, coins = np.array([0, 1, 0, 1], np.float32), np.array([0, 0, 2.5, 0], np.float32)
    store.append([make_episode(0)])
    assert store.events == []
    store.append([make_episode(1, events={"jump": jump}), make_episode(2, events={"jump": -jump, "coins": coins})])
    again = EpisodeStore.open(store.folder)
    assert again.fingerprint == store.fingerprint
    assert again.events == ["jump", "coins"]
    assert [record.events for record in again.episodes] == [{}, {"jump": 2.0}, {"coins": 2.5, "jump": -2.0}]
    assert again.read("000000").events == {}
    read = again.read("000002").events
    assert np.array_equal(read["jump"], -jump) and np.array_equal(read["coins"], coins)


def test_a_store_without_events_says_nothing_of_them(make_store):
    """A store made before there were events keeps its fingerprint, also when it is written again."""
    store = make_store(3)
    manifest = json.loads((store.folder / "manifest.json").read_text())
    assert "events" not in manifest["info"]
    assert not any("events" in record for record in manifest["info"]["episodes"])
    before = store.fingerprint
    store.set_split(0.4, seed=9)
    store.set_split(0.1, seed=0)
    assert read_header(store.folder, "episodes").fingerprint == before


def test_events_are_part_of_the_fingerprint(make_store, make_episode):
    plain, told = make_store(1, "plain"), make_store(0, "told")
    told.append([make_episode(0, events={"jump": np.zeros(4, np.float32)})])
    assert plain.fingerprint != told.fingerprint


def test_names_of_arrays():
    assert event_of(event_array("jump")) == "jump"
    assert event_of("rewards") is None


# ---------------------------------------------------------------- blocks


@given(values=st.lists(st.integers(-9, 9), min_size=1, max_size=20), stride=st.integers(1, 5))
def test_a_block_has_the_sum_over_exactly_its_frames(values, stride):
    """Pitfall 34: of events as of rewards; what came with frame f is values[f-1]."""
    array, steps = np.array(values, np.float32), len(values)
    found = arrived(array, stride)
    expected = [
        sum(values[frame - 1] for frame in covered_frames(latent, stride) if 1 <= frame <= steps)
        for latent in range(len(found))
    ]
    assert found.tolist() == expected
    assert found.sum() == sum(values)
    never = np.zeros(steps, bool)
    blocks = to_blocks(
        actions=np.zeros((steps, 1), np.float32), action_valid=~never, rewards=array, terminals=never, stride=stride
    )
    assert np.array_equal(blocks.reward, found) and blocks.reward.dtype == found.dtype
