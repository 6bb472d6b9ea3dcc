"""What a manifest says after episodes have come or were divided anew: the new `StoreInfo`, made of the old one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ahriuwu_cli.episodes.manifest import EpisodeRecord, Skipped, Split, SplitRule, StoreInfo, Unfinished
from ahriuwu_cli.episodes.split import divide, split_of, with_both

Place = TypeVar("Place", EpisodeRecord, Skipped, Unfinished)


def listed(
    info: StoreInfo, new: Sequence[EpisodeRecord], skipped: Sequence[Skipped], planned: Sequence[Unfinished]
) -> StoreInfo:
    """List further episodes, everything once and in order of ids whatever the order in which it came.

    Episodes keep their splits, with one exception: where all were in one split but for one that had to change over
    (`with_both`), that one goes back as soon as others make it unnecessary. What the store has grown from is forgotten
    then.

    Args:
        info: as it is.
        new: episodes that are on disk.
        skipped: episodes that could not be stored.
        planned: episodes of the recording; those before its last one that are neither stored nor skipped become
            `unfinished`.
    """
    old = {record.id: record for record in info.episodes}
    records = _in_order([*({record.id: record for record in new} | old).values()])
    splits = _splits(info, records)
    moved = any(record.id in old and record.split != split for record, split in zip(records, splits, strict=True))
    left_out = _in_order([*{item.id: item for item in (*info.skipped, *skipped)}.values()])
    ended = {*(record.id for record in records), *(item.id for item in left_out)}
    last = max((int(record.id) for record in records), default=-1)
    waiting = {item.id: item for item in (*info.unfinished, *planned)}
    return info.model_copy(
        update={
            "tasks": list(dict.fromkeys(record.task for record in records)),
            "events": list(dict.fromkeys(name for record in records for name in record.events)),
            "episodes": _with_splits(records, splits),
            "skipped": left_out,
            "unfinished": _in_order(
                [item for item in waiting.values() if item.id not in ended and int(item.id) < last]
            ),
            "grown_from": [] if moved else info.grown_from,
        }
    )


def divided(info: StoreInfo, rule: SplitRule) -> StoreInfo:
    """Divide all episodes anew; what the store has grown from is forgotten."""
    splits = divide([record.number for record in info.episodes], rule)
    return info.model_copy(update={"split": rule, "episodes": _with_splits(info.episodes, splits), "grown_from": []})


def _splits(info: StoreInfo, records: Sequence[EpisodeRecord]) -> list[Split]:
    """The splits of `records`; those that are there, divided otherwise than by the store's rule, stay as they are."""
    old, rule = info.episodes, info.split
    if [record.split for record in old] == divide([record.number for record in old], rule):
        return divide([record.number for record in records], rule)
    there = {record.id for record in old}
    splits = [record.split if record.id in there else split_of(record.number, rule) for record in records]
    return with_both(splits, changeable=len(old))


def _in_order(items: Sequence[Place]) -> list[Place]:
    return sorted(items, key=lambda item: int(item.id))


def _with_splits(records: Sequence[EpisodeRecord], splits: Sequence[Split]) -> list[EpisodeRecord]:
    return [
        record if record.split == split else record.model_copy(update={"split": split})
        for record, split in zip(records, splits, strict=True)
    ]
