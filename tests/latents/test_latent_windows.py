"""Windows of packed latents: slices of the source, padded and flagged; draws that are even and repeatable."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ahriuwu_cli.core.errors import ArtifactError, DataError
from ahriuwu_cli.core.tensorfile import read_arrays
from ahriuwu_cli.core.training.batches import batch_generator
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.latents.places import Place
from ahriuwu_cli.latents.shards import BLOCK_ARRAYS, Shards
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows

SPLITS = ("train", "heldout")


@pytest.fixture(scope="session")
def windows(by_hand) -> dict[str, LatentWindows]:
    """Both splits of the hand-made episodes."""
    return {split: LatentWindows(by_hand.packed, split) for split in SPLITS}


@pytest.fixture(scope="session")
def truth(by_hand) -> dict[str, dict[str, np.ndarray]]:
    """Per episode id: what each block must hold, worked out frame by frame from the store."""
    found = {}
    for item in by_hand.store.episodes:
        episode = by_hand.store.read(item.id)
        blocks: dict[str, list] = {name: [] for name in BLOCK_ARRAYS}
        for t in range(len(episode.frames)):
            known = bool(t and episode.action_valid[t - 1])
            blocks["action"].append(episode.actions[t - 1] if known else np.zeros(2, np.float32))
            blocks["action_valid"].append(known)
            blocks["reward"].append(episode.rewards[t - 1] if t else 0)
            blocks["reward_valid"].append(t > 0)
            blocks["terminal"].append(bool(t and episode.terminals[t - 1]))
        arrays = {name: np.array(values) for name, values in blocks.items()}
        latents = read_arrays(by_hand.latents / f"{item.id}.safetensors")["latents"]
        found[item.id] = arrays | {"latents": latents, "task": by_hand.store.tasks.index(item.task)}
    return found


@pytest.fixture
def places(windows) -> Callable[..., list[tuple[int, int]]]:
    """What `draw` and `draw_contexts` draw: (episode index, start) of each window."""

    def drawn(split: str, method: str, *args: object, **keywords: object) -> list[tuple[int, int]]:
        return [place[:2] for place in getattr(windows[split].sampler, method)(*args, **keywords)]

    return drawn


# ---------------------------------------------------------------- reading


@given(data=st.data(), split=st.sampled_from(SPLITS), length=st.integers(1, 16), lookahead=st.integers(0, 6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_windows_are_slices_of_the_source(
    windows, truth, data: st.DataObject, split: str, length: int, lookahead: int
) -> None:
    """Pitfall 13: for any start and length, across shards, with padding and lookahead."""
    source = windows[split]
    frames = [(i, t) for i, episode in enumerate(source.episodes) for t in range(episode.num_latents)]
    chosen = data.draw(st.lists(st.sampled_from(frames), min_size=1, max_size=3))
    batch = source.read(chosen, length, lookahead)
    for row, (index, start) in enumerate(chosen):
        expected, count = truth[source.episodes[index].id], source.episodes[index].num_latents
        present = min(length, count - start)
        assert batch.valid[row].tolist() == [t < present for t in range(length)]
        assert np.array_equal(batch.latents[row, :present], expected["latents"][start : start + present])
        assert not batch.latents[row, present:].any()
        assert batch.task[row] == expected["task"]
        for name in BLOCK_ARRAYS:
            found, wanted = getattr(batch, name)[row], expected[name][start : start + length + lookahead]
            assert len(found) == length + lookahead
            assert np.array_equal(found[: len(wanted)], wanted)
            assert not found[len(wanted) :].any()


def test_types_and_shapes(windows) -> None:
    batch = windows["train"].read(windows["train"].sampler.draw(np.random.default_rng(0), 4, 5), 5, 2)
    assert batch.latents.shape == (4, 5, 4, 3)
    assert batch.action.shape == (4, 7, 2)
    assert batch.valid.shape == (4, 5)
    assert batch.task.shape == (4,)
    assert {name: getattr(batch, name).dtype for name in ("latents", "action", "reward")} == dict.fromkeys(
        ("latents", "action", "reward"), torch.float32
    )
    flags = ("action_valid", "reward_valid", "terminal", "valid")
    assert all(getattr(batch, name).dtype == torch.bool for name in flags)
    assert batch.task.dtype == torch.int64
    moved = batch.to(torch.device("meta"))
    assert isinstance(moved, LatentBatch)
    assert all(value.device.type == "meta" for value in vars(moved).values())


def test_half_precision_latents_come_in_fp32(recorded) -> None:
    windows = LatentWindows(recorded.packed, "train")
    batch = windows.read(windows.sampler.draw(np.random.default_rng(0), 2, 5), 5)
    assert batch.latents.dtype == torch.float32
    assert torch.equal(batch.latents, batch.latents.half().float())


def test_what_is_returned_is_a_copy(windows) -> None:
    source, chosen = windows["train"], [(0, 0), (1, 1)]
    before = {name: value.clone() for name, value in vars(source.read(chosen, 3)).items()}
    changed = source.read(chosen, 3)
    for value in vars(changed).values():
        value.zero_()
    assert all(torch.equal(value, before[name]) for name, value in vars(source.read(chosen, 3)).items())


def test_shards_make_no_difference(by_hand, windows, tmp_path: Path) -> None:
    own = type(by_hand)(tmp_path / "own")
    shutil.copytree(by_hand.root, own.root)
    for limit in (1, 10_000):
        own.pack(dtype="float32", shard_frames=limit)
        for split in SPLITS:
            found = LatentWindows(own.packed, split).read(
                windows[split].sampler.draw(np.random.default_rng(3), 50, 4), 4
            )
            expected = windows[split].read(windows[split].sampler.draw(np.random.default_rng(3), 50, 4), 4)
            assert all(torch.equal(value, vars(expected)[name]) for name, value in vars(found).items())


# ---------------------------------------------------------------- splits


def test_held_out_is_never_in_train(by_hand, windows) -> None:
    """Pitfall 7: "validation" was a training batch. Checked by id and by content."""
    ids = {split: {episode.id for episode in windows[split].episodes} for split in SPLITS}
    assert not ids["train"] & ids["heldout"]
    assert ids == {split: set(by_hand.store.ids(split)) for split in SPLITS}
    rng = np.random.default_rng(0)
    drawn = {}
    for split in SPLITS:
        batch = windows[split].read(windows[split].sampler.draw(rng, 500, 3), 3)
        drawn[split] = {tuple(latents.tolist()) for latents in batch.latents[batch.valid][:, 0]}
    assert len(drawn["train"]) > 30
    assert not drawn["train"] & drawn["heldout"]


def test_a_split_without_episodes_is_refused(recorded, tmp_path: Path) -> None:
    alone = recorded.store.read("000000")
    own = type(recorded)(tmp_path)
    store = EpisodeStore.create(own.episodes, recorded.store.action_spec, recorded.store.frame_spec, "Some-v0", {})
    store.append([alone])
    shutil.copy(recorded.tokenizer, own.tokenizer)
    own.build()
    own.pack()
    assert LatentWindows(own.packed, "train").sampler.num_latents == len(alone.frames)
    with pytest.raises(DataError, match="has no heldout episode") as caught:
        LatentWindows(own.packed, "heldout")
    assert "ahriuwu data split" in caught.value.hint


# ---------------------------------------------------------------- draws


@pytest.mark.parametrize("method", ["draw", "draw_contexts"])
def test_the_generator_is_all_the_randomness(windows, method: str) -> None:
    """Pitfall 14: what was drawn before has no say."""
    source = windows["train"]
    drawn = [getattr(source.sampler, method)(np.random.default_rng(seed), 8, 3) for seed in (5, 5, 6)]
    batches = [source.read(found, 3) for found in drawn]
    assert all(torch.equal(value, vars(batches[1])[name]) for name, value in vars(batches[0]).items())
    assert not torch.equal(batches[0].latents, batches[2].latents)


@pytest.mark.parametrize("length", [1, 4, 20])
def test_every_frame_is_reached_about_equally(windows, places, length: int) -> None:
    source = windows["train"]
    seen: Counter[tuple[int, int]] = Counter()
    for index, start in places("train", "draw", np.random.default_rng(0), 6000, length):
        last = min(start + length, source.episodes[index].num_latents)
        assert 0 <= start < last
        assert last - start == min(length, source.episodes[index].num_latents)  # never padded without need
        seen.update((index, frame) for frame in range(start, last))
    frames = {(i, t) for i, episode in enumerate(source.episodes) for t in range(episode.num_latents)}
    assert seen.keys() == frames
    long = [count for (index, _), count in seen.items() if source.episodes[index].num_latents >= 2 * length]
    if long:
        assert min(long) > (0.6 if length == 1 else 0.36) * max(long)  # 10 to 22 ways of 32


def test_terminal_frames_are_drawn(windows) -> None:
    """An episode's end is part of windows: without it the continue head sees no end."""
    source = windows["train"]
    whole = source.read([(index, 0) for index in range(len(source.episodes))], 20)
    num_ends = whole.terminal.sum().item()
    assert num_ends >= 2
    batch = source.read(source.sampler.draw(np.random.default_rng(0), 400, 3), 3)
    assert (batch.terminal & batch.valid).any(dim=1).float().mean() > num_ends / source.sampler.num_latents


