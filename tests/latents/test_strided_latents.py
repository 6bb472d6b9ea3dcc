"""Latents of a tokenizer with a stride, built and packed: counts, what each block holds, windows over them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ahriuwu_cli.core.artifact import read_header, write_manifest
from ahriuwu_cli.core.content import hash_file
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ArtifactError, DataError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec, LatentSpec
from ahriuwu_cli.core.tensorfile import read_arrays, write_tensors
from ahriuwu_cli.episodes.alignment import covered_frames, num_latents
from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.latents.manifest import PackedEpisode, PlacedEpisode
from ahriuwu_cli.latents.windows import LatentWindows
from ahriuwu_cli.tokenizer.config import TokenizerSection
from ahriuwu_cli.tokenizer.train import train_tokenizer

CPU = Runtime(torch.device("cpu"), "fp32")
STRIDE = 8
LENGTHS = (32, 5, 40, 17, 33, 24, 9, 63)  # steps per episode; 32, 40 and 24 fill their last latent


def numbered(index: int) -> Episode:
    """Frame t is evenly grey t; action t is t+1, unknown at t = 20; reward t is 2^(t mod 10)."""
    steps = LENGTHS[index]
    grey = np.arange(steps + 1, dtype=np.uint8)[:, None, None, None]
    return Episode(
        frames=np.broadcast_to(grey, (steps + 1, 16, 16, 3)).copy(),
        actions=np.arange(1, steps + 1, dtype=np.float32)[:, None],
        action_valid=np.arange(steps) != 20,
        rewards=(2.0 ** (np.arange(steps) % 10)).astype(np.float32),
        terminals=np.arange(steps) == steps - 1,
        truncations=np.zeros(steps, bool),
        timestamps=np.arange(steps + 1) / 10,
        task="count",
        seed=index,
        policy="hand",
    )


@pytest.fixture(scope="session")
def strided(by_hand, tmp_path_factory: pytest.TempPathFactory, cosmos_files: Callable[..., Path]):
    """Eight numbered episodes through a stand-in of a Cosmos video tokenizer, built and packed. Read only."""
    source = type(by_hand)(tmp_path_factory.mktemp("strided"))
    spec = ActionSpec(components=(ActionComponent(name="go", type="continuous", low=0, high=100),))
    frame = FrameSpec(height=16, width=16, fps=10)
    store = EpisodeStore.create(source.episodes, spec, frame, "Some-v0", {}, heldout_fraction=0.3)
    store.append([numbered(index) for index in range(len(LENGTHS))])
    model = {"type": "cosmos", "path": str(cosmos_files(source.root / "cosmos")), "clip_latents": 3, "clip_overlap": 1}
    train = {"steps": 1, "batch_size": 1, "learning_rate": 1e-3}
    section = TokenizerSection.model_validate({"model": model, "train": train})
    train_tokenizer(section, source.episodes, source.root, CPU, seed=0)
    source.build(dtype="float32", batch_size=7)  # pieces that are no multiple of the stride
    source.pack(dtype="float32", shard_frames=6)
    return source


def packed_rows(source, index: int) -> dict[str, np.ndarray]:
    header = read_header(source.packed, "packed")
    entry = header.info["episodes"][index]
    shard = read_arrays(source.packed / header.info["shards"][entry["shard"]]["file"])
    return {name: array[entry["start"] : entry["start"] + entry["num_latents"]] for name, array in shard.items()}


def test_counts_are_those_of_the_store(strided) -> None:
    """Pitfalls 13 and 34: a latent for frame 0, one for every 8 frames begun after it; frames are counted too."""
    for kind, folder in (("latents", strided.latents), ("packed", strided.packed)):
        for entry, steps in zip(read_header(folder, kind).info["episodes"], LENGTHS, strict=True):
            assert entry["num_frames"] == steps + 1
            assert entry["num_latents"] == num_latents(steps + 1, STRIDE)


@pytest.mark.parametrize("index", range(len(LENGTHS)))
def test_latents_and_blocks_belong_together(strided, index: int) -> None:
    """Pitfall 34: the frames that a latent shows are those that its block's actions and rewards led to."""
    rows, episode = packed_rows(strided, index), numbered(index)
    steps = episode.num_steps
    shown = ((rows["latents"][:, :, :8].mean(axis=1) + 1) * 127.5).round()  # (K, 8) grey of each frame
    assert shown[0].tolist() == [0] * 8
    for latent in range(1, len(shown)):
        frames = [min(frame, steps) for frame in covered_frames(latent, STRIDE)]  # past the end: the last one again
        assert shown[latent].tolist() == frames
        led = [frame - 1 for frame in covered_frames(latent, STRIDE)]
        real = [t for t in led if t < steps]
        assert rows["reward"][latent] == episode.rewards[real].sum()
        assert rows["terminal"][latent] == episode.terminals[real].any()
        assert rows["reward_valid"][latent]
        known = len(real) == STRIDE and 20 not in real
        assert rows["action_valid"][latent] == known
        assert rows["action"][latent].tolist() == ([t + 1 for t in real] if known else [0] * STRIDE)
    assert rows["reward"].sum() == episode.rewards.sum()


