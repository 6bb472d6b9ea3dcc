"""Pitfalls 44 and 45: what training reads is what was packed, and no name in a manifest leads out of its folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ahriuwu_cli.core.artifact import read_header, write_manifest
from ahriuwu_cli.core.content import hash_file
from ahriuwu_cli.core.errors import AhriuwuError, ArtifactError, DataError
from ahriuwu_cli.core.tensorfile import read_arrays, write_tensors
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.latents import build
from ahriuwu_cli.latents.manifest import read_latents, read_packed
from ahriuwu_cli.latents.windows import LatentWindows


@pytest.fixture
def own(by_hand, tmp_path: Path) -> Any:
    shutil.copytree(by_hand.root, tmp_path / "own")
    return type(by_hand)(tmp_path / "own")


def reseal(folder: Path, kind: Any, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest and give it the fingerprint of what it is now."""
    header = read_header(folder, kind)
    fields = header.model_dump(include={"config", "specs", "parents", "info"})
    change(fields)
    write_manifest(folder, kind, **fields)


def read_all(packed: Path) -> None:
    """Everything of both splits, as a training reads it."""
    for split in ("train", "heldout"):
        windows = LatentWindows(packed, split)
        for index, episode in enumerate(windows.episodes):
            windows.read([(index, 0)], episode.num_latents)


@pytest.mark.parametrize("name", ["latents", "action", "reward", "terminal", "events.splash"])
def test_any_byte_that_was_changed_in_a_shard_is_refused_where_it_is_read(own, name: str) -> None:
    """Pitfall 44: 8 of 8 flips went unseen by a training."""
    read_all(own.packed)
    path = own.packed / read_packed(own.packed).info.shards[1].file
    arrays = read_arrays(path)
    flat = arrays[name].reshape(-1).view(np.uint8)
    flat[len(flat) // 2] ^= 1
    write_tensors(path, {key: torch.from_numpy(value.copy()) for key, value in arrays.items()}, {})
    with pytest.raises(ArtifactError, match="was changed since: its sha256 is") as caught:
        read_all(own.packed)
    assert "ahriuwu latents pack" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("latents", np.inf, "latents is not finite"),
        ("reward", np.nan, "reward is not finite"),
        ("events.splash", np.inf, "events.splash is not finite"),
        ("action", 7.0, "action component 'aim' (continuous) is 7"),
        ("action", np.nan, "action component 'aim' (continuous) is nan"),
        ("terminal", 9, "terminal holds something else than 0 and 1"),
    ],
)
def test_values_that_cannot_be_are_refused_however_well_sealed(own, name: str, value: float, told: str) -> None:
    """Pitfall 44: the hash was made anew, the values are still wrong."""
    path = own.packed / read_packed(own.packed).info.shards[1].file
    arrays = {key: array.copy() for key, array in read_arrays(path).items()}
    row = int(np.flatnonzero(arrays["action_valid"])[0])
    arrays[name][row] = value
    write_tensors(path, {key: torch.from_numpy(array) for key, array in arrays.items()}, {})
    sha256 = hash_file(path)
    reseal(own.packed, "packed", lambda fields: fields["info"]["shards"][1].update(sha256=sha256))
    with pytest.raises(DataError) as caught:
        read_all(own.packed)
    assert told in caught.value.message


