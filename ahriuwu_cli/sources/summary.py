"""What an episode store holds, in figures; and the command that divides it anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ahriuwu_cli.core.lock import exclusive
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.episodes.manifest import EpisodeRecord
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.census import Census
from ahriuwu_cli.sources.portrait import draw, require_drawable
from ahriuwu_cli.sources.telling import as_tables, in_words


def info(folder: Path, png: Path | None = None) -> Report:
    """Describe a store: episodes, steps and returns by split and by policy, and what all episodes hold (census.py).

    Args:
        folder: the store.
        png: file for one picture of it all.

    Raises:
        InputError: nothing is there, or there is nothing to draw, or `png` is no name of a picture.
        ArtifactError: it is no readable episode store.
        StorageError: the picture cannot be written.
    """
    store = EpisodeStore.open(folder)
    if png is not None:
        require_drawable(store, png)
    census = Census(store)
    census.take_all()
    facts = census.facts()
    report = describe(store, f"Episodes of {store.env}")
    notes = [*in_words(facts), *report.notes]
    if png is not None:
        draw(png, facts, f"{store.env}: {report.data['groups']['all']['episodes']} episodes, {notes[0]}")
        notes.append(f"picture: {png}")
    return replace(report, data=report.data | facts, notes=notes, tables=as_tables(facts))


def split(folder: Path, fraction: float, seed: int) -> Report:
    """Divide all episodes of a store anew and describe it.

    Raises:
        InputError: nothing is there, or the fraction is not between 0 and 1.
        ArtifactError: it is no readable episode store.
        BusyError: another process is writing to it.
    """
    EpisodeStore.open(folder)  # says so where there is none, before a folder is made for the lock
    with exclusive(folder):
        store = EpisodeStore.open(folder)
        store.settle()
        before = store.fingerprint
        store.set_split(fraction, seed)
    notes = [] if store.fingerprint == before else ["what was made from the store before must be made again"]
    return describe(store, f"Divided {store.env} anew", notes)


def describe(store: EpisodeStore, title: str, notes: list[str] | None = None) -> Report:
    """A store's episodes in figures, with its settings as data."""
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
            *_left_out(store),
            *(notes or []),
        ],
    )


def _left_out(store: EpisodeStore) -> list[str]:
    """Episodes that have a place in the store and are not listed."""
    found = []
    if store.skipped:
        found.append(f"{len(store.skipped)} further episodes could not be stored: {store.skipped[0].reason}")
    if store.unfinished:
        found.append(f"{len(store.unfinished)} further episodes are unfinished: going on with --append plays them")
    if store.num_in_journal:
        found.append(f"{store.num_in_journal} further episodes are on disk already; the recording that runs lists them")
    return found


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