def test_specs_of_packed_latents(strided) -> None:
    """Pitfall 12: what leads to a latent is eight actions, and the spec says so."""
    windows = LatentWindows(strided.packed, "train")
    assert windows.latent_spec.stride == STRIDE
    assert windows.action_spec == strided.store.action_spec.repeated(STRIDE)
    assert windows.read(windows.sampler.draw(np.random.default_rng(0), 3, 2), 2).action.shape == (3, 2, STRIDE)
    spec = LatentSpec.model_validate(read_header(strided.latents, "latents").specs["latent"])
    assert len(spec.mean) == len(spec.std) == 16
    assert spec.bound is None
    train = [packed_rows(strided, int(id_))["latents"] for id_ in strided.store.ids("train")]
    np.testing.assert_allclose(spec.mean, np.concatenate(train).astype(np.float64).mean(axis=(0, 1)), atol=1e-6)


def test_whole_windows_show_no_frame_that_never_was(strided) -> None:
    """The last latent of most episodes reaches past the end: it is drawn, but is in no window that must be whole."""
    windows = LatentWindows(strided.packed, "train")
    for length in (1, 3):
        drawn = {place[:2] for place in windows.sampler.draw_whole(np.random.default_rng(0), 3000, length)}
        assert drawn == {
            (index, start)
            for index, episode in enumerate(windows.episodes)
            for start in range(1 + LENGTHS[int(episode.id)] // STRIDE - length + 1)
        }
    longest = 1 + max(LENGTHS[int(id_)] for id_ in strided.store.ids("train")) // STRIDE
    with pytest.raises(DataError, match=f"has {longest} whole latents \\(of 8 frames each\\)"):
        windows.sampler.draw_whole(np.random.default_rng(0), 1, longest + 1)
    batch = windows.read(windows.sampler.draw(np.random.default_rng(0), 300, 2), 2)
    assert (batch.terminal & batch.valid).any(dim=1).float().mean() > 0.1
    assert windows.sampler.num_latents == sum(
        num_latents(LENGTHS[int(id_)] + 1, STRIDE) for id_ in strided.store.ids("train")
    )


def test_latents_of_another_count_are_refused(strided, tmp_path: Path) -> None:
    """Pitfall 13: a latent is missing."""
    import shutil

    own = type(strided)(tmp_path / "own")
    shutil.copytree(strided.root, own.root)
    header = read_header(own.latents, "latents")
    entry = header.info["episodes"][0]
    path = own.latents / entry["file"]
    write_tensors(path, {"latents": torch.from_numpy(read_arrays(path)["latents"][:-1].copy())}, {})
    entry["sha256"] = hash_file(path)
    specs, parents = header.specs, header.parents
    write_manifest(own.latents, "latents", config=header.config, specs=specs, parents=parents, info=header.info)
    with pytest.raises(ArtifactError, match="episode 000000 has 33 frames but 4 latents of 8 frames each"):
        own.pack()


def test_a_manifest_from_before_there_were_strides() -> None:
    """Older packed latents know one latent per frame and say `num_frames` only."""
    entry = {"id": "000000", "shard": 0, "start": 4, "num_frames": 9, "split": "train", "task": 0}
    episode = PackedEpisode.of(PlacedEpisode.model_validate(entry), 1)
    assert (episode.num_latents, episode.num_whole, episode.start) == (9, 9, 4)
