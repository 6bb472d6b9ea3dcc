"""Clips of recorded frames: drawn evenly from lengths alone, read as they are, for a step the same at any time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.core.training.batches import batch_generator
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.tokenizer.clips import Clip, ClipReader, ClipSampler


def drawn(store: EpisodeStore, length: int, count: int) -> torch.Tensor:
    return ClipReader(store, length).read(ClipSampler(store, length).draw(np.random.default_rng(0), count))


def lengths(store: EpisodeStore) -> dict[str, int]:
    """Frames of each training episode."""
    return {id_: store.record(id_).num_steps + 1 for id_ in store.ids("train")}


@pytest.mark.parametrize("length", [1, 3])
def test_clips_are_consecutive_frames_of_training_episodes(episodes: Path, length: int) -> None:
    """Pitfall 7: held-out videos sat in the tokenizer's training set."""
    store = EpisodeStore.open(episodes)
    found = drawn(store, length, 3000)
    assert found.shape == (3000, length, 16, 16, 3)
    assert found.dtype == torch.uint8
    first = found[:, 0, 0, 0, 0].long()
    assert torch.equal(found.long()[:, :, 0, 0, 0], first[:, None] + torch.arange(length))
    starts = {20 * int(id_) + start for id_, count in lengths(store).items() for start in range(count - length + 1)}
    assert set(first.tolist()) == starts  # every start, none over an episode's end, none held out
    counts = torch.stack([(first == start).sum() for start in starts]) / 3000 * len(starts)
    assert counts.min() > 0.6
    assert counts.max() < 1.5


def test_no_frame_is_read_to_draw(episodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = EpisodeStore.open(episodes)
    for name in ("frames", "tracks", "read"):
        monkeypatch.delattr(EpisodeStore, name)
    assert len(ClipSampler(store, 3).draw(np.random.default_rng(0), 50)) == 50


def test_episodes_shorter_than_a_clip_are_passed_over(episodes: Path) -> None:
    store = EpisodeStore.open(episodes)
    longest = max(lengths(store).values())
    [clip] = set(ClipSampler(store, longest).draw(np.random.default_rng(0), 9))
    assert lengths(store)[clip.episode] == longest and clip.start == 0
    with pytest.raises(DataError, match=f"no training episode has {longest + 1} frames") as caught:
        ClipSampler(store, longest + 1)
    assert "tokenizer.clip_length" in caught.value.hint
    with pytest.raises(DataError, match="no held-out episode has 99 frames"):
        ClipSampler(store, 99, "heldout")


def test_clips_do_not_alias_the_frames(episodes: Path) -> None:
    reader, clips = ClipReader(EpisodeStore.open(episodes), 2), [Clip("000001", 3)]
    found = reader.read(clips)
    before = found.clone()
    found.zero_()
    assert torch.equal(reader.read(clips), before)


@given(seed=st.integers(0, 2**31 - 1), met=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 3)), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_what_a_step_draws_is_its_own(episodes: Path, seed: int, met: list[tuple[int, int]]) -> None:
    """In whatever order steps come, and with whichever of them before."""
    sampler = ClipSampler(EpisodeStore.open(episodes), 2)
    forward = [sampler.draw(batch_generator(seed, *one), 16) for one in met]
    backward = [sampler.draw(batch_generator(seed, *one), 16) for one in reversed(met)]
    assert forward == backward[::-1]
