"""`latents build`: one file per episode, aligned with the store, with statistics of the training split."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.content import hash_file
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ArtifactError, BusyError, DataError, InputError, StorageError
from ahriuwu_cli.core.files import TEMPORARY_SUFFIX
from ahriuwu_cli.core.lock import LOCK_NAME
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec, LatentSpec
from ahriuwu_cli.core.tensorfile import read_arrays, write_tensors
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.latents import build as module
from ahriuwu_cli.latents.build import build_latents
from ahriuwu_cli.latents.config import LatentsSection
from ahriuwu_cli.latents.pack import pack_latents
from ahriuwu_cli.tokenizer.checkpoint import load_tokenizer
from ahriuwu_cli.tokenizer.protocol import to_pixels

CPU = Runtime(torch.device("cpu"), "fp32")


@pytest.fixture
def own(recorded, tmp_path: Path):
    """A copy of the recorded source to change."""
    shutil.copytree(recorded.root, tmp_path / "own")
    return type(recorded)(tmp_path / "own")


def test_counts_are_those_of_the_store(recorded) -> None:
    """Pitfall 13: counts compared with the source."""
    header, store = read_header(recorded.latents, "latents"), recorded.store
    entries = header.info["episodes"]
    assert [entry["id"] for entry in entries] == [item.id for item in store.episodes]
    for entry, item in zip(entries, store.episodes, strict=True):
        path = recorded.latents / entry["file"]
        assert entry["num_frames"] == entry["num_latents"] == item.num_steps + 1 == len(read_arrays(path)["latents"])
        assert entry["sha256"] == hash_file(path)
        assert entry["split"] == item.split  # pitfall 7


def test_latent_t_is_of_frame_t(recorded) -> None:
    """Pitfall 13: what is indexed by frame is aligned with the frames, in the stored type."""
    tokenizer, _ = load_tokenizer(recorded.tokenizer, CPU.device)
    for item in recorded.store.episodes:
        latents = read_arrays(recorded.latents / f"{item.id}.safetensors")["latents"]
        frames = torch.from_numpy(recorded.store.read(item.id).frames)
        alone = torch.cat([tokenizer.encode(to_pixels(frame)[None, None])[0] for frame in frames])
        assert latents.dtype == np.float16
        np.testing.assert_allclose(latents, alone.numpy(), atol=1e-3)


def test_header_carries_layout_and_parents(recorded) -> None:
    """Pitfalls 11 and 12: latents carry their layout and the tokenizer's fingerprint."""
    header = read_header(recorded.latents, "latents")
    _, tokenizer = load_tokenizer(recorded.tokenizer, CPU.device)
    assert header.parents == {"episodes": recorded.store.fingerprint, "tokenizer": tokenizer.fingerprint}
    spec = LatentSpec.model_validate(header.specs["latent"])
    assert spec.same_layout(LatentSpec.model_validate(tokenizer.specs["latent"]))
    assert (spec.num_tokens, spec.dim_token, spec.layout, spec.bound) == (16, 3, "grid 4x4", 1.0)