def test_latents_that_are_not_finite_are_neither_built_nor_packed(own, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 15: 1e5 is infinite as float16."""
    path = own.latents / "000002.safetensors"
    latents = torch.from_numpy(read_arrays(path)["latents"].copy())
    latents[0, 0, 0] = torch.inf
    write_tensors(path, {"latents": latents}, {})
    sha256 = hash_file(path)
    reseal(own.latents, "latents", lambda fields: fields["info"]["episodes"][2].update(sha256=sha256))
    with pytest.raises(DataError, match=r"000002\.safetensors has latents that are not finite"):
        own.pack()
    shutil.rmtree(own.latents)
    monkeypatch.setattr(
        build, "encode_pieces", lambda _, pieces, *rest: (torch.full((len(piece), 4, 3), 1e5) for piece in pieces)
    )
    with pytest.raises(DataError, match="the latents of episode 000000 are not finite as") as caught:
        own.build(dtype="float16")
    assert "float32" in caught.value.hint
    assert not (own.latents / "000000.safetensors").exists()


BAD_NAMES = ["../../victim", "/victim", "a/b", "..", "", "NUL", "con.safetensors", "a\0b", "a\\b", ".hidden", "x" * 300]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leads_elsewhere_is_refused_by_every_reader(own, name: str) -> None:
    """Pitfall 45: a resealed store with the id `../../victim` had a file elsewhere written over."""
    (own.root.parent / "victim.safetensors").write_text("mine")
    before = {path: path.read_bytes() for path in own.root.parent.rglob("*") if path.is_file()}
    places = [(own.episodes, "episodes", "id"), (own.episodes, "episodes", "file"), (own.latents, "latents", "id"),
              (own.latents, "latents", "file"), (own.packed, "packed", "id")]  # fmt: skip
    for folder, kind, key in places:
        manifest = folder / "manifest.json"
        whole = manifest.read_bytes()
        value = name if key == "id" or name in BAD_NAMES[:1] else f"{name}.safetensors"
        if value == "..safetensors":
            value = "../x.safetensors"
        reseal(folder, kind, lambda fields, key=key, value=value: fields["info"]["episodes"][0].update({key: value}))
        readers = {
            "episodes": [lambda: EpisodeStore.open(own.episodes), own.build, own.pack],
            "latents": [lambda: read_latents(own.latents), own.pack],
            "packed": [lambda: LatentWindows(own.packed, "train")],
        }
        for read in readers[kind]:
            with pytest.raises(ArtifactError, match="does not hold what an artifact of its kind holds"):
                read()
        manifest.write_bytes(whole)
    assert {path: path.read_bytes() for path in own.root.parent.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(os.name != "posix", reason="POSIX files")
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device"])
def test_what_stands_in_place_of_a_file_is_refused_and_not_waited_for(own, tmp_path: Path, kind: str) -> None:
    """Pitfall 45: a pipe hung, a link led out of the folder."""
    reads = {
        own.episodes / "000000.safetensors": lambda: own.store.read("000000"),
        own.latents / "000000.safetensors": own.pack,
        own.packed / read_packed(own.packed).info.shards[0].file: lambda: read_all(own.packed),
        own.tokenizer: own.build,
        own.episodes / "manifest.json": lambda: own.store,
    }
    for number, (path, read) in enumerate(reads.items()):
        kept = path.rename(tmp_path / f"kept{number}")
        if kind == "link":
            path.symlink_to(kept)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()
        linked = path in (own.tokenizer, own.episodes / "manifest.json")  # no name of a manifest: a link is as good
        if not (kind == "link" and linked):
            with pytest.raises(AhriuwuError, match=r"is a (pipe|folder|device|link)|outside|has no manifest"):
                read()
        path.rmdir() if kind == "folder" else path.unlink()
        kept.rename(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shard": 99}, "lies in shard 99"),
        ({"start": 10**9}, "ends at row"),
        ({"start": -1}, "greater than or equal to 0"),
        ({"task": 5}, "has task 5 of 2"),
        ({"num_latents": "7 "}, "valid integer"),
        ({"unheard": 1}, "Extra inputs"),
        ({"id": "000001"}, "two episodes have one id"),
    ],
)
def test_a_packed_manifest_that_makes_no_sense_is_one_clear_error(own, change: dict[str, Any], told: str) -> None:
    reseal(own.packed, "packed", lambda fields: fields["info"]["episodes"][0].update(change))
    with pytest.raises(ArtifactError) as caught:
        LatentWindows(own.packed, "train")
    assert told in caught.value.message
