"""`ahriuwu data merge`: several stores as one; recordings stay whole, and on one side of the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.files import whole_folder
from ahriuwu_cli.core.lock import contents
from ahriuwu_cli.core.progress import counted
from ahriuwu_cli.core.report import Report, Table
from ahriuwu_cli.core.specs import ActionSpec
from ahriuwu_cli.episodes.manifest import EpisodeRecord, MergedStore
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.components import Named, common_spec, in_common, lacking, same_but_for_words
from ahriuwu_cli.sources.game import recorded_game
from ahriuwu_cli.sources.summary import describe


@dataclass
class _Part:
    """One of the stores.

    Attributes:
        store: opened.
        labelled: its steps whose action is known.
        steps: all of its steps.
        lacks: components of the common spec that it does not have.
        repeated: its episodes that are in a store before it.
    """

    store: EpisodeStore
    labelled: int = 0
    steps: int = 0
    lacks: Sequence[str] = ()
    repeated: int = 0

    @property
    def name(self) -> str:
        return str(self.store.folder)

    @property
    def lost(self) -> int:
        """Steps that are labelled in it, and not in the common store."""
        return self.labelled if self.lacks else 0


def merge(folders: Sequence[Path], out: Path) -> Report:
    """Put stores together as a new one, which appears whole or not at all.

    Actions are brought together as components.py says; a store in which no step is labelled adds no component. Episodes
    keep their order, and what belongs to one recording stays on one side of the split: it is drawn anew by the first
    store's rule, over recordings. A recording, or a seed of one player in one game, that is in several stores counts as
    one; an episode that is, file by file, in a store before is left out.

    Args:
        folders: of two stores or more.
        out: a new folder, or an empty one.

    Raises:
        InputError: fewer than two stores, one twice, of different frames, or with components that do not go together;
            or `out` is not empty.
        ArtifactError: a store is damaged.
        StorageError: it cannot be written; nothing is left of it then.
    """
    if out.exists() and (not out.is_dir() or contents(out)):
        raise InputError(f"{out} is not an empty folder; stores are merged into a new one", hint="give another folder")
    parts = _opened(folders)
    said = [part for part in parts if part.labelled] or parts
    spec = common_spec([Named(part.name, part.store.action_spec) for part in said])
    for part in parts:
        part.lacks = lacking(part.store.action_spec, spec)
    game, remark = _game(parts, spec)
    total = sum(part.store.num_episodes for part in parts)
    with counted("merge", total, "episodes") as show, whole_folder(out) as temporary:
        store = _created(temporary, parts, spec, game)
        records: list[EpisodeRecord] = []
        for part, old, group in _places(parts):
            episode_id, recording = f"{len(records):06d}", None if group == len(records) else group
            tracks = None
            if part.store.action_spec != spec:
                tracks = in_common(part.store.tracks(old.id), part.store.action_spec, spec)
            records.append(store.copy(episode_id, part.store, old, recording, tracks))
            show(len(records))
        store.list_episodes(records)
    return _report(EpisodeStore.open(out), parts, remark)


def _opened(folders: Sequence[Path]) -> list[_Part]:
    if len(folders) < 2:
        raise InputError("one store is named; expected two or more", hint="ahriuwu data merge A B --out C")
    parts: list[_Part] = []
    for folder in folders:
        store = EpisodeStore.open(folder)
        for other in (part.store for part in parts):
            if other.fingerprint == store.fingerprint:
                raise InputError(f"{folder} is the same store as {other.folder}", hint="name each store once")
            if other.frame_spec != store.frame_spec:
                pair = [_frames(each) for each in (other, store)]
                raise InputError(
                    f"{other.folder} has {pair[0]}; {folder} has {pair[1]}",
                    hint="record or import one of them again with the same data.height, data.width and data.fps",
                )
        part = _Part(store)
        for record in store.episodes:
            part.steps += record.num_steps
            part.labelled += int(store.tracks(record.id).action_valid.sum())
        parts.append(part)
    if not any(part.steps for part in parts):
        raise InputError("the stores have no episodes", hint="record or import some first")
    return parts


def _frames(store: EpisodeStore) -> str:
    frame = store.frame_spec
    return f"frames {frame.height}x{frame.width} at {frame.fps:g} per second"


def _places(parts: Sequence[_Part]) -> list[tuple[_Part, EpisodeRecord, int]]:
    """The episodes in order, each with the number by which its split is drawn."""
    shared = Counter(
        key for part in parts for key in {_known_as(part, record) for record in part.store.episodes} - {None}
    )
    numbers: dict[Hashable, int] = {}
    seen: dict[tuple[str, ...], int] = {}
    found: list[tuple[_Part, EpisodeRecord, int]] = []
    for place, part in enumerate(parts):
        for record in part.store.episodes:
            film = record.video.sha256 if record.video else ""
            content = (part.store.action_spec.model_dump_json(), record.sha256, film)  # columns are not in the files
            if seen.setdefault(content, place) != place:
                part.repeated += 1
                continue
            known = _known_as(part, record)
            key = known if known is not None and shared[known] > 1 else (place, record.number)
            found.append((part, record, numbers.setdefault(key, len(found))))
    return found


def _known_as(part: _Part, record: EpisodeRecord) -> Hashable:
    """What makes a recording the same as one in another store; None where nothing does."""
    if record.origin is not None:
        return record.origin.content
    return (part.store.env, record.policy, record.seed) if part.store.env else None


def _game(parts: Sequence[_Part], spec: ActionSpec) -> tuple[EpisodeStore | None, list[str]]:
    """A store whose game is that of all; None where there is none, and then why, in words."""
    named = [part.store for part in parts if part.store.env]
    if not named:
        return None, []
    if any(recorded_game(store) != recorded_game(named[0]) for store in named):
        reason = f"they are of different games: {', '.join(dict.fromkeys(store.env for store in named))}"
    elif not same_but_for_words(named[0].action_spec, spec):
        reason = f"{named[0].env} does not take the actions of all"
    else:
        return named[0], []
    return None, [f"no game can be played with what is learned from it: {reason}"]


def _created(folder: Path, parts: Sequence[_Part], spec: ActionSpec, game: EpisodeStore | None) -> EpisodeStore:
    first = parts[0].store
    filmed = any(record.video for part in parts for record in part.store.episodes)
    return EpisodeStore.create(
        folder,
        spec,
        first.frame_spec,
        game.env if game else "",
        game.env_options if game else {},
        heldout_fraction=first.split_rule.fraction,
        split_seed=first.split_rule.seed,
        config=game.header.config if game else {},
        storage="video" if filmed else "raw",
        merged_from=[
            MergedStore(fingerprint=part.store.fingerprint, env=part.store.env, episodes=part.store.num_episodes)
            for part in parts
        ],
    )


def _report(store: EpisodeStore, parts: Sequence[_Part], remark: Sequence[str]) -> Report:
    notes = list(remark)
    for part in parts:
        if part.lost:
            notes.append(
                f"{part.name}: {part.lost:,} labelled steps are unlabelled now, for want of "
                f"{', '.join(part.lacks)} (an action is known as a whole or not at all)"
            )
        elif part.lacks:
            notes.append(f"{part.name}: no step is labelled, and none is in the merged store")
        if part.repeated:
            notes.append(f"{part.name}: {part.repeated} episodes are in a store before it, and are in it once")
    rule = store.split_rule
    notes.append(f"the split is drawn anew: {rule.fraction:g} of the recordings held out, seed {rule.seed}")
    report = describe(store, f"Merged {len(parts)} stores: {store.folder}", notes)
    rows = [
        [part.name, f"{part.store.num_episodes - part.repeated:,}", f"{part.steps:,}", f"{part.labelled:,}",
         f"{part.labelled - part.lost:,}", ", ".join(part.lacks) or "-"]
        for part in parts
    ]  # fmt: skip
    columns = ("store", "episodes", "steps", "labelled there", "labelled here", "lacks")
    said: list[dict[str, Any]] = [
        {
            "folder": part.name,
            "fingerprint": part.store.fingerprint,
            "episodes": part.store.num_episodes,
            "repeated": part.repeated,
            "steps": part.steps,
            "labelled": part.labelled,
            "labels_lost": part.lost,
            "lacks": list(part.lacks),
        }
        for part in parts
    ]
    return replace(report, tables=[Table(columns, rows)], data=report.data | {"merged": said})
