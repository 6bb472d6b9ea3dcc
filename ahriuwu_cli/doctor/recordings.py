"""The content of an episode store: every file, every value, what a model could learn from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ahriuwu_cli.core.artifact import MADE_BY
from ahriuwu_cli.doctor.checks import Subject
from ahriuwu_cli.doctor.duplicates import Plays
from ahriuwu_cli.doctor.findings import Area, Fault, counted, fault_of, first_few
from ahriuwu_cli.episodes.manifest import EpisodeRecord
from ahriuwu_cli.episodes.store import EpisodeStore


@dataclass
class _Tally:
    """What reading all episodes has shown."""

    faults: list[str] = field(default_factory=list)
    steps: int = 0
    rewarding: int = 0  # episodes with a reward above zero
    still: list[str] = field(default_factory=list)  # episodes in which no frame differs from the first
    plays: Plays = field(default_factory=Plays)


def examine_episodes(area: Area, subject: Subject) -> None:
    """Read every episode of the store and check it against the manifest and the specs."""
    path, config = subject.path, subject.config
    store = None
    with area.guard("fingerprint"):
        store = EpisodeStore.open(path, settle=False)
        area.ok("fingerprint", f"{store.fingerprint}, as recomputed from the manifest")
    if store is None:
        return
    tally = _Tally()
    for record in store.episodes:
        try:
            _take(tally, store, record)
        except Exception as error:  # one damaged file must not hide the state of the others
            tally.faults.append(fault_of(record.file, error))
    size = f"{counted(len(store.episodes), 'episode')}, {counted(tally.steps, 'step')}"
    area.judge(
        "files",
        tally.faults,
        f"{size}; sha256, shapes, ranges and flags as declared",
        "restore the files, or record anew and make what follows again",
    )
    if len(tally.faults) < len(store.episodes):
        _judge_content(area, tally, store, len(store.episodes) - len(tally.faults))
    if store.num_in_journal:
        found = f"{counted(store.num_in_journal, 'episode')} of a recording that runs or was killed, not listed yet"
        area.note("journal", f"{found}; `ahriuwu data info {path}` lists them")
    if store.skipped:
        area.note("skipped", f"{counted(len(store.skipped), 'episode')} could not be stored: {store.skipped[0].reason}")
    played = config is not None and bool(store.env)  # data.episodes says nothing of recordings
    missing = 0 if config is None or not played else config.data.episodes - len(store.episodes) - len(store.skipped)
    if missing > 0:
        area.note(
            "number",
            f"{counted(missing, 'episode')} fewer than data.episodes; "
            f"`{MADE_BY['episodes']} --append --episodes {missing}` adds them",
        )


def _take(tally: _Tally, store: EpisodeStore, record: EpisodeRecord) -> None:
    """Read an episode, see that it is what the manifest says, and what can be learned from it."""
    tracks = store.tracks(record.id)
    tracks.validate(store.action_spec, store.frame_spec)
    for name, found, listed in (
        ("steps", tracks.num_steps, record.num_steps),
        ("total reward", tracks.total_reward, record.total_reward),
    ):
        if found != listed:
            raise Fault(f"{name} {found}, but the manifest lists {listed}")
    moves = tally.plays.take(record, tracks, store.frames(record.id))
    tally.steps += tracks.num_steps
    tally.rewarding += bool((tracks.rewards > 0).any())
    if not moves:
        tally.still.append(record.id)


def _judge_content(area: Area, tally: _Tally, store: EpisodeStore, readable: int) -> None:
    if len(tally.still) == readable:
        area.problem("frames", "no episode has a frame that differs from its first: the recording shows nothing")
    elif tally.still:
        area.note("frames", f"nothing moves in {len(tally.still)} of {readable} episodes ({first_few(tally.still)})")
    else:
        area.ok("frames", f"they change in all {readable} episodes")
    tally.plays.judge(area, store)
    if tally.rewarding:
        area.ok("rewards", f"above zero somewhere in {tally.rewarding} of {readable} episodes")
    else:
        text = "never above zero: behaviour cloning will not know what play is good"
        area.note("rewards", text, 'set agent.relevant = "return" where rewards only punish')
