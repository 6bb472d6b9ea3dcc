"""A store with everything in it, and what of it comes back by an import."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from ahriuwu_cli.cli.main import run
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec
from ahriuwu_cli.episodes.actions import random_row
from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.store import EpisodeStore

SPEC = ActionSpec(
    components=(
        ActionComponent(name="aim", type="continuous", dim=2, low=-0.1, high=0.3, aggregate="mean"),
        ActionComponent(name="keys", type="binary", dim=2, labels=("0", "1"), aggregate="any"),
        ActionComponent(name="move", type="categorical", num_classes=3, labels=("left", "stay", "2"), aggregate="mode"),
    )
)
TASKS = ("gather, then build", "play")


def episode(
    number: int,
    steps: int,
    *,
    spec: ActionSpec = SPEC,
    size: tuple[int, int] = (16, 24),
    fps: float = 15.0,
    **changes: Any,
) -> Episode:
    """Noise with an action of every kind, some of them not known, rewards, and in every second episode an event."""
    rng = np.random.default_rng(number)
    valid = rng.random(steps) < 0.7
    rows = np.stack([random_row(spec, rng) for _ in range(steps)])
    ended = number % 2 == 0
    flags = np.arange(steps) == steps - 1
    values: dict[str, Any] = {
        "frames": rng.integers(0, 256, (steps + 1, *size, 3), np.uint8),
        "actions": np.where(valid[:, None], rows, 0).astype(np.float32),
        "action_valid": valid,
        "rewards": rng.normal(size=steps).astype(np.float32),
        "terminals": flags & ended,
        "truncations": flags & (not ended),
        "timestamps": np.arange(steps + 1) / fps,
        "task": TASKS[number % 2],
        "seed": number,
        "policy": "human",
        "events": {"score": rng.normal(size=steps).astype(np.float32)} if number % 2 else {},
    }
    return Episode(**(values | changes))


def make_store(folder: Path, episodes: list[Episode], spec: ActionSpec = SPEC, fps: float = 15.0) -> EpisodeStore:
    """A store of these episodes."""
    height, width = episodes[0].frames.shape[1:3]
    frame = FrameSpec(height=height, width=width, fps=fps)
    store = EpisodeStore.create(folder, spec, frame, "", {}, storage="raw")
    store.append(episodes)
    return store


def imported(command: str, out: Path) -> EpisodeStore:
    """The store that an import command, as an export tells it, makes."""
    words = shlex.split(command)
    assert words[0] == "ahriuwu" and words[-1] == "STORE"
    assert run([*words[1:-1], str(out)]) == 0
    return EpisodeStore.open(out)


def require_equal(store: EpisodeStore, back: EpisodeStore, times: float = 1e-9) -> None:
    """Everything that a format can hold is equal; times up to so many seconds."""
    assert back.num_episodes == store.num_episodes
    assert back.frame_spec == store.frame_spec
    for left, right in zip(map(store.read, ids(store)), map(back.read, ids(back)), strict=True):
        np.testing.assert_array_equal(left.frames, right.frames)
        np.testing.assert_allclose(left.timestamps - left.timestamps[0], right.timestamps, rtol=0, atol=times)
        np.testing.assert_array_equal(left.action_valid, right.action_valid)
        for name in ("rewards", "terminals", "truncations"):
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
        own, there = store.action_spec.slices(), back.action_spec.slices()
        assert own.keys() == there.keys()
        for name, columns in own.items():
            valid = left.action_valid
            np.testing.assert_array_equal(left.actions[valid, columns], right.actions[valid, there[name]])
        for name in {*left.events, *right.events}:
            np.testing.assert_array_equal(left.event(name), right.event(name))
        assert (left.task, left.policy) == (right.task, right.policy)


def ids(store: EpisodeStore) -> list[str]:
    """Ids of all episodes."""
    return [record.id for record in store.episodes]
