"""`latents pack`: every frame of every episode once, with what led to it; stale or foreign latents are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ahriuwu_cli.core.artifact import read_header, write_manifest
from ahriuwu_cli.core.content import hash_file
from ahriuwu_cli.core.errors import ArtifactError, InputError
from ahriuwu_cli.core.tensorfile import read_arrays, write_tensors
from ahriuwu_cli.latents import pack as module
from ahriuwu_cli.latents.config import LatentsSection
from ahriuwu_cli.latents.pack import pack_latents
from ahriuwu_cli.latents.windows import LatentWindows


@pytest.fixture
def own(by_hand, tmp_path: Path):
    """A copy of the hand-made source to change."""
    shutil.copytree(by_hand.root, tmp_path / "own")
    return type(by_hand)(tmp_path / "own")


def rows(folder: Path, entry: dict) -> dict[str, np.ndarray]:
    """The packed arrays of one episode, straight from its shard."""
    shard = read_header(folder, "packed").info["shards"][entry["shard"]]["file"]
    place = slice(entry["start"], entry["start"] + entry["num_latents"])
    return {name: array[place] for name, array in read_arrays(folder / shard).items()}


def contents(folder: Path) -> list[dict[str, np.ndarray]]:
    return [rows(folder, entry) for entry in read_header(folder, "packed").info["episodes"]]


@pytest.mark.parametrize("source", ["recorded", "by_hand"])
def test_counts_and_splits_are_those_of_the_store(request: pytest.FixtureRequest, source: str) -> None:
    """Pitfalls 7 and 13: split by whole episode, checked by id; counts compared with the source."""
    chosen = request.getfixturevalue(source)
    header, store = read_header(chosen.packed, "packed"), chosen.store
    entries = header.info["episodes"]
    assert [(entry["id"], entry["num_frames"]) for entry in entries] == [
        (item.id, item.num_steps + 1) for item in store.episodes
    ]
    for split in ("train", "heldout"):
        assert [entry["id"] for entry in entries if entry["split"] == split] == store.ids(split)
    assert [store.tasks[entry["task"]] for entry in entries] == [item.task for item in store.episodes]
    assert sum(shard["num_latents"] for shard in header.info["shards"]) == sum(e["num_latents"] for e in entries)


@pytest.mark.parametrize("source", ["recorded", "by_hand"])
def test_blocks_hold_what_led_to_their_frame(request: pytest.FixtureRequest, source: str) -> None:
    """Pitfall 13: rewards are indexed by frame; block t holds action t-1 and the reward that came with frame t."""
    chosen = request.getfixturevalue(source)
    for entry in read_header(chosen.packed, "packed").info["episodes"]:
        episode, found = chosen.store.read(entry["id"]), rows(chosen.packed, entry)
        latents = read_arrays(chosen.latents / f"{entry['id']}.safetensors")["latents"]
        assert np.array_equal(found["latents"], latents)
        for name in ("action", "action_valid", "reward", "reward_valid", "terminal"):
            assert len(found[name]) == len(episode.frames)
            assert not found[name][0].any()
        for t in range(1, len(episode.frames)):
            known = episode.action_valid[t - 1]
            assert found["action_valid"][t] == known
            assert np.array_equal(found["action"][t], episode.actions[t - 1] * known)  # pitfall 18: no trace
            assert found["reward"][t] == episode.rewards[t - 1]
            assert found["reward_valid"][t] == 1
            assert found["terminal"][t] == episode.terminals[t - 1]


def test_header_carries_specs_and_parents(recorded) -> None:
    """Pitfall 12: the action spec is versioned inside every artifact."""
    header, latents = read_header(recorded.packed, "packed"), read_header(recorded.latents, "latents")
    assert header.parents == latents.parents | {"latents": latents.fingerprint}
    assert header.specs["latent"] == latents.specs["latent"]
    assert header.specs["frame"] == recorded.store.frame_spec.model_dump()
    windows = LatentWindows(recorded.packed, "train")
    assert windows.action_spec == recorded.store.action_spec
    assert windows.tasks == recorded.store.tasks


@pytest.mark.parametrize(("limit", "shards"), [(1, 10), (15, None), (10_000, 1)])
def test_shards_hold_whole_episodes(own, limit: int, shards: int | None) -> None:
    own.pack(shard_frames=limit)
    header = read_header(own.packed, "packed")
    sizes = [shard["num_latents"] for shard in header.info["shards"]]
    assert len(sizes) == (shards or len(sizes))
    assert all(size >= limit for size in sizes[:-1])
    for entry in header.info["episodes"]:
        assert 0 <= entry["start"] <= sizes[entry["shard"]] - entry["num_latents"]
    for shard in header.info["shards"]:
        assert hash_file(own.packed / shard["file"]) == shard["sha256"]
    assert {path.name for path in own.packed.iterdir()} == {s["file"] for s in header.info["shards"]} | {
        "manifest.json"
    }


def test_content_does_not_depend_on_the_shards(own) -> None:
    before = contents(own.packed)
    own.pack(shard_frames=1)
    for first, second in zip(before, contents(own.packed), strict=True):
        for name, array in first.items():
            assert np.array_equal(array, second[name])


def test_packing_again_changes_nothing(own) -> None:
    before = {path.name: path.read_bytes() for path in own.packed.glob("shard_*")}
    fingerprint = read_header(own.packed, "packed").fingerprint
    own.pack(dtype="float32", shard_frames=15)
    assert read_header(own.packed, "packed").fingerprint == fingerprint
    assert {path.name: path.read_bytes() for path in own.packed.glob("shard_*")} == before


@pytest.mark.parametrize("change", ["other tokenizer", "other shards"])
def test_an_interrupted_pack_leaves_the_earlier_one(
    own, save_tokenizer: Callable, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Pitfall 21: what was there before still loads, and is what it was."""
    before, fingerprint = contents(own.packed), read_header(own.packed, "packed").fingerprint
    if change == "other tokenizer":
        save_tokenizer(own.tokenizer, own.episodes, seed=7)
        own.build(dtype="float32")

    def fail(*args: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_manifest", fail)
    with pytest.raises(KeyboardInterrupt):
        own.pack(dtype="float32", shard_frames=15 if change == "other tokenizer" else 3)
    assert LatentWindows(own.packed, "train").header.fingerprint == fingerprint
    for first, second in zip(before, contents(own.packed), strict=True):
        assert all(np.array_equal(array, second[name]) for name, array in first.items())


@pytest.mark.parametrize("change", ["split", "more episodes"])
def test_latents_of_other_episodes_are_refused(own, change: str) -> None:
    """Pitfall 7: a parent that does not match is refused, naming both fingerprints."""
    before, wanted = own.store.fingerprint, read_header(own.packed, "packed").fingerprint
    store = own.store
    if change == "split":
        store.set_split(0.5, seed=3)
    else:
        store.append([store.read("000001")])
    assert store.fingerprint != before
    with pytest.raises(ArtifactError) as caught:
        own.pack()
    assert before in caught.value.message
    assert store.fingerprint in caught.value.message
    assert caught.value.hint
    assert read_header(own.packed, "packed").fingerprint == wanted


def test_files_of_a_build_that_stopped_are_refused(
    own, save_tokenizer: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfalls 11 and 20: a build with another tokenizer stops half-way; its files lie under the old manifest."""
    from ahriuwu_cli.latents import build

    save_tokenizer(own.tokenizer, own.episodes, seed=7)
    with monkeypatch.context() as stopped:
        stopped.setattr(build, "write_manifest", lambda *args, **keywords: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            own.build(dtype="float32")
    with pytest.raises(ArtifactError, match=r"000000.safetensors was changed since: .* the manifest lists") as caught:
        own.pack()
    assert "ahriuwu latents build" in caught.value.hint
    own.build(dtype="float32")
    own.pack()


def test_a_missing_file_is_refused(own) -> None:
    (own.latents / "000004.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"000004\.safetensors is missing"):
        own.pack()


def test_a_changed_manifest_is_refused(own) -> None:
    path = own.latents / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["specs"]["latent"]["mean"][0] += 0.1
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="fingerprint"):
        own.pack()


def test_counts_that_differ_are_refused(own) -> None:
    """Pitfall 13: truncated files were skipped."""
    header = read_header(own.latents, "latents")
    entry = header.info["episodes"][2]
    path = own.latents / entry["file"]
    short = torch.from_numpy(read_arrays(path)["latents"][:-1].copy())
    write_tensors(path, {"latents": short}, {})
    entry["sha256"] = hash_file(path)
    specs, parents = header.specs, header.parents
    write_manifest(own.latents, "latents", config=header.config, specs=specs, parents=parents, info=header.info)
    with pytest.raises(ArtifactError, match="episode 000002 has 13 frames but 12 latents"):
        own.pack()


def test_missing_latents_say_how_to_make_them(own, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist") as caught:
        pack_latents(own.episodes, tmp_path / "none", tmp_path / "out", LatentsSection())
    assert "ahriuwu latents build" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_another_kind_of_artifact_is_refused(own, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is an episodes artifact; expected a latents artifact"):
        pack_latents(own.episodes, own.episodes, tmp_path / "out", LatentsSection())


def test_report_counts_both_splits(own) -> None:
    report = pack_latents(own.episodes, own.latents, own.packed, LatentsSection(shard_frames=15))
    store, shown = own.store, dict(report.rows)
    train, held = (sum(store.record(i).num_steps + 1 for i in store.ids(split)) for split in ("train", "heldout"))
    assert (shown["frames, train"], shown["frames, held out"]) == (str(train), str(held))
    assert report.data["frames"] == train + held
    json.dumps(report.data)