def test_windows_with_an_end_can_be_asked_for(windows) -> None:
    """It is their last frame, each once, and every episode that has one has its turn."""
    source = windows["train"]
    batch = source.read(source.sampler.draw_ended(np.random.default_rng(0), 300, 3), 3, 2)
    ends = batch.terminal[:, :3] & batch.valid
    assert torch.equal(ends.int().argmax(dim=1), batch.valid.sum(dim=1) - 1) and (ends.sum(dim=1) == 1).all()
    assert batch.terminal.shape[1] == 5
    whole = source.read([(index, 0) for index in range(len(source.episodes))], 20)
    assert source.sampler.ended == whole.terminal.any(dim=1).nonzero().flatten().tolist()
    assert len({tuple(row.flatten().tolist()) for row in batch.latents}) == len(source.sampler.ended)


def test_episodes_that_are_only_cut_have_no_ends(by_hand, monkeypatch: pytest.MonkeyPatch) -> None:
    source = LatentWindows(by_hand.packed, "train")
    whole = source.read([(index, 0) for index in range(len(source.episodes))], 20)
    cut = [episode for episode, ends in zip(source.episodes, whole.terminal.any(dim=1), strict=True) if not ends]
    assert 0 < len(cut) < len(source.episodes)
    monkeypatch.setattr(source, "episodes", cut)
    assert not source.sampler.ended
    source = LatentWindows(by_hand.packed, "train")
    source.sampler.ended = []
    rngs = np.random.default_rng(0), np.random.default_rng(0)
    assert source.sampler.draw_ended(rngs[0], 5, 3) == source.sampler.draw(rngs[1], 5, 3)


