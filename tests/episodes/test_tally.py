"""What agents do: shares by hand, repeats within episodes only, and any split into episodes adds up."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.episodes.tally import ActionTally

MOVE = ActionComponent(name="move", type="categorical", num_classes=3, labels=("stay", "left", "right"))
KEYS = ActionComponent(name="keys", type="binary", dim=2)
CAMERA = ActionComponent(name="camera", type="continuous", low=-1.0, high=1.0)
SPEC = ActionSpec(components=(MOVE, KEYS, CAMERA))


def tally(spec: ActionSpec, *episodes: list[list[float]]) -> ActionTally:
    counts = ActionTally(spec)
    for actions in episodes:
        counts.add(np.array(actions, np.float32).reshape(len(actions), spec.dim))
    return counts


def test_shares_by_hand() -> None:
    facts = tally(SPEC, [[0, 1, 0, 1], [0, 1, 0, 1], [2, 1, 0, -1]], [[2, 0, 1, -1]]).facts()
    assert facts["steps"] == 4
    assert facts["repeated"] == 0.5  # one of two steps that have one before them
    move, keys, camera = facts["components"].values()
    assert move == {"type": "categorical", "repeated": 0.5, "shares": {"stay": 0.5, "left": 0.0, "right": 0.5}}
    assert keys == {"type": "binary", "repeated": 1.0, "on": [0.75, 0.25]}
    assert (camera["mean"], camera["spread"], camera["repeated"]) == ([0.0], [1.0], 0.5)
    assert camera["histogram"] == [[0.5, *[0.0] * 8, 0.5]]
    assert (camera["edges"][0], camera["edges"][-1], len(camera["edges"])) == (-1.0, 1.0, 11)
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_nothing_is_known_of_steps_without_a_label() -> None:
    counts = ActionTally(ActionSpec(components=(MOVE,)))
    counts.add(np.array([[1], [0], [1], [1], [2]], np.float32), np.array([True, False, True, True, True]))
    facts = counts.facts()
    assert facts["steps"] == 4
    assert facts["components"]["move"]["shares"] == {"stay": 0.0, "left": 0.75, "right": 0.25}
    assert facts["repeated"] == 0.5  # of the two steps that follow a known one


def test_a_frozen_policy_shows() -> None:
    """Pitfalls 16 and 17: one that repeats its action has 1.0, whatever the action."""
    spec = ActionSpec(components=(MOVE,))
    frozen = tally(spec, [[1]] * 9, [[2]] * 9)
    assert frozen.facts()["repeated"] == 1.0
    assert tally(spec, [[0], [1], [2], [0]]).facts()["repeated"] == 0.0


def test_a_component_repeats_as_a_whole() -> None:
    facts = tally(ActionSpec(components=(KEYS,)), [[0, 0], [0, 1]]).facts()
    assert facts["components"]["keys"]["repeated"] == facts["repeated"] == 0.0


def test_single_steps_say_nothing_of_repeats() -> None:
    assert tally(SPEC, [[0, 1, 0, 1]]).facts()["repeated"] is None


ROW = st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 1), st.floats(-1, 1, width=32))


@settings(max_examples=60, deadline=None)
@given(episodes=st.lists(st.lists(ROW, min_size=1, max_size=6), min_size=1, max_size=4))
def test_shares_add_up(episodes: list[list[tuple[float, ...]]]) -> None:
    facts = tally(SPEC, *[list(map(list, rows)) for rows in episodes]).facts()
    rows = np.array([row for rows in episodes for row in rows], np.float32)
    assert facts["steps"] == len(rows)
    move, keys, camera = facts["components"].values()
    assert sum(move["shares"].values()) == pytest.approx(1)
    assert keys["on"] == pytest.approx(rows[:, 1:3].mean(axis=0, dtype=np.float64))
    assert sum(camera["histogram"][0]) == pytest.approx(1)
    assert camera["mean"] == [pytest.approx(rows[:, 3].mean(dtype=np.float64), abs=1e-6)]
    assert camera["spread"] == [pytest.approx(rows[:, 3].std(dtype=np.float64), abs=1e-6)]
    same = sum(one == two for rows in episodes for one, two in itertools.pairwise(rows))
    followers = len(rows) - len(episodes)
    assert facts["repeated"] == (same / followers if followers else None)
    assert all(part["repeated"] is None or part["repeated"] >= facts["repeated"] for part in (move, keys, camera))
