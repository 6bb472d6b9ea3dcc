"""The truth about time: which frames are kept, and what was done between one of them and the next.

Shapes: N frames of a recording, F = T + 1 kept ones of a piece, T steps between them, M entries of a track, D columns.

Frames are chosen by their times, never by stride. From a piece's first frame on there is a tick every 1/fps seconds; at
each the newest frame is kept that was shown by then, give or take half of what lies between two frames of the recording
or of the run, whichever is less. A frame that is still shown at the next tick is kept once more, with the tick's time.

What was done in a step is what a track says from the time of one kept frame on up to that of the next one, without it;
what came back with a frame (rewards, events) is what happened after the frame before it up to and including it.

Decision: times of a track that are next to that of a kept frame (SNAP seconds or SNAP_SHARE of a step) are taken to be
equal to it: logs and containers round to milliseconds each in their own way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ahriuwu_cli.core.specs import ActionComponent, Aggregate
from ahriuwu_cli.sources.imports.protocol import Happenings, Rows, Switch, Switches, Track

SNAP = 0.002
SNAP_SHARE = 0.05


@dataclass(frozen=True)
class Kept:
    """The frames of one piece that are kept.

    Attributes:
        numbers: of the recording's frames, (F,) int64, not falling.
        times: (F,) float64 seconds, rising.
        repeated: how often a frame is kept once more, because none came in time.
        dropped: frames that came too close to the next one to be kept, where the run is not slower than
            the recording; in a slower run every frame between is left out on purpose, and none is counted.
        late: kept frames that were shown more than half a frame of the recording away from their tick.
    """

    numbers: np.ndarray
    times: np.ndarray
    repeated: int
    dropped: int
    late: int


def usual_interval(times: np.ndarray) -> float:
    """Seconds from one frame to the next, as a rule."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def pieces(times: np.ndarray, gap: float) -> Iterator[range]:
    """Frames (N,) without a break: none is more than `gap` seconds after the one before it, nor before it."""
    steps = np.diff(times)
    breaks = (np.flatnonzero((steps > gap) | (steps <= 0)) + 1).tolist()
    for start, stop in zip([0, *breaks], [*breaks, len(times)], strict=True):
        yield range(start, stop)


def keep(times: np.ndarray, fps: float, *, keep_last: bool = False) -> Kept:
    """Choose frames of one piece (N,) for a run of `fps` frames per second.

    Args:
        times: rising.
        fps: of the run.
        keep_last: also the last one, whenever it comes: the end of a game must be seen.
    """
    step, interval = 1 / fps, usual_interval(times)
    slack = 0.5 * min(step, interval or step)
    span = times[-1] - times[0]
    ticks = times[0] + np.arange(int(np.floor(span * fps + 0.5 * min(1.0, interval * fps))) + 1) * step
    numbers = np.searchsorted(times, ticks + slack, side="right") - 1
    numbers[0] = 0
    again = np.concatenate([[False], np.diff(numbers) == 0])
    if keep_last and numbers[-1] != len(times) - 1:
        numbers, again = np.append(numbers, len(times) - 1), np.append(again, False)
        ticks = np.append(ticks, times[-1])
    kept_times = np.where(again, ticks, times[numbers])
    slower = interval > 0 and step > 1.5 * interval
    return Kept(
        numbers=numbers,
        times=kept_times,
        repeated=int(again.sum()),
        dropped=0 if slower else len(times) - len(np.unique(numbers)),
        late=int((np.abs(times[numbers] - ticks)[~again] > 0.5 * (interval or step)).sum()),
    )


# ---------------------------------------------------------------- tracks