@pytest.mark.parametrize("length", [1, 3, 20])
def test_relevant_windows_hold_a_positive_reward(windows, places, length: int) -> None:
    source = windows["train"]
    batch = source.read(source.sampler.draw(np.random.default_rng(0), 200, length, relevant=True), length, 2)
    assert (batch.reward[:, :length] > 0).any(dim=1).all()
    plain = source.read(source.sampler.draw(np.random.default_rng(0), 200, 1), 1)
    assert not (plain.reward > 0).any(dim=1).all()
    if length == 1:
        found = set(places("train", "draw", np.random.default_rng(0), 500, 1, relevant=True))
        assert found == {place for task in range(2) for place in source.sampler.relevant_blocks(task)}


def test_relevant_blocks_by_hand(windows, truth) -> None:
    source = windows["train"]
    for task in range(2):
        expected = [
            (index, frame)
            for index, episode in enumerate(source.episodes)
            for frame in range(episode.num_latents)
            if truth[episode.id]["reward"][frame] > 0 and truth[episode.id]["task"] == task
        ]
        assert source.sampler.relevant_blocks(task) == expected
        assert expected


def test_without_rewards_any_window_is_drawn(windows, monkeypatch: pytest.MonkeyPatch) -> None:
    source = windows["train"]
    monkeypatch.setattr(source.sampler, "_relevant", {0: [], 1: []})
    pair = [source.sampler.draw(np.random.default_rng(1), 20, 3, relevant=flag) for flag in (True, False)]
    assert pair[0] == pair[1]


