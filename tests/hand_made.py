"""Fixtures: small hand-made episodes and stores."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec
from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.store import EpisodeStore

MakeEpisode = Callable[..., Episode]


@pytest.fixture
def action_spec() -> ActionSpec:
    return ActionSpec(
        components=(
            ActionComponent(name="move", type="categorical", num_classes=3, labels=("noop", "left", "right")),
            ActionComponent(name="keys", type="binary", dim=2),
            ActionComponent(name="aim", type="continuous", low=-1.0, high=1.0),
        )
    )


@pytest.fixture
def frame_spec() -> FrameSpec:
    return FrameSpec(height=8, width=10, fps=10.0)


@pytest.fixture
def make_episode() -> MakeEpisode:
    def make(seed: int = 0, steps: int = 4, **changes: object) -> Episode:
        rng = np.random.default_rng(seed)
        move = rng.integers(0, 3, (steps, 1))
        keys = rng.integers(0, 2, (steps, 2))
        aim = rng.uniform(-1, 1, (steps, 1))
        terminals = np.zeros(steps, bool)
        terminals[-1] = True
        fields: dict[str, object] = {
            "frames": rng.integers(0, 256, (steps + 1, 8, 10, 3), dtype=np.uint8),
            "actions": np.concatenate([move, keys, aim], axis=1).astype(np.float32),
            "action_valid": np.ones(steps, bool),
            "rewards": rng.normal(size=steps).astype(np.float32),
            "terminals": terminals,
            "truncations": np.zeros(steps, bool),
            "timestamps": np.arange(steps + 1) / 10.0,
            "task": "play",
            "seed": seed,
            "policy": "hand",
        }
        return Episode(**{**fields, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_store(tmp_path: Path, action_spec: ActionSpec, frame_spec: FrameSpec, make_episode: MakeEpisode):
    def make(count: int = 0, name: str = "store", **options: object) -> EpisodeStore:
        store = EpisodeStore.create(tmp_path / name, action_spec, frame_spec, "Some-v0", {"a": 1}, **options)
        if count:
            store.append([make_episode(seed) for seed in range(count)])
        return store

    return make
