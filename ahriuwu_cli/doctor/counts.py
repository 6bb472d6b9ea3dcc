"""Who is in what: frames per episode against the parent, and the split, the same all along the road."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ahriuwu_cli.core.artifact import MADE_BY, Header, Kind
from ahriuwu_cli.core.lineage import has_grown
from ahriuwu_cli.core.specs import LatentSpec
from ahriuwu_cli.doctor.checks import Subject
from ahriuwu_cli.doctor.findings import Area, counted, first_few
from ahriuwu_cli.episodes.alignment import num_latents
from ahriuwu_cli.latents.manifest import latent_count

SPLITS = ("train", "heldout")


def frame_counts(header: Header) -> dict[str, int]:
    """Frames by episode id, as an episodes, latents or packed header says."""
    entries: Sequence[Mapping[str, Any]] = header.info["episodes"]
    if header.kind == "episodes":
        return {entry["id"]: entry["num_steps"] + 1 for entry in entries}
    return {entry["id"]: entry["num_frames"] for entry in entries}


def examine_counts(area: Area, subject: Subject) -> None:
    """Pitfall 13: the latents hold every frame of every episode, the shards every latent."""
    header, headers = subject.header, subject.headers
    mine = frame_counts(header)
    faults: list[str] = []
    parents: list[Kind] = ["episodes", "latents"] if header.kind == "packed" else ["episodes"]
    present = [parent for parent in parents if parent in headers]
    added = 0
    for parent in present:
        theirs = frame_counts(headers[parent])
        if has_grown(header, headers[parent]):  # what was appended comes last
            added = max(added, len(theirs) - len(mine))
            theirs = dict(list(theirs.items())[: len(mine)])
        faults += count_faults(mine, theirs, parent)
    faults += _latent_faults(header)
    fine = f"{sum(mine.values()):,} frames of {counted(len(mine), 'episode')}, as in {' and '.join(present)}"
    if added and not faults:
        area.note("counts", f"{fine} before {counted(added, 'episode')} more came; `{MADE_BY[header.kind]}` adds them")
    elif present:
        area.judge("counts", faults, fine)


def _latent_faults(header: Header) -> list[str]:
    """Pitfall 34: a latent for frame 0 and one for every `stride` frames after it."""
    stride = LatentSpec.model_validate(header.specs["latent"]).stride
    return [
        f"episode {entry['id']} has {latent_count(entry)} latents for {counted(entry['num_frames'], 'frame')}; "
        f"expected {num_latents(entry['num_frames'], stride)}"
        for entry in header.info["episodes"]
        if latent_count(entry) != num_latents(entry["num_frames"], stride)
    ]


def count_faults(mine: Mapping[str, int], theirs: Mapping[str, int], parent: str) -> list[str]:
    """Differences between two sets of frame counts, in words."""
    faults = []
    if lost := sorted(theirs.keys() - mine.keys()):
        faults.append(f"lacks {counted(len(lost), 'episode')} of {parent} ({first_few(lost)})")
    if strange := sorted(mine.keys() - theirs.keys()):
        faults.append(f"has {counted(len(strange), 'episode')} that {parent} lacks ({first_few(strange)})")
    return faults + [
        f"episode {name} has {counted(mine[name], 'frame')}, {theirs[name]} in {parent}"
        for name in sorted(mine.keys() & theirs.keys())
        if mine[name] != theirs[name]
    ]


# ---------------------------------------------------------------- splits


def split_ids(header: Header) -> dict[str, list[str]]:
    """Episode ids by split, in order."""
    entries: Sequence[Mapping[str, Any]] = header.info["episodes"]
    return {split: [entry["id"] for entry in entries if entry["split"] == split] for split in SPLITS}


def examine_split(area: Area, subject: Subject) -> None:
    """Pitfall 7: whole episodes are held out, and the same ones at every stage."""
    header, headers = subject.header, subject.headers
    ids = split_ids(header)
    faults = [f"no {split} episode" for split in SPLITS if not ids[split]]
    if both := sorted(set(ids["train"]) & set(ids["heldout"])):
        faults.append(f"both in train and heldout: {first_few(both)}")
    if twice := sorted(id_ for split in SPLITS for id_, count in Counter(ids[split]).items() if count > 1):
        faults.append(f"listed twice in one split: {first_few(twice)}")
    if "episodes" in headers and header.kind != "episodes":
        faults += _moved(ids["heldout"], _heldout_then(header, headers["episodes"], len(ids["heldout"])))
    hint = "divide the episodes anew with `ahriuwu data split`, then make what follows again"
    fine = f"{len(ids['train'])} train, {len(ids['heldout'])} heldout"
    area.judge("split", faults, fine, hint if header.kind == "episodes" else "")


def examine_tokenizer_split(area: Area, subject: Subject) -> None:
    """Pitfall 7: the tokenizer never saw what is held out now."""
    header, headers = subject.header, subject.headers
    mine: Sequence[str] | None = header.info.get("heldout_episodes", header.info.get("heldout"))
    if "episodes" not in headers or not isinstance(mine, list):
        return
    heldout = _heldout_then(header, headers["episodes"], len(mine))
    later = " then" if has_grown(header, headers["episodes"]) else " now"
    area.judge(
        "split", _moved(mine, heldout), f"trained without the {counted(len(heldout), 'episode')} held out{later}"
    )


def _heldout_then(header: Header, episodes: Header, count: int) -> list[str]:
    """Ids held out when the artifact was made: all of them, or the first `count` of a store that has grown since."""
    heldout = split_ids(episodes)["heldout"]
    return heldout[:count] if has_grown(header, episodes) else heldout


def _moved(mine: Sequence[str], episodes: Sequence[str]) -> list[str]:
    """In words: held out there and not here, and the other way round."""
    faults = []
    if seen := sorted(set(episodes) - set(mine)):
        faults.append(f"held out in episodes but not here: {first_few(seen)}")
    if unseen := sorted(set(mine) - set(episodes)):
        faults.append(f"held out here but not in episodes: {first_few(unseen)}")
    return faults