@pytest.mark.parametrize("length", [1, 5, 12])
def test_places_lie_inside_and_are_equally_likely(windows, length: int) -> None:
    source = windows["train"]
    drawn = Counter(place[:2] for place in source.sampler.draw_whole(np.random.default_rng(0), 6000, length))
    inside = {(i, t) for i, e in enumerate(source.episodes) for t in range(e.num_latents - length + 1)}
    assert drawn.keys() == inside
    share = np.array(list(drawn.values())) / 6000 * len(inside)
    assert share.min() > 0.7
    assert share.max() < 1.3
    assert source.read(list(drawn), length).valid.all()


@pytest.mark.parametrize(("length", "shown"), [(2, 1), (3, 2), (5, 4), (6, 3)])
def test_windows_in_which_it_is_known_what_was_done(by_hand, length: int, shown: int) -> None:
    """Exactly those whose actions after the first blocks are all known, evenly; of none, any."""
    source, rng = LatentWindows(by_hand.packed, "train"), np.random.default_rng
    drawn = [place[:2] for place in source.sampler.draw_whole(rng(0), 3000, length, unknown_first=shown)]
    inside = [(i, t) for i, e in enumerate(source.episodes) for t in range(e.num_whole - length + 1)]
    valid = source.read(inside, length).action_valid[:, shown:].all(dim=1)
    known = {place for place, fine in zip(inside, valid.tolist(), strict=True) if fine}
    assert 0 < len(known) < len(inside) or length == 6
    assert set(drawn) == (known or set(inside))
    if known:
        share = np.array(list(Counter(drawn).values())) / 3000 * len(known)
        assert 0.7 < share.min() < share.max() < 1.3


def test_where_all_is_known_the_same_windows_are_drawn(windows, monkeypatch: pytest.MonkeyPatch) -> None:
    source = windows["train"]
    monkeypatch.setattr(source, "known_actions", lambda index: np.arange(source.episodes[index].num_latents) > 0)
    pair = [source.sampler.draw_whole(np.random.default_rng(1), 50, 4, unknown_first=first) for first in (None, 1)]
    assert pair[0] == pair[1]


def test_contexts_end_before_the_last_frame(windows, places) -> None:
    """A dream starts where the episode goes on: the context never holds its last frame."""
    source = windows["train"]
    found = places("train", "draw_contexts", np.random.default_rng(0), 2000, 4)
    left = {source.episodes[index].num_latents - (start + 4) for index, start in found}
    assert min(left) == 1
    assert source.read(source.sampler.draw_contexts(np.random.default_rng(0), 50, 4), 4).valid.all()
    assert not source.read(source.sampler.draw_contexts(np.random.default_rng(0), 200, 4), 4).terminal.any()


@pytest.mark.parametrize(("length", "reach"), [(4, 1), (2, 5), (1, 100)])
def test_relevant_contexts_come_before_a_reward(windows, places, length: int, reach: int) -> None:
    source = windows["train"]
    rewards = {place for task in range(len(source.tasks)) for place in source.sampler.relevant_blocks(task)}
    assert rewards
    found = places("train", "draw_contexts", np.random.default_rng(0), 400, length, num_relevant=300, reach=reach)
    ahead = [
        any((index, start + length + step) in rewards for step in range(reach)) and start >= 0 for index, start in found
    ]
    assert all(ahead[:300])
    assert not all(ahead[300:]) or reach == 100
    first = {next(step for step in range(reach) if (i, start + length + step) in rewards) for i, start in found[:300]}
    assert first == {0} if reach == 1 else len(first) > 1
    assert source.read(
        source.sampler.draw_contexts(np.random.default_rng(0), 50, length, num_relevant=50, reach=reach), length
    ).valid.all()


def test_contexts_are_from_anywhere_where_no_reward_can_be_reached(windows, monkeypatch) -> None:
    source = windows["train"]
    monkeypatch.setattr(source.sampler, "relevant_blocks", lambda task: [])
    plain, mixed = (
        source.sampler.draw_contexts(np.random.default_rng(0), 9, 4, num_relevant=count) for count in (0, 5)
    )
    assert plain == mixed


