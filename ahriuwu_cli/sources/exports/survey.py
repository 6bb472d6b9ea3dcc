"""What a store has that a format may not be able to say: found out before anything is written.

Shapes: T steps of an episode, F = T + 1 frames.

No format here holds who played, the seeds and the split: an import names one player and draws the split anew. Every
episode's clock begins at zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.episodes.episode import Tracks
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.imports import clock

EVEN = 1e-6
"""Seconds by which frames of even times may miss their places."""
MICROSECOND = Fraction(1, 1_000_000)
LONGEST_BREAK = 2000.0
"""Seconds between two frames; time stamps of 32 bits in microseconds hold no more."""
USUAL_GAP = 1.0
"""data.source.gap, where nothing else is said: frames further apart are taken for two episodes."""


@dataclass
class Survey:
    """Facts about all episodes of a store.

    Attributes:
        fps: of the store.
        ids: of all episodes, in order.
        events: names of all events.
        tasks: of the episodes, in order of first appearance.
        policies: who played.
        unlabelled: steps whose action is not known.
        steps: of all episodes.
        uneven: ids of episodes whose frames do not come every 1/fps seconds.
        crowded: ids of those that an import at the store's rate would not keep frame by frame.
        late: ids of those whose clock does not begin at zero.
        ends: ids of those that ended both ways, or neither.
        longest: seconds between two frames.
        rounding: seconds by which times are off as 32-bit numbers.
    """

    fps: float
    ids: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    policies: list[str] = field(default_factory=list)
    unlabelled: int = 0
    steps: int = 0
    uneven: list[str] = field(default_factory=list)
    crowded: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    longest: float = 0.0
    rounding: float = 0.0

    @classmethod
    def of(cls, store: EpisodeStore) -> Survey:
        """Look at the tracks of all episodes.

        Raises:
            InputError: there are none, or a break in one is longer than time stamps hold.
            ArtifactError: one is damaged.
        """
        if not store.num_episodes:
            raise InputError(f"{store.folder} has no episodes", hint="record or import some first")
        found = cls(fps=store.frame_spec.fps, events=store.events, tasks=store.tasks)
        found.policies = list(dict.fromkeys(record.policy for record in store.episodes))
        for record in store.episodes:
            found._take(record.id, store.tracks(record.id))
        if found.longest > LONGEST_BREAK:
            raise InputError(
                f"two frames of an episode are {found.longest:g} seconds apart; expected up to {LONGEST_BREAK:g}",
                hint="cut that recording in two when it is imported: data.source.gap",
            )
        return found

    def common_losses(self) -> list[str]:
        """What no format here brings back."""
        said = []
        if len(self.policies) > 1:
            said.append(f"who played is not in it: {', '.join(self.policies)}")
        if self.late:
            said.append(f"times begin at zero in each episode; they did not in {_some(self.late)}")
        if self.ends:
            said.append(
                f"an episode ends in one way: {_some(self.ends)} ended both ways or neither; with a terminal they come "
                "back as ended by the game, without as cut off"
            )
        if self.crowded:
            said.append(
                f"{_some(self.crowded)} have frames closer together or further apart than the rate says: an import at "
                "this rate leaves some out or keeps some twice"
            )
        if len(self.ids) == 1:
            said.append("it is one episode: an import divides it in time, so that both splits have something")
        return said

    def _take(self, episode_id: str, tracks: Tracks) -> None:
        self.ids.append(episode_id)
        times = since_start(tracks)
        self.steps += tracks.num_steps
        self.unlabelled += int((~tracks.action_valid).sum())
        self.longest = max(self.longest, float(np.diff(times).max()))
        self.rounding = max(self.rounding, float(np.abs(times - times.astype(np.float32)).max()))
        terminal = bool(tracks.terminals[-1])
        for said, holds in (
            (self.uneven, np.abs(times - np.arange(len(times)) * float(unit_of(self.fps))).max() > EVEN),
            (self.crowded, not _is_kept(times, self.fps, terminal=terminal)),
            (self.late, tracks.timestamps[0] != 0),
            (self.ends, terminal == bool(tracks.truncations[-1])),
        ):
            if holds:
                said.append(episode_id)


def unit_of(fps: float) -> Fraction:
    """Seconds from one frame to the next, exactly."""
    return 1 / Fraction(fps).limit_denominator(1000)


def since_start(tracks: Tracks) -> np.ndarray:
    """Times of the frames (F,) float64 seconds, the first one zero."""
    return np.asarray(tracks.timestamps - tracks.timestamps[0])


def stamps_of(times: np.ndarray, unit: Fraction) -> np.ndarray:
    """Times (F,) as whole numbers of units (F,) int64, no two alike."""
    stamps = np.rint(times / float(unit)).astype(np.int64)
    return np.maximum.accumulate(stamps - np.arange(len(stamps))) + np.arange(len(stamps))


def ends_of(tracks: Tracks) -> tuple[bool, bool]:
    """Whether the game ended, and whether the episode was cut off: one of them."""
    ended = bool(tracks.terminals[-1])
    return ended, not ended


def _is_kept(times: np.ndarray, fps: float, *, terminal: bool) -> bool:
    kept = clock.keep(times, fps, keep_last=terminal)
    return len(kept.numbers) == len(times) and bool((kept.numbers == np.arange(len(times))).all())


def _some(ids: list[str]) -> str:
    return f"{len(ids)} episodes ({ids[0]} for one)" if len(ids) > 1 else f"episode {ids[0]}"
