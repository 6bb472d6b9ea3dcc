"""The commands of `ahriuwu data`: record episodes into a store, describe a store, divide it anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ahriuwu_cli.core.artifact import MANIFEST_NAME
from ahriuwu_cli.core.errors import InputError, TrainingInterrupted
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.specs import ActionSpec, FrameSpec
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.manifest import EpisodeRecord
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.games.environment import make_env
from ahriuwu_cli.games.policies import Policy, built_in_policy
from ahriuwu_cli.games.runner import stream_episodes
from ahriuwu_cli.sources.writer import SeedOrderWriter

NUM_ENVS = 16
Progress = Callable[[int, int], None]  # (episodes done, episodes wanted)


def record(
    folder: Path,
    data: DataSection,
    seed: int,
    policy: Policy | None = None,
    append: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Play `data.episodes` episodes and add them to the store at `folder`, making it if need be.

    Finished episodes are written every few episodes, so stopping loses few; on Ctrl-C all that
    finished are kept. Seeds follow from `seed`; those already in the store are passed over, so
    recording on after a stop gives the episodes that an unbroken recording would have given.

    Args:
        folder: the store.
        data: environment, size, number, policy.
        seed: seed of episodes, policy and split.
        policy: who plays; None takes the built-in policy that `data.policy` names.
        append: add to a store that is there; the split then goes on by the store's own fraction and seed.
        progress: called with (done, wanted) as episodes end.

    Raises:
        InputError: a store is there and `append` is False, or it is one of another environment; or
            the environment or policy cannot be used. Nothing on disk has changed then.
        DataError: an episode breaks its own declaration.
        TrainingInterrupted: Ctrl-C; what finished is stored.
    """
    exists = (folder / MANIFEST_NAME).exists()
    if exists and not append:
        raise InputError(
            f"{folder} already holds an episode store",
            hint="add --append to record more into it, or give another run folder",
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected the folder of an episode store", hint="give another folder")
    if not exists and folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"{folder} is not empty and holds no episode store", hint="give another folder, or empty this one"
        )
    store = EpisodeStore.open(folder) if exists else None
    probe = make_env(data)
    action_spec, frame_spec = probe.action_spec, probe.frame_spec
    probe.close()
    if store is not None:
        _require_same(store, data, action_spec, frame_spec)
    player = policy or built_in_policy(data, action_spec)

    writer = SeedOrderWriter(folder, store, data, seed, action_spec, frame_spec)
    seeds = episode_seeds(seed, data.episodes, {item.seed for item in store.episodes} if store else set())
    episodes = stream_episodes(
        lambda: make_env(data),
        player,
        seeds,
        policy_seed=seed,
        num_envs=NUM_ENVS,
        max_steps=data.max_episode_steps,
        task=data.task,
    )
    try:
        with closing(episodes):
            for done, (index, episode) in enumerate(episodes, start=1):
                writer.add(index, episode)
                if progress is not None:
                    progress(done, data.episodes)
        writer.close()
    except KeyboardInterrupt:
        writer.close()
        missing = data.episodes - writer.num_written
        raise TrainingInterrupted(
            f"recording stopped: {writer.num_written} of {data.episodes} episodes are stored in {folder}",
            hint=f"go on with `ahriuwu data record --append --episodes {missing}`" if missing else "none is missing",
        ) from None
    assert writer.store is not None
    return _report(writer.store, f"Recorded {writer.num_written} episodes of {data.env}")


def info(folder: Path) -> Report:
    """Describe a store: episodes, steps and returns by split and by policy.

    Raises:
        InputError: nothing is there.
        ArtifactError: it is no readable episode store.
    """
    store = EpisodeStore.open(folder)
    return _report(store, f"Episodes of {store.env}")


def split(folder: Path, fraction: float, seed: int) -> Report:
    """Divide all episodes of a store anew and describe it.

    Raises:
        InputError: nothing is there, or the fraction is not between 0 and 1.
        ArtifactError: it is no readable episode store.
    """
    store = EpisodeStore.open(folder)
    before = store.fingerprint
    store.set_split(fraction, seed)
    notes = [] if store.fingerprint == before else ["what was made from the store before must be made again"]
    return _report(store, f"Divided {store.env} anew", notes)