def test_windows_longer_than_every_episode_are_refused(windows) -> None:
    source = windows["train"]
    longest = max(episode.num_latents for episode in source.episodes)
    source.sampler.draw_whole(np.random.default_rng(0), 2, longest)
    for ask, setting in (
        (lambda: source.sampler.draw_whole(np.random.default_rng(0), 2, longest + 1, setting="a + b"), "a or b"),
        (lambda: source.sampler.draw_contexts(np.random.default_rng(0), 2, longest), "context_length"),
    ):
        with pytest.raises(DataError, match="the longest train episode has") as caught:
            ask()
        assert f" has {longest} frames; windows of {longest + 1} (" in caught.value.message
        assert caught.value.hint == f"lower {setting}, or record longer episodes"


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("fault", ["gone", "cut", "folder"])
def test_damaged_shards_are_refused(by_hand, tmp_path: Path, fault: str) -> None:
    packed = tmp_path / "packed"
    shutil.copytree(by_hand.packed, packed)
    shard = sorted(packed.glob("shard_*"))[-1]
    raw = shard.read_bytes()
    shard.unlink()
    if fault == "cut":
        shard.write_bytes(raw[: len(raw) // 2])
    elif fault == "folder":
        shard.mkdir()
    with pytest.raises(ArtifactError, match=f"{shard.name} (cannot be read|is a folder)") as caught:
        LatentWindows(packed, "train")
    assert "ahriuwu latents pack" in caught.value.hint


def test_a_changed_manifest_is_refused(by_hand, tmp_path: Path) -> None:
    """Pitfall 7: moving an episode between the splits by hand does not go unnoticed."""
    packed = tmp_path / "packed"
    shutil.copytree(by_hand.packed, packed)
    manifest = json.loads((packed / "manifest.json").read_text())
    held = next(entry for entry in manifest["info"]["episodes"] if entry["split"] == "heldout")
    held["split"] = "train"
    (packed / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="fingerprint"):
        LatentWindows(packed, "train")


@given(
    seed=st.integers(0, 2**31 - 1),
    met=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 3)), min_size=1, max_size=6),
    how=st.sampled_from(["draw", "relevant", "draw_ended", "draw_contexts", "draw_whole"]),
)
@settings(max_examples=40)
def test_what_a_step_draws_is_its_own(by_hand, seed: int, met: list[tuple[int, int]], how: str) -> None:
    """Pitfall 14: in whatever order steps come, and with whichever of them before."""

    def drawn(keys: list[tuple[int, int]]) -> list[list[Place]]:
        sampler = LatentWindows(by_hand.packed, "train").sampler
        method = getattr(sampler, "draw" if how == "relevant" else how)
        options = {"relevant": True} if how == "relevant" else {}
        return [method(batch_generator(seed, *key), 12, 3, **options) for key in keys]

    assert drawn(met) == drawn(met[::-1])[::-1] == [drawn([key])[0] for key in met]


def test_a_sampler_asks_for_no_latent(by_hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where windows lie is drawn from lengths, rewards and ends."""
    source, asked = LatentWindows(by_hand.packed, "train"), set()
    rows = Shards.rows

    def spy(self: Shards, number: int, name: str, start: int, stop: int) -> np.ndarray:
        asked.add(name)
        return rows(self, number, name, start, stop)

    monkeypatch.setattr(Shards, "rows", spy)
    rng = np.random.default_rng(0)
    source.sampler.draw(rng, 9, 3, relevant=True)
    source.sampler.draw_ended(rng, 9, 3)
    source.sampler.draw_contexts(rng, 9, 3, num_relevant=4)
    assert asked == {"reward", "terminal"}


def test_threads_read_what_one_reads(by_hand) -> None:
    """Windows of all shards at once, from shards that nobody has looked at yet."""
    alone = LatentWindows(by_hand.packed, "train")
    drawn = [alone.sampler.draw(batch_generator(0, step), 20, 4) for step in range(60)]
    expected = [alone.read(places, 4) for places in drawn]
    together = LatentWindows(by_hand.packed, "train")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda places: together.read(places, 4), drawn))
    for left, right in zip(expected, found, strict=True):
        assert all(torch.equal(value, vars(right)[name]) for name, value in vars(left).items())