@pytest.mark.parametrize("source", ["recorded", "by_hand"])
def test_statistics_are_of_the_training_split_alone(request: pytest.FixtureRequest, source: str) -> None:
    """Pitfall 7: nothing of the held-out episodes reaches training, not even through mean and spread."""
    chosen = request.getfixturevalue(source)
    spec = LatentSpec.model_validate(read_header(chosen.latents, "latents").specs["latent"])
    arrays = {
        item.id: read_arrays(chosen.latents / f"{item.id}.safetensors")["latents"].astype(np.float64)
        for item in chosen.store.episodes
    }
    train = np.concatenate([arrays[id_] for id_ in chosen.store.ids("train")]).reshape(-1, 3)
    np.testing.assert_allclose(spec.mean, train.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(spec.std, train.std(axis=0), rtol=1e-6)
    everything = np.concatenate(list(arrays.values())).reshape(-1, 3)
    assert np.abs(everything.mean(axis=0) - spec.mean).max() > 1e-6


def test_constant_channels_keep_a_spread() -> None:
    moments = module._Moments(2)
    moments.add(np.stack([np.full((4, 3), 0.25), np.linspace(-1, 1, 12).reshape(4, 3)], axis=-1))
    found = moments.statistics()
    assert found["mean"] == pytest.approx((0.25, 0))
    assert found["std"] == pytest.approx((1e-3, np.linspace(-1, 1, 12).std()))


def test_finished_files_are_kept(own, encoded: list[int]) -> None:
    before = read_header(own.latents, "latents")
    times = {path.name: path.stat().st_mtime_ns for path in own.latents.glob("*.safetensors")}
    own.build(batch_size=8)
    assert encoded == []
    assert {path.name: path.stat().st_mtime_ns for path in own.latents.glob("*.safetensors")} == times
    assert read_header(own.latents, "latents").fingerprint == before.fingerprint


@pytest.mark.parametrize("fault", ["gone", "cut", "empty", "other content"])
def test_damaged_files_are_made_again(own, encoded: list[int], fault: str) -> None:
    """Pitfall 20: a file is kept for what it holds, not for what it says of itself."""
    before = read_header(own.latents, "latents")
    path = own.latents / "000002.safetensors"
    raw = path.read_bytes()
    if fault == "gone":
        path.unlink()
    elif fault == "other content":
        with safe_open(str(path), framework="pt") as handle:
            said = handle.metadata()
            write_tensors(path, {"latents": handle.get_tensor("latents") + 1}, said)
    else:
        path.write_bytes(raw[: len(raw) // 2] if fault == "cut" else b"")
    own.build(batch_size=8)
    assert len(encoded) == 1
    assert path.read_bytes() == raw
    assert read_header(own.latents, "latents").fingerprint == before.fingerprint


def test_how_many_frames_at_once_is_no_part_of_the_artifacts(own) -> None:
    """Pitfall 20: equal content has an equal fingerprint."""
    own.pack()
    before = [read_header(folder, kind) for kind, folder in (("latents", own.latents), ("packed", own.packed))]
    own.build(batch_size=5)
    own.pack(batch_size=5)
    after = [read_header(folder, kind) for kind, folder in (("latents", own.latents), ("packed", own.packed))]
    assert [header.fingerprint for header in after] == [header.fingerprint for header in before]
    assert not any("batch_size" in header.config for header in after)


def test_another_tokenizer_encodes_all_again(own, encoded: list[int], save_tokenizer: Callable) -> None:
    """Pitfall 20: what is kept is keyed by content, not by name."""
    before = read_arrays(own.latents / "000000.safetensors")["latents"]
    other = save_tokenizer(own.tokenizer, own.episodes, seed=1)
    own.build(batch_size=8)
    assert len(encoded) == 6
    assert read_header(own.latents, "latents").parents["tokenizer"] == other.fingerprint
    assert np.abs(read_arrays(own.latents / "000000.safetensors")["latents"] - before).max() > 0.01


def test_another_type_encodes_all_again(own, encoded: list[int]) -> None:
    own.build(dtype="float32")
    assert len(encoded) == 6
    assert read_arrays(own.latents / "000000.safetensors")["latents"].dtype == np.float32


def test_another_split_encodes_nothing_again(own, encoded: list[int]) -> None:
    before = read_header(own.latents, "latents")
    own.store.set_split(0.5, seed=5)
    own.build(batch_size=8)
    after = read_header(own.latents, "latents")
    assert encoded == []
    assert after.parents["episodes"] == own.store.fingerprint != before.parents["episodes"]
    assert after.specs["latent"]["mean"] != before.specs["latent"]["mean"]


def test_an_interrupted_build_goes_on(own, encoded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(own.latents)
    write = module.write_latents

    def interrupt(path: Path, *rest) -> None:
        if path.name == "000003.safetensors":
            raise KeyboardInterrupt
        write(path, *rest)

    monkeypatch.setattr(module, "write_latents", interrupt)
    with pytest.raises(KeyboardInterrupt):
        own.build()
    monkeypatch.setattr(module, "write_latents", write)
    with pytest.raises(ArtifactError, match="manifest"):
        read_header(own.latents, "latents")
    encoded.clear()
    own.build()
    assert len(encoded) == 3


def test_frames_of_another_size_are_refused(own, save_tokenizer: Callable) -> None:
    save_tokenizer(own.tokenizer, own.episodes, height=16)
    with pytest.raises(ArtifactError, match=r"32x32 frames; .*tokenizer.safetensors was made for 16x32"):
        build_latents(own.episodes, own.tokenizer, own.root / "new", LatentsSection(), CPU)
    assert not (own.root / "new").exists()


def test_the_rate_is_that_of_the_episodes(own, save_tokenizer: Callable) -> None:
    """Pitfall 27: a tokenizer of another recording takes its frames' size along, not their rate."""
    save_tokenizer(own.tokenizer, own.episodes, fps=99.0)
    own.build()
    frame = FrameSpec.model_validate(read_header(own.latents, "latents").specs["frame"])
    assert frame == own.store.frame_spec


def test_a_store_without_episodes_is_refused(own, tmp_path: Path) -> None:
    spec = ActionSpec(components=(ActionComponent(name="a", type="binary"),))
    EpisodeStore.create(tmp_path / "empty", spec, FrameSpec(height=32, width=32, fps=10), "Some-v0", {})
    with pytest.raises(DataError, match="no training episode"):
        build_latents(tmp_path / "empty", own.tokenizer, tmp_path / "new", LatentsSection(), CPU)


def test_missing_parents_say_how_to_make_them(own, tmp_path: Path) -> None:
    for episodes, tokenizer, command in [
        (tmp_path / "none", own.tokenizer, "data record"),
        (own.episodes, tmp_path / "none.safetensors", "tokenizer train"),
    ]:
        with pytest.raises(InputError, match="does not exist") as caught:
            build_latents(episodes, tokenizer, tmp_path / "new", LatentsSection(), CPU)
        assert f"ahriuwu {command}" in caught.value.hint


def test_report_counts_frames(own) -> None:
    report = build_latents(own.episodes, own.tokenizer, own.latents, LatentsSection(), CPU)
    assert report.data["episodes"] == 6
    assert report.data["frames"] == sum(item.num_steps + 1 for item in own.store.episodes)
    assert report.data["fingerprint"] == read_header(own.latents, "latents").fingerprint
    json.dumps(report.data)


def test_a_full_disk_keeps_what_is_encoded_and_says_so(own, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 21; and what a killed build left half written is gone after the next one."""
    shutil.rmtree(own.latents)
    build_latents(own.episodes, own.tokenizer, own.latents, LatentsSection(), CPU)
    before = read_header(own.latents, "latents").fingerprint
    shutil.rmtree(own.latents)
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == "000002.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(StorageError, match=r"000002\.safetensors: No space left on device") as caught:
            build_latents(own.episodes, own.tokenizer, own.latents, LatentsSection(), CPU)
    assert "what is encoded is kept: run the same command again" in caught.value.hint
    kept = {path: path.stat().st_mtime_ns for path in own.latents.iterdir()}
    assert sorted(path.name for path in kept) == ["000000.safetensors", "000001.safetensors"]
    (own.latents / f".000002.safetensors.x{TEMPORARY_SUFFIX}").touch()
    build_latents(own.episodes, own.tokenizer, own.latents, LatentsSection(), CPU)
    assert read_header(own.latents, "latents").fingerprint == before
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert not list(own.latents.glob(".*"))


def test_two_builds_or_packs_in_one_folder(own) -> None:
    """Pitfall 41."""
    text = json.dumps(
        {"pid": 1, "host": "elsewhere", "machine": "m", "boot": "b", "started": "1", "command": "c", "since": "s"}
    )
    for folder, work in (
        (own.latents, lambda: build_latents(own.episodes, own.tokenizer, own.latents, LatentsSection(), CPU)),
        (own.packed, lambda: pack_latents(own.episodes, own.latents, own.packed, LatentsSection())),
    ):
        (folder / LOCK_NAME).write_text(text)
        with pytest.raises(BusyError, match="process 1 on elsewhere"):
            work()
        (folder / LOCK_NAME).unlink()
        work()
