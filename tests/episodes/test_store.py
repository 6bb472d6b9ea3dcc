"""The episode store: round trip, fingerprints, splits, appends, and files that are not what they should be."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from ahriuwu_cli.core import artifact, content
from ahriuwu_cli.core.errors import ArtifactError, DataError, InputError
from ahriuwu_cli.core.specs import ActionSpec, FrameSpec
from ahriuwu_cli.episodes.episode import FRAMES, TRACKS
from ahriuwu_cli.episodes.manifest import SplitRule
from ahriuwu_cli.episodes.store import EpisodeStore


def test_round_trip(make_store, make_episode) -> None:
    store = make_store()
    episodes = [make_episode(5, steps=3, task="left"), make_episode(6, steps=7, task="right", policy="random")]
    assert store.append(episodes) == ["000000", "000001"]
    again = EpisodeStore.open(store.folder)
    assert again.fingerprint == store.fingerprint
    assert (again.env, again.env_options, again.tasks) == ("Some-v0", {"a": 1}, ["left", "right"])
    assert (again.action_spec, again.frame_spec) == (store.action_spec, store.frame_spec)
    for record, episode in zip(again.episodes, episodes, strict=True):
        read = again.read(record.id)
        for name in (FRAMES, *TRACKS):
            assert np.array_equal(getattr(read, name), getattr(episode, name))
            assert getattr(read, name).dtype == getattr(episode, name).dtype
        assert (read.task, read.seed, read.policy) == (episode.task, episode.seed, episode.policy)
        assert record.num_steps == episode.num_steps
        assert record.total_reward == pytest.approx(episode.total_reward)


def test_equal_content_has_an_equal_fingerprint_and_other_content_another(make_store, make_episode) -> None:
    one, two = make_store(4, "one"), make_store(4, "two")
    assert one.fingerprint == two.fingerprint
    three = make_store(3, "three")
    assert three.fingerprint != one.fingerprint
    changed = make_episode(3)
    changed.frames[0, 0, 0, 0] ^= 1
    three.append([changed])
    assert three.fingerprint != one.fingerprint
    assert make_store(4, "four", heldout_fraction=0.4).fingerprint != one.fingerprint


def test_split_is_part_of_the_fingerprint(make_store) -> None:
    """Pitfall 7: the split is stored with the data, and whoever changes it changes the data's name."""
    store = make_store(12)
    before, held = store.fingerprint, store.ids("heldout")
    store.set_split(0.25, seed=3)
    again = EpisodeStore.open(store.folder)
    assert again.fingerprint == store.fingerprint != before
    assert again.ids("heldout") == store.ids("heldout") != held
    assert len(again.ids("heldout")) == 3
    assert again.split_rule == SplitRule(fraction=0.25, seed=3)
    store.set_split(0.1, seed=0)
    assert store.fingerprint == before


def test_appends_keep_what_was_held_out(make_store, make_episode) -> None:
    store = make_store(20)
    held = store.ids("heldout")
    assert len(held) == 2
    assert store.append([make_episode(100 + index) for index in range(20)])[0] == "000020"
    assert store.ids("heldout")[:2] == held
    assert len(store.ids("heldout")) == 4
    assert sorted(store.ids("train") + store.ids("heldout")) == [f"{index:06d}" for index in range(40)]


def test_split_seeds_give_different_splits(make_store) -> None:
    splits = {tuple(make_store(20, f"s{seed}", split_seed=seed).ids("heldout")) for seed in range(6)}
    assert len(splits) > 2


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_impossible_fraction_is_refused(make_store, fraction: float) -> None:
    store = make_store(3)
    before = store.fingerprint
    with pytest.raises(InputError, match="fraction"):
        store.set_split(fraction, 0)
    assert EpisodeStore.open(store.folder).fingerprint == before