def snapped(times: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Times (M,) with those next to an edge (F,) moved to it."""
    if not len(times):
        return times
    usual = usual_interval(edges)
    after = np.clip(np.searchsorted(edges, times), 1, len(edges) - 1)
    nearest = np.where(times - edges[after - 1] <= edges[after] - times, edges[after - 1], edges[after])
    return np.where(np.abs(times - nearest) <= max(SNAP, SNAP_SHARE * usual), nearest, times)


def actions(track: Track, part: ActionComponent, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What was done in each step: the columns of one component (T, D) float32, and where they are known (T,) bool."""
    rule = part.aggregate or "last"
    if isinstance(track, Switches):
        columns = [_switched(switch, rule, edges) for switch in track.switches]
        return np.stack(columns, axis=1).astype(np.float32), np.ones(len(edges) - 1, bool)
    if isinstance(track, Happenings):
        return _happened(track, rule, edges), np.ones(len(edges) - 1, bool)
    return _held(track, rule, edges)


def arrived(track: Happenings, edges: np.ndarray) -> np.ndarray:
    """What came back with each frame but the first: sums (T,) float32 over (edge, next edge]."""
    times = snapped(track.times, edges)
    place = np.searchsorted(edges, times, side="left")  # of the frame that it came with
    inside = (place >= 1) & (place < len(edges))
    sums = np.bincount(place[inside] - 1, track.values[inside, 0].astype(np.float64), len(edges) - 1)
    return sums.astype(np.float32)


def known(spans: Sequence[tuple[float, float]], edges: np.ndarray) -> np.ndarray:
    """Steps (T,) that no span of unknown actions reaches into."""
    fine = np.ones(len(edges) - 1, bool)
    for start, stop in spans:
        fine &= (edges[1:] <= start) | (edges[:-1] >= stop)
    return fine


def _switched(switch: Switch, rule: Aggregate, edges: np.ndarray) -> np.ndarray:
    """Whether a switch was down in each step (T,) bool."""
    times = snapped(switch.times, edges)
    state = np.concatenate([[switch.before], switch.down]).astype(bool)  # before the first change, after each
    at_end: np.ndarray = state[np.searchsorted(times, edges[1:], side="left")]
    if rule == "last":
        return at_end
    first, stop = np.searchsorted(times, edges[:-1], side="right"), np.searchsorted(times, edges[1:], side="left")
    at_start = state[first]
    if rule == "any":
        downs = np.concatenate([[0], np.cumsum(switch.down)])
        begun = np.searchsorted(times, edges[:-1], side="left")  # what goes down and up right at the frame counts
        return np.asarray(at_start | (downs[stop] > downs[begun]))
    # seconds that it was down up to each change, and in between
    marks = np.concatenate([[min(edges[0], times[0] if len(times) else edges[0])], times])
    total = np.concatenate([[0.0], np.cumsum(np.diff(marks) * state[:-1])])
    at = total[first] + (edges[:-1] - marks[first]) * at_start
    to = total[stop] + (edges[1:] - marks[stop]) * state[stop]
    return np.asarray((to - at) >= 0.5 * np.diff(edges) - 1e-9)


def _happened(track: Happenings, rule: Aggregate, edges: np.ndarray) -> np.ndarray:
    """What happened in each step (T, D) float32; zero where nothing did."""
    times = snapped(track.times, edges)
    first, stop = np.searchsorted(times, edges[:-1], side="left"), np.searchsorted(times, edges[1:], side="left")
    values = track.values.astype(np.float64)
    number = (stop - first)[:, None]
    if rule in ("last", "mode"):
        padded = np.concatenate([np.zeros((1, values.shape[1])), values])
        return np.where(number > 0, padded[stop], 0).astype(np.float32)
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    inside = sums[stop] - sums[first]  # exact for whole numbers and for one entry a step, see below
    single = (number == 1)[:, 0]
    inside[single] = values[first[single]]
    if rule == "any":
        strong = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values != 0, axis=0)])
        inside = (strong[stop] - strong[first] > 0).astype(np.float64)
    elif rule == "mean":
        inside = inside / np.maximum(number, 1)
    return np.asarray(inside, np.float32)


def _held(track: Rows, rule: Aggregate, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What rows say of each step (T, D) float32, and where all rows that reach into it are known (T,) bool."""
    steps, times = len(edges) - 1, snapped(track.times, edges)
    out = np.zeros((steps, track.values.shape[1]), np.float32)
    if not len(times):
        return out, np.zeros(steps, bool)
    first = np.searchsorted(times, edges[:-1], side="right") - 1  # the row that holds at the start
    stop = np.searchsorted(times, edges[1:], side="left")
    covered = first >= 0
    first = np.maximum(first, 0)
    fine = np.ones(len(times), bool) if track.valid is None else track.valid
    bad = np.concatenate([[0], np.cumsum(~fine)])
    valid = covered & (stop > first) & (bad[stop] == bad[first])
    begun = np.maximum(np.searchsorted(times, edges[:-1], side="left"), first)  # rows that begin in the step
    single = valid & (stop - first == 1) & (begun == first)
    out[single] = track.values[first[single]]
    for step in np.flatnonzero(valid & ~single):
        rows = slice(first[step], stop[step])
        if rule == "sum":
            values = track.values[begun[step] : stop[step]].astype(np.float64).sum(axis=0)
        elif rule == "last" or stop[step] - first[step] == 1:
            values = track.values[stop[step] - 1]
        elif rule == "any":
            values = (track.values[rows] != 0).any(axis=0)
        else:
            bounds = np.concatenate([[edges[step]], times[first[step] + 1 : stop[step]], [edges[step + 1]]])
            values = _weighed(track.values[rows], np.diff(bounds), rule)
        out[step] = values
    return out, valid


def _weighed(values: np.ndarray, seconds: np.ndarray, rule: Aggregate) -> np.ndarray:
    """Values (n, D) that held for (n,) seconds as one (D,): the mean, or what held longest, the first of equals."""
    if rule == "mean":
        mean: np.ndarray = (values.astype(np.float64) * seconds[:, None]).sum(axis=0) / seconds.sum()
        return mean
    out = np.empty(values.shape[1])
    for column in range(values.shape[1]):
        found, first, which = np.unique(values[:, column], return_index=True, return_inverse=True)
        held = np.bincount(which, seconds)
        best = np.flatnonzero(held >= held.max() - 1e-9)
        out[column] = found[best[np.argmin(first[best])]]
    return out
