"""Latents and packed latents of a store that grows: only what is new is encoded, and the space stays what it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ahriuwu_cli.core.artifact import Header, read_header
from ahriuwu_cli.core.errors import ArtifactError
from ahriuwu_cli.core.lineage import grown_from
from ahriuwu_cli.core.specs import LatentSpec
from ahriuwu_cli.core.tensorfile import read_arrays
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.latents import build as module
from ahriuwu_cli.latents import pack as packing
from ahriuwu_cli.latents.windows import LatentWindows
from ahriuwu_cli.sources.record import record

GROWTH = DataSection(episodes=4, policy="random", max_episode_steps=20)


@pytest.fixture
def own(recorded, tmp_path: Path):
    """A copy of the recorded source (6 episodes) whose store has grown by 4, not encoded yet."""
    shutil.copytree(recorded.root, tmp_path / "own")
    source = type(recorded)(tmp_path / "own")
    record(source.episodes, GROWTH, seed=1, append=True)
    return source


def latents_of(source) -> Header:
    return read_header(source.latents, "latents")


def packed_of(source) -> Header:
    return read_header(source.packed, "packed")


def training_mean(source) -> np.ndarray:
    """What the mean would be if it were measured on all that is there."""
    ids = source.store.ids("train")
    arrays = [read_arrays(source.latents / f"{id_}.safetensors")["latents"].astype(np.float64) for id_ in ids]
    return np.concatenate(arrays).reshape(-1, 3).mean(axis=0)


# ---------------------------------------------------------------- latents


def test_only_what_is_new_is_encoded_and_the_statistics_stay(own, recorded, encoded) -> None:
    """The dynamics live in the space of the first statistics; others would make all that was trained meaningless."""
    before = latents_of(recorded)
    files = {path.name: path.stat().st_mtime_ns for path in own.latents.glob("*.safetensors")}
    own.build(batch_size=8)
    after = latents_of(own)
    assert len(encoded) == 4
    assert {name: (own.latents / name).stat().st_mtime_ns for name in files} == files
    assert len(after.info["episodes"]) == 10
    assert after.info["episodes"][:6] == before.info["episodes"]
    assert after.specs == before.specs
    assert np.abs(training_mean(own) - LatentSpec.model_validate(after.specs["latent"]).mean).max() > 1e-3
    assert grown_from(after) == [before.fingerprint]
    assert after.fingerprint != before.fingerprint
    assert after.parents == before.parents | {"episodes": own.store.fingerprint}


def test_growing_again_and_building_again(own, recorded, encoded) -> None:
    own.build(batch_size=8)
    second = latents_of(own)
    own.build(batch_size=8)
    assert latents_of(own) == second.model_copy(update={"provenance": latents_of(own).provenance})
    record(own.episodes, GROWTH, seed=2, append=True)
    own.build(batch_size=8)
    third = latents_of(own)
    assert len(encoded) == 8
    assert grown_from(third) == [latents_of(recorded).fingerprint, second.fingerprint]
    assert third.specs == second.specs
    assert module.measured_episodes(third) == module.measured_episodes(second) == 6


@pytest.mark.parametrize("change", ["elsewhere", "other tokenizer", "other type", "new split", "damaged"])
def test_what_has_not_grown_is_measured_anew(own, recorded, save_tokenizer, change: str) -> None:
    settings = {"batch_size": 8}
    if change == "elsewhere":
        shutil.rmtree(own.latents)
    elif change == "other tokenizer":
        save_tokenizer(own.tokenizer, own.episodes, seed=1)
    elif change == "other type":
        settings["dtype"] = "float32"
    elif change == "new split":
        own.store.set_split(0.5, seed=5)
    else:
        manifest = own.latents / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"mean": [', '"mean": [9.0,', 1))
    own.build(**settings)
    after = latents_of(own)
    assert grown_from(after) == []
    assert module.measured_episodes(after) == 10
    np.testing.assert_allclose(LatentSpec.model_validate(after.specs["latent"]).mean, training_mean(own), atol=1e-4)


def test_a_build_that_stops_while_growing_leaves_what_was_there(own, recorded, encoded, monkeypatch) -> None:
    """Pitfall 21: latents and packed latents of the small store are readable until the manifest is written."""
    write = module.write_latents

    def interrupt(path: Path, *rest) -> None:
        if path.name == "000008.safetensors":
            raise KeyboardInterrupt
        write(path, *rest)

    monkeypatch.setattr(module, "write_latents", interrupt)
    with pytest.raises(KeyboardInterrupt):
        own.build(batch_size=8)
    assert latents_of(own) == latents_of(recorded)
    assert LatentWindows(own.packed, "train").header == packed_of(recorded)
    monkeypatch.setattr(module, "write_latents", write)
    encoded.clear()
    own.build(batch_size=8)
    assert len(encoded) == 2
    assert grown_from(latents_of(own)) == [latents_of(recorded).fingerprint]


# ---------------------------------------------------------------- packed


def test_packing_before_building_is_refused(own, recorded) -> None:
    with pytest.raises(ArtifactError, match="6 of 10 episodes are encoded") as caught:
        own.pack()
    assert recorded.store.fingerprint in caught.value.message
    assert own.store.fingerprint in caught.value.message
    assert "latents build" in caught.value.hint
    assert packed_of(own) == packed_of(recorded)


def test_packed_latents_grow_with_the_latents(own, recorded) -> None:
    own.build(batch_size=8)
    own.pack()
    after, before = packed_of(own), packed_of(recorded)
    assert grown_from(after) == [before.fingerprint]
    assert after.specs == before.specs
    small, grown = (LatentWindows(source.packed, "train") for source in (recorded, own))
    assert [item.id for item in grown.episodes[: len(small.episodes)]] == [item.id for item in small.episodes]
    length = small.episodes[0].num_latents
    assert torch.equal(small.read([(0, 0)], length).latents, grown.read([(0, 0)], length).latents)
    own.pack()
    assert grown_from(packed_of(own)) == [before.fingerprint]
    assert packed_of(own).fingerprint == after.fingerprint


def test_a_pack_of_something_else_is_no_growth(own, recorded) -> None:
    own.build(batch_size=8)
    own.pack(shard_frames=50)  # other shards: what was trained on the first ones is refused, as ever
    assert grown_from(packed_of(own)) == []
    shutil.rmtree(own.packed)
    own.pack()
    assert grown_from(packed_of(own)) == []


def test_a_pack_that_stops_while_growing_leaves_what_was_there(own, recorded, monkeypatch) -> None:
    """Pitfall 21."""
    own.build(batch_size=8)

    def fail(*args: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_manifest", fail)
        with pytest.raises(KeyboardInterrupt):
            own.pack()
    assert LatentWindows(own.packed, "train").header == packed_of(recorded)
    own.pack()
    assert grown_from(packed_of(own)) == [packed_of(recorded).fingerprint]