def test_out_of_range_action_is_refused_by_name_and_nothing_is_stored(make_store, make_episode) -> None:
    store = make_store(2)
    before = sorted(path.name for path in store.folder.iterdir())
    good, bad = make_episode(8), make_episode(9)
    bad.actions[2, 0] = 3
    with pytest.raises(DataError) as caught:
        store.append([good, bad])
    for part in ("'move'", "is 3", "step 2", "0..2", "seed 9"):
        assert part in caught.value.message
    assert sorted(path.name for path in store.folder.iterdir()) == before
    assert len(EpisodeStore.open(store.folder).episodes) == 2


def test_truncated_and_missing_files_are_reported(make_store) -> None:
    """Pitfall 13: a file cut short is an error, not an episode fewer."""
    store = make_store(3)
    path = store.folder / "000001.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert EpisodeStore.open(store.folder).read("000000").num_steps == 4
    with pytest.raises(ArtifactError, match=r"000001\.safetensors cannot be read") as caught:
        EpisodeStore.open(store.folder).read("000001")
    assert "cut short" in caught.value.hint
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="sha256"):
        EpisodeStore.open(store.folder).read("000001")
    path.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        EpisodeStore.open(store.folder).read("000001")


def test_a_file_is_hashed_once_in_a_process_and_again_when_it_was_changed(
    make_store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 44: checked where it is used, paid for once."""
    folder = make_store(2).folder
    files = [folder / f"{number:06d}.safetensors" for number in (0, 1)]
    for path in files:
        os.utime(path, ns=(10**18, 10**18))  # long settled
    hashed: list[str] = []
    original = content.hash_file
    monkeypatch.setattr(content, "hash_file", lambda path: hashed.append(path.name) or original(path))
    for _ in range(3):
        store = EpisodeStore.open(folder)
        store.read("000000")
        store.read("000001")
    assert hashed == ["000000.safetensors", "000001.safetensors"]
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="sha256"):
        EpisodeStore.open(folder).read("000001")


def test_changed_manifest_is_refused(make_store) -> None:
    folder = make_store(3).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["info"]["episodes"][0]["split"] = "heldout"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="fingerprint"):
        EpisodeStore.open(folder)


def test_other_manifests_and_folders_are_refused(tmp_path: Path, make_store) -> None:
    with pytest.raises(InputError, match="does not exist"):
        EpisodeStore.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        EpisodeStore.open(tmp_path / "empty")
    artifact.write_manifest(tmp_path / "latents", "latents", config={}, specs={}, parents={}, info={})
    with pytest.raises(ArtifactError, match="expected an episodes artifact"):
        EpisodeStore.open(tmp_path / "latents")
    artifact.write_manifest(tmp_path / "odd", "episodes", config={}, specs={}, parents={}, info={"episodes": 3})
    with pytest.raises(ArtifactError, match="does not hold what an artifact of its kind holds"):
        EpisodeStore.open(tmp_path / "odd")
    with pytest.raises(InputError, match="no episode '7'"):
        make_store(1).read("7")


def test_new_store_needs_an_empty_folder(tmp_path: Path, action_spec: ActionSpec, frame_spec: FrameSpec) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        EpisodeStore.create(tmp_path, action_spec, frame_spec, "Some-v0", {})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_failed_manifest_write_leaves_the_store_as_it_was(
    make_store, make_episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 21: a full disk during append keeps what was there, and appending again works."""
    store = make_store(2)

    def full(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(artifact, "write_manifest", full)
        with pytest.raises(OSError, match="disk full"):
            store.append([make_episode(50)])
    assert len(store.episodes) == 2
    again = EpisodeStore.open(store.folder)
    assert [again.read(record.id).seed for record in again.episodes] == [0, 1]
    assert again.append([make_episode(51)]) == ["000002"]
    assert EpisodeStore.open(store.folder).read("000002").seed == 51


def test_episode_arrays_can_be_views(make_store, make_episode) -> None:
    store = make_store()
    episode = make_episode(1)
    mirrored = dataclasses.replace(episode, frames=episode.frames[:, :, ::-1])
    store.append([mirrored])
    assert np.array_equal(store.read("000000").frames, mirrored.frames)
