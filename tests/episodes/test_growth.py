"""A store that grows: what it has grown from, and who stays held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.errors import TrainingInterrupted
from ahriuwu_cli.core.files import write_atomically
from ahriuwu_cli.core.lineage import grown_from
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.record import record
from ahriuwu_cli.sources.summary import split


def data(episodes: int, **changes: Any) -> DataSection:
    return DataSection(policy="random", heldout_fraction=0.3, max_episode_steps=5, episodes=episodes, **changes)


def opened(folder: Path) -> EpisodeStore:
    return EpisodeStore.open(folder)


def test_one_entry_for_each_recording_that_appended(tmp_path: Path) -> None:
    """Not one for each write: 40 episodes are written in three."""
    folder = tmp_path / "e"
    seen = []
    for count in (40, 40, 2):
        record(folder, data(count), 0, append=True)
        seen.append(opened(folder).fingerprint)
        assert grown_from(opened(folder).header) == seen[:-1]
    assert len(set(seen)) == 3


def test_nothing_is_remembered_where_nothing_was_added(make_store, make_episode) -> None:
    store = make_store()
    assert grown_from(store.header) == []
    store.append([make_episode(0)])
    store.append([make_episode(1)])
    assert grown_from(store.header) == []  # it was empty when it was opened
    again = opened(store.folder)
    assert again.append([]) == []
    assert grown_from(opened(store.folder).header) == []
    again.append([make_episode(2)])
    again.append([make_episode(3)])
    assert grown_from(opened(store.folder).header) == [store.fingerprint]


def test_equal_content_has_an_equal_fingerprint(make_store, make_episode) -> None:
    """A store is the same however many calls it took, as long as episodes and splits are."""
    whole = make_store(3, "whole", split_seed=2)
    parts = make_store(3, "parts", split_seed=2)
    added = [make_episode(seed) for seed in range(3, 6)]
    whole.append(added)
    opened(parts.folder).append(added)
    assert grown_from(opened(parts.folder).header) and not grown_from(opened(whole.folder).header)
    assert opened(parts.folder).fingerprint == opened(whole.folder).fingerprint


def test_a_new_split_forgets_what_the_store_has_grown_from(tmp_path: Path) -> None:
    """Pitfall 7: what was made before the split may have seen what is held out after it."""
    folder = tmp_path / "e"
    record(folder, data(6), 0)
    record(folder, data(6), 0, append=True)
    assert grown_from(opened(folder).header)
    split(folder, 0.5, 9)
    divided = opened(folder)
    assert grown_from(divided.header) == []
    split(folder, 0.5, 9)  # the same again changes nothing
    assert read_header(folder, "episodes") == divided.header
    record(folder, data(2), 0, append=True)
    assert grown_from(opened(folder).header) == [divided.fingerprint]


def test_a_split_between_two_appends_of_one_store(make_store, make_episode) -> None:
    store = opened(make_store(6).folder)
    store.append([make_episode(6)])
    assert len(grown_from(store.header)) == 1
    store.set_split(0.5, 9)
    divided = store.fingerprint
    store.append([make_episode(7)])
    assert grown_from(store.header) == [divided]


def test_records_of_the_small_store_are_the_first_of_the_grown_one(tmp_path: Path) -> None:
    """Pitfall 7: ids, files and splits of what was there stay as they were."""
    folder = tmp_path / "e"
    record(folder, data(10), 0)
    small = opened(folder)
    for _ in range(3):
        record(folder, data(7), 0, append=True)
    grown = opened(folder)
    assert grown.episodes[:10] == small.episodes
    for name in ("train", "heldout"):
        assert grown.ids(name)[: len(small.ids(name))] == small.ids(name)
    assert not set(small.ids("train")) & set(grown.ids("heldout"))
    assert not set(small.ids("heldout")) & set(grown.ids("train"))
    assert len(grown.ids("heldout")) == round(0.3 * 31)
    assert len({item.seed for item in grown.episodes}) == 31


def test_ctrl_c_while_growing_keeps_what_was_there(tmp_path: Path) -> None:
    """Pitfall 21: and the store still says what it has grown from."""
    folder = tmp_path / "e"
    first = record(folder, data(4), 0).data["fingerprint"]

    def interrupt(ended: int, _: int) -> None:
        if ended >= 20:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted, match="of 40"):
        record(folder, data(40), 0, append=True, progress=interrupt)
    assert len(opened(folder).episodes) >= 24
    assert grown_from(opened(folder).header) == [first]


def test_a_crash_while_growing_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 21: the manifest comes last."""
    folder = tmp_path / "e"
    record(folder, data(4), 0)
    before = opened(folder)

    def crash(path: Path, write: Any) -> None:
        if path.name == "manifest.json":
            raise OSError("killed")
        write_atomically(path, write)

    for module in ("core.tensorfile", "core.files"):
        monkeypatch.setattr(f"ahriuwu_cli.{module}.write_atomically", crash)
    with pytest.raises(OSError, match="killed"):
        record(folder, data(3), 0, append=True)
    assert read_header(folder, "episodes") == before.header
    monkeypatch.undo()
    after = opened(folder)
    assert (len(after.episodes), after.episodes[:4]) == (7, before.episodes), "the journal had them"
    for item in after.episodes:
        after.read(item.id)
