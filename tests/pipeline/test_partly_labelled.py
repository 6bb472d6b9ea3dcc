"""Play of which little is labelled: the world model learns from all of it, and dreams still do as they are told."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.dynamics.train import train_dynamics
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.evaluation.rollout import evaluate_rollout
from ahriuwu_cli.latents.build import build_latents
from ahriuwu_cli.latents.pack import pack_latents
from ahriuwu_cli.latents.windows import LatentWindows
from ahriuwu_cli.pipeline.config import Run, RunConfig, preset_run
from ahriuwu_cli.sources.record import record
from ahriuwu_cli.tokenizer.train import train_tokenizer

LEARNING = (
    "data.episodes=160",
    'tokenizer.model={type="cnn", patch=8, dim_token=16, base_channels=16}',
    "tokenizer.train={steps=250, batch_size=32, learning_rate=2e-3}",
    "dynamics.model={dim=64, num_layers=4, num_heads=4, num_kv_heads=2, num_registers=2, k_max=8}",
    "dynamics.train={steps=600, batch_size=8, learning_rate=5e-3}",
    "eval.contexts=64",
)
"""Changes to the preset tiny for a few minutes of one core."""


def with_labels_left(source: Path, folder: Path, every: int, splits: tuple[str, ...] = ("train",)) -> EpisodeStore:
    """A copy of a store in which one of `every` episodes of some splits keeps its labels."""
    store = EpisodeStore.open(source)
    copy = EpisodeStore.create(
        folder,
        store.action_spec,
        store.frame_spec,
        store.env,
        store.env_options,
        heldout_fraction=store.split_rule.fraction,
        split_seed=store.split_rule.seed,
        config=store.header.config,
    )
    counts = dict.fromkeys(splits, 0)
    records = []
    for each in store.episodes:
        tracks = store.tracks(each.id)
        if each.split in splits:
            counts[each.split] += 1
            if counts[each.split] % every:
                nothing = np.zeros_like(tracks.action_valid)
                tracks = dataclasses.replace(tracks, actions=np.zeros_like(tracks.actions), action_valid=nothing)
        records.append(copy.copy(each.id, store, each, None, tracks))
    copy.list_episodes(records)
    assert [each.split for each in copy.episodes] == [each.split for each in store.episodes]
    return copy


def share_labelled(store: EpisodeStore, split: str) -> float:
    """Of the steps of a split."""
    return float(np.concatenate([store.tracks(name).action_valid for name in store.ids(split)]).mean())


# ---------------------------------------------------------------- the whole road, minuscule


def test_the_whole_road_on_a_tenth_of_the_labels(ahriuwu, run_dir: Path, tmp_path: Path) -> None:
    """Every stage trains on it to a finite loss, and what is judged is judged where actions are known."""
    (run_dir / "episodes").rename(tmp_path / "whole")
    store = with_labels_left(tmp_path / "whole", run_dir / "episodes", every=6)
    assert 0 < share_labelled(store, "train") < 0.3
    config = run_dir / "run.toml"
    for words in (
        "tokenizer train",
        "latents build",
        "latents pack",
        "dynamics train",
        "agent finetune",
        "imagine train",
    ):
        again = ["--overwrite"] if "latents" not in words else []
        done = ahriuwu(*words.split(), "-c", config, *again, "--json")
        assert done.code == 0, done.err
        assert all(math.isfinite(value) for value in done.data.get("metrics", {}).values() if value is not None)
    done = ahriuwu("eval", "rollout", "-c", config, "--json")
    assert done.code == 0, done.err
    assert done.data["labelled_contexts"] == done.data["contexts"]


# ---------------------------------------------------------------- what is dreamed is labelled


@pytest.mark.parametrize("every", [2, 1000], ids=["some", "none"])
def test_contexts_are_labelled_where_there_are_any(every: int, ahriuwu, run_dir: Path, tmp_path: Path) -> None:
    """Of two held-out episodes one keeps its labels, or none does: then dreams go without actions, and it is said."""
    (run_dir / "episodes").rename(tmp_path / "whole")
    with_labels_left(tmp_path / "whole", run_dir / "episodes", every, splits=("heldout",))
    for words in ("tokenizer train", "latents build", "latents pack", "dynamics train"):
        again = ["--overwrite"] if "latents" not in words else []
        assert ahriuwu(*words.split(), "-c", run_dir / "run.toml", *again).code == 0
    windows = LatentWindows(run_dir / "packed", "heldout")
    known = {index for index in range(len(windows.episodes)) if windows.known_actions(index)[1:].all()}
    places = windows.sampler.draw_whole(np.random.default_rng(0), 50, 8, unknown_first=4)
    done = ahriuwu("eval", "rollout", "-c", run_dir / "run.toml", "--json")
    assert done.code == 0, done.err
    if every == 2:
        assert {place.episode for place in places} == known
        assert len(known) == 1
        assert done.data["labelled_contexts"] == done.data["contexts"]
    else:
        assert not known
        assert done.data["labelled_contexts"] == 0
        assert done.data["dream_above_shuffled_db"] == 0, "no action is known, so none is shuffled"


# ---------------------------------------------------------------- learning


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """Play of the built-in game, and a tokenizer for it."""
    folder = tmp_path_factory.mktemp("partly")
    run = preset_run("tiny", folder, LEARNING)
    record(run.episodes, run.config.data, 0)
    train_tokenizer(run.config.tokenizer, run.episodes, run.tokenizer.parent, runtime(), seed=0, resume=False)
    return run, folder


def runtime() -> Runtime:
    import torch

    return Runtime(torch.device("cpu"), "fp32")


def gap(run: Run, store: Path, folder: Path) -> dict[str, float]:
    """Train dynamics on a store; the PSNR of its dreams, and of those under other actions, in dB."""
    config: RunConfig = run.config
    packed, out = folder / "packed", folder / "dynamics"
    build_latents(store, run.tokenizer, folder / "latents", config.latents, runtime())
    pack_latents(store, folder / "latents", packed, config.latents)
    train_dynamics(config.dynamics, packed, out, runtime(), seed=0, resume=False)
    section: Section = config.eval
    evaluate_rollout(
        out / "dynamics.safetensors", run.tokenizer, packed, store, folder / "judged", section, runtime(), seed=0
    )
    said = json.loads((folder / "judged" / "rollout.json").read_text())
    return {
        "dream": float(np.mean(said["curves"]["dream"]["psnr"])),
        "above shuffled": said["dream_above_shuffled_db"],
        "above persistence": said["dream_above_persistence_db"],
    }


@pytest.mark.slow
def test_a_tenth_of_the_labels(recorded: tuple[Run, Path]) -> None:
    """Three minutes of one core. With all labels dreams do as they are told; with few they still learn what is seen."""
    run, folder = recorded
    few = with_labels_left(run.episodes, folder / "few", every=10)
    print(f"labelled: {share_labelled(few, 'train'):.1%} of training steps")
    found = {name: gap(run, store, folder / name) for name, store in (("all", run.episodes), ("tenth", few.folder))}
    print(json.dumps(found, indent=1))
    assert found["all"]["above shuffled"] > 0.2
    assert found["tenth"]["above persistence"] > 0.5
    assert found["all"]["dream"] > found["tenth"]["dream"] > found["all"]["dream"] - 1
