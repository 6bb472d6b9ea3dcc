"""From one recording to the episodes that are cut from it: its pieces without a gap, brought to the run's frame rate.

Shapes: F kept frames of a piece, T = F - 1 steps, H x W frame size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ahriuwu_cli.core.specs import ActionSpec, FrameSpec
from ahriuwu_cli.episodes.actions import ActionRange, offence
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.episode import Tracks
from ahriuwu_cli.episodes.frames import FrameTransform
from ahriuwu_cli.episodes.manifest import SplitRule
from ahriuwu_cli.episodes.split import split_of
from ahriuwu_cli.sources.imports import clock
from ahriuwu_cli.sources.imports.clock import Kept
from ahriuwu_cli.sources.imports.protocol import Happenings, Recorded, RecordingError, Rows, Track

AT_ONCE = 64
"""Frames that are handed over together."""
SHORTEST = 2
"""Frames of a piece; of fewer no episode can be made."""


@dataclass(frozen=True)
class Piece:
    """A part of a recording that becomes one episode.

    Attributes:
        tracks: all but its frames.
        kept: which frames of the recording.
        group: parts of one recording with different groups may fall on different sides of the split.
        clipped: steps whose sum of a continuous component was beyond its bounds, and was brought to these.
    """

    tracks: Tracks
    kept: Kept
    group: int
    clipped: int = 0


@dataclass(frozen=True)
class Share:
    """A part of a recording in time, from `start` up to `stop` as shares of it, with its group."""

    start: float
    stop: float
    group: int


WHOLE = (Share(0.0, 1.0, 0),)


def shares_of(rule: SplitRule) -> tuple[Share, ...]:
    """How a recording that is alone is divided in time, so that a store of it alone has both splits.

    It is thought of as as many recordings as a stratum of the split has; neighbours on one side stay together.
    """
    count = math.ceil(1 / min(rule.fraction, 1 - rule.fraction))
    splits = [split_of(number, rule) for number in range(count)]
    starts = [number for number in range(count) if number == 0 or splits[number] != splits[number - 1]]
    return tuple(Share(a / count, b / count, a) for a, b in zip(starts, [*starts[1:], count], strict=True))


class Cutter:
    """Cuts recordings of one source into episodes of one store.

    Args:
        data: settings of the import.
        action: the spec of the store.
        frame: the spec of the store.
    """

    def __init__(self, data: DataSection, action: ActionSpec, frame: FrameSpec) -> None:
        self._data, self._source, self._action, self._frame = data, data.source, action, frame
        self._transform = FrameTransform.of(data)

    def pieces(self, name: str, recorded: Recorded, shares: Sequence[Share] = WHOLE) -> list[Piece]:
        """Episodes of a recording in order: one for each piece without a gap.

        Where shares are given, a recording without a gap is cut into these; of one with gaps each piece is a group.

        Raises:
            RecordingError: a value that its spec does not allow, or nothing that an episode could be made of.
        """
        times = np.asarray(recorded.frames.times, np.float64)
        if not np.isfinite(times).all():
            raise RecordingError(name, f"the time of frame {int(np.argmin(np.isfinite(times)))} is no number")
        self._check(name, recorded)
        delayed = {part: _shifted(track, self._source.lag) for part, track in recorded.actions.items()}
        found: list[Piece] = []
        spans = [span for span in clock.pieces(times, self._source.gap) if len(span) >= SHORTEST]
        for span in spans:
            ended = recorded.terminal and span.stop == len(times)
            kept = clock.keep(times[span.start : span.stop], self._frame.fps, keep_last=ended)
            apart = len(shares) > 1
            cuts = _cuts(len(kept.times), shares) if len(spans) == 1 else [(0, len(kept.times), apart * len(found))]
            for first, stop, group in cuts:
                part = _part(kept, span.start, first, stop)
                last = ended and stop == len(kept.times)
                tracks, clipped = self._tracks(recorded, delayed, part.times, len(found), ended=last)
                found.append(Piece(tracks, part, group, clipped))
        if not found:
            raise RecordingError(name, f"{len(times)} frames without {SHORTEST} in a row; expected a recording of play")
        return found

    def frames(self, name: str, recorded: Recorded, piece: Piece) -> Iterator[np.ndarray]:
        """Frames (n, H, W, 3) uint8 of a piece, in order."""
        numbers, counts = np.unique(piece.kept.numbers, return_counts=True)
        held: list[np.ndarray] = []
        shown = recorded.frames.chosen(numbers.tolist())
        for image, count in zip(shown, counts.tolist(), strict=True):
            held += [self._transform(image, name)] * count
            if len(held) >= AT_ONCE:
                yield np.stack(held)
                held = []
        if held:
            yield np.stack(held)

    def _tracks(
        self, recorded: Recorded, delayed: Mapping[str, Track], times: np.ndarray, number: int, *, ended: bool
    ) -> tuple[Tracks, int]:
        """All but the frames of a piece, and how many steps were clipped."""
        steps, clipped = len(times) - 1, 0
        columns, valid = [], clock.known(recorded.unknown, times)
        for part in self._action.components:
            track = delayed.get(part.name)
            if track is None:
                columns.append(np.zeros((steps, part.dim), np.float32))
                valid[:] = False
            else:
                values, fine = clock.actions(track, part, times)
                if part.aggregate == "sum":
                    inside = values.clip(np.float32(part.low), np.float32(part.high))
                    clipped += int((inside != values).any(axis=1).sum())
                    values = inside
                columns.append(values)
                valid &= fine
        terminals, truncations = np.zeros(steps, bool), np.zeros(steps, bool)
        terminals[-1], truncations[-1] = ended, not ended
        action = np.concatenate(columns, axis=1)
        action[~valid] = 0  # pitfall 18: no unknown action leaves a trace
        reward = recorded.reward
        tracks = Tracks(
            actions=action,
            action_valid=valid,
            rewards=np.zeros(steps, np.float32) if reward is None else clock.arrived(reward, times),
            terminals=terminals,
            truncations=truncations,
            timestamps=times,
            task=recorded.task or self._data.task,
            seed=number,
            policy=self._source.played_by,
            events={event: clock.arrived(track, times) for event, track in recorded.events.items()},
        )
        return tracks, clipped

    def _check(self, name: str, recorded: Recorded) -> None:
        """Every value is one that the spec allows; the first that is not is told with its row."""
        known = {part.name for part in self._action.components}
        strange = sorted(set(recorded.actions) - known)
        if strange:
            raise RecordingError(name, f"actions {', '.join(strange)} are not in the source's action spec")
        for part in self._action.components:
            track = recorded.actions.get(part.name)
            if isinstance(track, Rows):
                _check_rows(name, ActionSpec(components=(part,)), track)
            elif isinstance(track, Happenings) and not np.isfinite(track.values).all():
                raise RecordingError(name, f"action component {part.name!r} is not finite somewhere")
        happened: list[Happenings] = [*recorded.events.values(), *([recorded.reward] if recorded.reward else [])]
        for track in happened:
            if not np.isfinite(track.values).all():
                row = int(np.argmin(np.isfinite(track.values).all(axis=1)))
                raise RecordingError(name, f"reward or event number {row + 1} is not finite")


def _check_rows(name: str, spec: ActionSpec, track: Rows) -> None:
    fine = ActionRange(spec).inside(track.values)
    if track.valid is not None:
        fine |= ~track.valid[:, None]
    if fine.all():
        return
    row, column = (int(index) for index in np.argwhere(~fine)[0])
    found, expected = offence(spec, track.values[row], column)
    number = row + 1 if track.numbers is None else int(track.numbers[row])
    raise RecordingError(track.file or name, f"{found}; expected {expected}", row=number)


def _shifted(track: Track, seconds: float) -> Track:
    """The track with all that was done `seconds` later."""
    if not seconds:
        return track
    if isinstance(track, Rows):
        return Rows(track.times + seconds, track.values, track.valid, track.file, track.numbers)
    if isinstance(track, Happenings):
        return Happenings(track.times + seconds, track.values)
    moved = tuple(type(each)(each.times + seconds, each.down, each.before) for each in track.switches)
    return type(track)(moved)


def _cuts(count: int, shares: Sequence[Share]) -> Sequence[tuple[int, int, int]]:
    """Shares of `count` frames as (first, stop, group); all of them in one where a share would be too short."""
    cuts = [(round(share.start * count), round(share.stop * count), share.group) for share in shares]
    return cuts if min(stop - first for first, stop, _ in cuts) >= SHORTEST else [(0, count, 0)]


def _part(kept: Kept, offset: int, first: int, stop: int) -> Kept:
    """Kept frames `first` to `stop` - 1; counts stay with the first part."""
    whole = first == 0
    return Kept(
        kept.numbers[first:stop] + offset,
        kept.times[first:stop],
        kept.repeated if whole else 0,
        kept.dropped if whole else 0,
        kept.late if whole else 0,
    )