def episode_seeds(seed: int, count: int, taken: set[int]) -> list[int]:
    """`count` different episode seeds (31 bits) of a run's seed, in a fixed order, without those `taken`."""
    return list(_take(_seed_stream(seed), count, taken))


def _seed_stream(seed: int) -> Iterator[int]:
    rng = np.random.default_rng([seed, 1])
    while True:
        yield int(rng.integers(2**31))


def _take(stream: Iterator[int], count: int, taken: set[int]) -> Iterator[int]:
    used = set(taken)
    while count > 0:
        candidate = next(stream)
        if candidate not in used:
            used.add(candidate)
            count -= 1
            yield candidate


def recorded_crop(store: EpisodeStore) -> list[int] | None:
    """The part of the environment's picture that a store's frames show; None for all of it."""
    crop: list[int] | None = store.header.config.get("data", {}).get("crop")
    return crop


def _require_same(store: EpisodeStore, data: DataSection, action_spec: ActionSpec, frame_spec: FrameSpec) -> None:
    pairs: list[tuple[str, Any, Any]] = [
        ("environment", store.env, data.env),
        ("environment options", store.env_options, data.env_options),
        ("crop", recorded_crop(store), data.crop),
        ("frame spec", store.frame_spec.model_dump(), frame_spec.model_dump()),
        ("action spec", store.action_spec.model_dump(), action_spec.model_dump()),
    ]
    for what, there, wanted in pairs:
        if there != wanted:
            raise InputError(
                f"{store.folder} was recorded with {what} {there}; this recording has {wanted}",
                hint="append with the same [data] settings, or record into another run folder",
            )


def _report(store: EpisodeStore, title: str, notes: list[str] | None = None) -> Report:
    episodes = store.episodes
    groups: dict[str, list[EpisodeRecord]] = {"all": episodes}
    for name in ("train", "heldout"):
        groups[name] = [item for item in episodes if item.split == name]
    for name in sorted({item.policy for item in episodes}):
        groups[f"by {name}"] = [item for item in episodes if item.policy == name]
    facts = {name: _facts(items) for name, items in groups.items()}
    rows = [
        [
            name,
            str(fact["episodes"]),
            str(fact["steps"]),
            "-" if fact["mean_return"] is None else f"{fact['mean_return']:.2f}",
            "-" if fact["mean_return"] is None else f"{fact['min_return']:g} .. {fact['max_return']:g}",
        ]
        for name, fact in facts.items()
    ]
    frame = store.frame_spec
    actions = ", ".join(f"{part.name} ({_extent(part.model_dump())})" for part in store.action_spec.components)
    return Report(
        title=title,
        columns=("episodes", "count", "steps", "mean return", "returns"),
        rows=rows,
        data={
            "folder": str(store.folder),
            "fingerprint": store.fingerprint,
            "env": store.env,
            "env_options": store.env_options,
            "frame": frame.model_dump(),
            "action": store.action_spec.model_dump(mode="json"),
            "tasks": store.tasks,
            "events": _event_sums(episodes),
            "split": store.split_rule.model_dump(),
            "groups": facts,
        },
        notes=[
            f"store {store.folder}, fingerprint {store.fingerprint}",
            f"frames {frame.height}x{frame.width} at {frame.fps:g} per second; actions: {actions}",
            *(f"event {name}: {total:g} in all" for name, total in _event_sums(episodes).items()),
            *(notes or []),
        ],
    )


def _facts(items: list[EpisodeRecord]) -> dict[str, Any]:
    returns = [item.total_reward for item in items]
    return {
        "episodes": len(items),
        "steps": sum(item.num_steps for item in items),
        "mean_return": float(np.mean(returns)) if returns else None,
        "min_return": min(returns, default=None),
        "max_return": max(returns, default=None),
    }


def _event_sums(items: list[EpisodeRecord]) -> dict[str, float]:
    """The sum of every event over all episodes."""
    names = dict.fromkeys(name for item in items for name in item.events)
    return {name: sum(item.events.get(name, 0) for item in items) for name in names}


def _extent(part: dict[str, Any]) -> str:
    if part["type"] == "categorical":
        return f"one of {part['num_classes']}"
    if part["type"] == "binary":
        return f"{part['dim']} switches"
    return f"{part['dim']} in {part['low']:g}..{part['high']:g}"
