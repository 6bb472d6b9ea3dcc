"""Tasks of windows: which apply, where their reward comes from, and how windows are drawn for them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.core.errors import ConfigError, DataError
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.latents.places import Place
from ahriuwu_cli.latents.rewards import ByReward, draw_start
from ahriuwu_cli.latents.tasks import Task, assign_tasks
from ahriuwu_cli.latents.windows import LatentWindows

CLIMB, SWIM = "climb", "swim"  # the tasks of the hand-made store
BOTH = {"wet": "event:splash", SWIM: "reward"}
"""Task 0 applies to every episode, task 1 to those recorded under `swim`."""


@pytest.fixture(scope="module")
def windows(by_hand) -> LatentWindows:
    return LatentWindows(by_hand.packed, "train", BOTH)


@pytest.fixture(scope="module")
def truth(by_hand) -> dict[str, dict[str, np.ndarray]]:
    """Per episode id: reward and event of each block, frame by frame from the store."""
    store, found = by_hand.store, {}
    for item in store.episodes:
        episode = store.read(item.id)
        said = episode.events.get("splash", np.zeros(episode.num_steps))
        found[item.id] = {
            "reward": np.concatenate([[0], episode.rewards]),
            "splash": np.concatenate([[0], said]),
            "recorded": item.task,
        }
    return found


# ---------------------------------------------------------------- which tasks there are


def test_without_sources_the_store_s_tasks_take_its_reward():
    assert assign_tasks({}, [CLIMB, SWIM], ["splash"]) == (Task(CLIMB, "reward", 0), Task(SWIM, "reward", 1))


def test_sources_name_tasks_in_their_order():
    tasks = assign_tasks(BOTH, [CLIMB, SWIM], ["splash"])
    assert tasks == (Task("wet", "events.splash", None), Task(SWIM, "reward", 1))
    assert [[task.applies(recorded) for recorded in (0, 1)] for task in tasks] == [[True, True], [False, True]]


@pytest.mark.parametrize(
    ("sources", "events", "message", "hint"),
    [
        ({"fly": "reward"}, ["splash"], r'"fly" takes the reward, but .* recorded under climb, swim', "data.task"),
        ({"fly": "event:wind"}, ["splash", "dive"], r'the event "wind"; .* the events splash, dive', "events"),
        ({"fly": "event:wind"}, [], r"the packed episodes have no events", "events"),
    ],
)
def test_tasks_that_nothing_tells_of_are_refused(sources, events, message, hint):
    with pytest.raises(ConfigError, match=message) as caught:
        assign_tasks(sources, [CLIMB, SWIM], events)
    assert hint in caught.value.hint


def test_episodes_to_which_no_task_applies_are_left_out(by_hand):
    swimming = LatentWindows(by_hand.packed, "train", {SWIM: "reward"})
    assert swimming.tasks == [SWIM]
    assert {by_hand.store.record(episode.id).task for episode in swimming.episodes} == {SWIM}
    assert swimming.sampler.num_latents == sum(episode.num_latents for episode in swimming.episodes)
    assert (swimming.read(swimming.sampler.draw(np.random.default_rng(0), 20, 3), 3).task == 0).all()


def test_a_split_without_episodes_of_the_tasks_is_refused(by_hand, tmp_path: Path):
    own = type(by_hand)(tmp_path)
    store = EpisodeStore.create(own.episodes, by_hand.store.action_spec, by_hand.store.frame_spec, "Some-v0", {})
    store.append([by_hand.store.read(id_) for id_ in ("000000", "000001")])  # one of each task, one in each split
    own.tokenizer.write_bytes(by_hand.tokenizer.read_bytes())
    own.build()
    own.pack()
    held = store.record(store.ids("heldout")[0]).task
    with pytest.raises(DataError, match=f"has no train episode of the tasks {held}"):
        LatentWindows(own.packed, "train", {held: "reward"})


# ---------------------------------------------------------------- whose reward a window has


def test_a_window_has_the_reward_of_its_task(windows, truth):
    for index, episode in enumerate(windows.episodes):
        expected, count = truth[episode.id], episode.num_latents
        batch = windows.read([Place(index, 0, 0)], count, 2)
        assert batch.task.tolist() == [0]
        assert batch.reward[0].tolist() == pytest.approx([*expected["splash"], 0, 0])
        if expected["recorded"] == SWIM:
            batch = windows.read([Place(index, 0, 1)], count, 2)
            assert batch.task.tolist() == [1]
            assert batch.reward[0].tolist() == pytest.approx([*expected["reward"], 0, 0])
        else:
            with pytest.raises(AssertionError):
                windows.read([Place(index, 0, 1)], count, 2)
    assert any(expected["splash"].any() for expected in truth.values())


def test_events_of_episodes_without_them_are_zero(by_hand, windows, truth):
    silent = [i for i, episode in enumerate(windows.episodes) if not by_hand.store.read(episode.id).events]
    assert silent
    for index in silent:
        assert not windows.read([Place(index, 0, 0)], 20, 0).reward.any()


def test_packing_without_events_leaves_no_trace(recorded, by_hand):
    assert by_hand.store.events == ["splash"]
    assert LatentWindows(by_hand.packed, "train").header.info["events"] == ["splash"]
    assert LatentWindows(recorded.packed, "train").header.info["events"] == ["bounce"]


# ---------------------------------------------------------------- drawing for tasks


@pytest.mark.parametrize("length", [1, 3])
def test_relevant_windows_reach_the_reward_of_their_own_task(windows, length):
    """[D4] Sec. 3.3: a task evenly among those that are rewarded, then a window that reaches its reward."""
    batch = windows.read(windows.sampler.draw(np.random.default_rng(0), 600, length, relevant=True), length)
    assert (batch.reward[:, :length] > 0).any(dim=1).all()
    assert batch.task.float().mean() == pytest.approx(0.5, abs=0.08)
    found = windows.sampler.relevant_blocks(0), windows.sampler.relevant_blocks(1)
    assert len(found[0]) != len(found[1]) > 0  # evenly, though one is rewarded more often


def test_a_task_that_is_never_rewarded_is_not_drawn_as_relevant(windows, monkeypatch):
    monkeypatch.setattr(windows.sampler, "_relevant", {1: []})
    drawn = windows.sampler.draw(np.random.default_rng(0), 50, 3, relevant=True)
    assert [place.task for place in drawn] == [0] * 50


def test_uniform_windows_have_tasks_that_apply(windows, truth, monkeypatch):
    """Windows evenly, as without tasks; a task evenly among those that apply to the episode."""
    places = windows.sampler.draw(np.random.default_rng(0), 3000, 4)
    tasks = {SWIM: Counter(), CLIMB: Counter()}
    for index, _, task in places:
        tasks[truth[windows.episodes[index].id]["recorded"]][task] += 1
    assert tasks[CLIMB].keys() == {0}
    assert tasks[SWIM][1] / tasks[SWIM].total() == pytest.approx(0.5, abs=0.06)
    share = np.array([sum(index == i for index, *_ in places) for i in range(len(windows.episodes))]) / 3000
    expected = np.array([episode.num_latents for episode in windows.episodes]) / windows.sampler.num_latents
    assert np.abs(share - expected).max() < 0.03


def test_contexts_have_tasks_that_apply(windows, truth):
    """A dream is asked for a task that the episode tells of; its reward column comes along."""
    batch = windows.read(windows.sampler.draw_contexts(np.random.default_rng(0), 300, 2), 2)
    assert 0.1 < batch.task.float().mean() < 0.5
    swims = [truth[episode.id]["recorded"] == SWIM for episode in windows.episodes]
    places = windows.sampler.draw_whole(np.random.default_rng(0), 300, 3)
    assert all(swims[index] for (index, *_), task in zip(places, batch.task.tolist(), strict=True) if task == 1)


# ---------------------------------------------------------------- by default, exactly the plain draw


def plain_draw(windows: LatentWindows, rng, count: int, length: int, pool: list) -> list[tuple[int, int]]:
    """The rule for one task: a rewarding block or a latent, evenly, and a window around it moved inside."""
    places = []
    for _ in range(count):
        if pool:
            index, block = pool[int(rng.integers(len(pool)))]
        else:
            position = int(rng.integers(windows.sampler.num_latents))
            ends = np.cumsum([episode.num_latents for episode in windows.episodes])
            index = int(np.searchsorted(ends, position, side="right"))
            block = position - int(ends[index]) + windows.episodes[index].num_latents
        start = block - int(rng.integers(length))
        places.append((index, max(0, min(start, windows.episodes[index].num_latents - length))))
    return places


@pytest.mark.parametrize("tasks", [{}, {"play": "reward"}, {"any": "event:bounce"}])
@pytest.mark.parametrize("relevant", [False, True])
@pytest.mark.parametrize("length", [1, 6, 40])
def test_one_task_draws_as_if_there_were_none(recorded, monkeypatch, tasks, relevant, length):
    """Same windows from the same numbers, and the same numbers left over afterwards."""
    windows = LatentWindows(recorded.packed, "train", tasks)
    column = "events.bounce" if "any" in tasks else "reward"
    pool = [
        (index, int(block))
        for index, episode in enumerate(windows.episodes)
        for block in np.flatnonzero(windows._slice(episode, column, 0, episode.num_latents) > 0)
    ]
    assert pool
    mine, theirs = np.random.default_rng(7), np.random.default_rng(7)
    found = windows.sampler.draw(mine, 60, length, relevant=relevant)
    assert found == [(*place, 0) for place in plain_draw(windows, theirs, 60, length, pool if relevant else [])]
    assert mine.bit_generator.state == theirs.bit_generator.state
    length = min(length, 5)
    contexts = windows.read(windows.sampler.draw_contexts(mine, 20, length), length)
    expected = windows.read(windows.sampler.draw_whole(theirs, 20, length + 1), length)
    assert all(torch.equal(value, vars(expected)[name]) for name, value in vars(contexts).items())
    assert mine.bit_generator.state == theirs.bit_generator.state


def test_uniform_draws_of_the_store_s_own_tasks_take_no_further_numbers(by_hand, monkeypatch):
    windows = LatentWindows(by_hand.packed, "train")
    mine, theirs = np.random.default_rng(7), np.random.default_rng(7)
    found = windows.sampler.draw(mine, 60, 4)
    assert [place[:2] for place in found] == plain_draw(windows, theirs, 60, 4, [])
    assert [task for *_, task in found] == [windows.episodes[index].task for index, *_ in found]
    assert mine.bit_generator.state == theirs.bit_generator.state


# ---------------------------------------------------------------- how far a window may lie before its reward


@given(data=st.data(), num=st.integers(1, 60), length=st.integers(1, 20), reach=st.integers(0, 80))
def test_a_window_ends_at_most_reach_blocks_before_the_reward(data, num, length, reach):
    block = data.draw(st.integers(0, num - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    start = draw_start(rng, block, length, num, reach)
    assert 0 <= start <= max(0, num - length)
    last = start + length - 1
    assert start <= block <= last + reach


@given(data=st.data(), num=st.integers(1, 14), length=st.integers(1, 6), reach=st.integers(0, 8))
def test_every_such_window_is_drawn_and_those_inside_evenly(data, num, length, reach):
    block = data.draw(st.integers(0, num - 1))
    rng = np.random.default_rng(0)
    found = Counter(draw_start(rng, block, length, num, reach) for _ in range(1500))
    starts = range(max(0, block - length + 1 - reach), min(block, max(0, num - length)) + 1)
    assert found.keys() == set(starts)
    if starts[-1] == block and block >= length - 1:  # none was moved
        share = np.array(list(found.values())) / 1500 * len(starts)
        assert share.min() > 0.5 and share.max() < 1.6


def test_a_large_reach_does_not_pile_windows_up_at_the_beginning():
    rng = np.random.default_rng(0)
    starts = Counter(draw_start(rng, 50, 10, 100, reach=10_000) for _ in range(5100))
    assert starts.keys() == set(range(51))
    assert starts[0] < 180


def test_reach_lets_windows_before_the_reward_in(recorded):
    """Pitfall 35: where rewards are rarer than windows are long, what leads to them is learned from too."""
    windows, further = (LatentWindows(recorded.packed, "train", relevance=ByReward(reach)) for reach in (0, 5))
    near = windows.read(windows.sampler.draw(np.random.default_rng(0), 300, 4, relevant=True), 4)
    far = further.read(further.sampler.draw(np.random.default_rng(0), 300, 4, relevant=True), 4)
    assert (near.reward > 0).any(dim=1).all()
    assert 0.2 < (far.reward > 0).any(dim=1).float().mean() < 0.9
    ahead = further.read(further.sampler.draw(np.random.default_rng(0), 300, 4, relevant=True), 4, 5)
    assert (ahead.reward > 0).any(dim=1).all()
    uniform = [each.sampler.draw(np.random.default_rng(1), 40, 4) for each in (windows, further)]
    assert uniform[0] == uniform[1]
