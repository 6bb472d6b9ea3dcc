"""`ahriuwu data lag`: how many steps actions are noted too early or too late, measured, and written into a run.toml.

Frames t and t+1 tell the action that was taken at t. From the pair it is guessed what was noted at t + shift, at every
shift: where that goes best, there the action of t is noted. Shift +2: actions are noted two steps after they were
taken, so they are to be taken to come two steps earlier, and `data.source.lag` is negative.

What a player does also follows from what he sees: one who never errs can be told as well some steps ahead. Steps at
which the action changes weigh most; where that does not part the shifts, it is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ahriuwu_cli.core.errors import AhriuwuError
from ahriuwu_cli.core.progress import counted
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.episodes.config import LONGEST_LAG
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.lag.applying import apply_lag, imported_lag, require_changeable
from ahriuwu_cli.sources.lag.curve import draw_curve
from ahriuwu_cli.sources.lag.probe import Scores, fit_and_score
from ahriuwu_cli.sources.lag.stretches import Amount, Pairs, draw
from ahriuwu_cli.sources.lag.verdict import Verdict, judge, signed
from ahriuwu_cli.sources.portrait import require_drawable
from ahriuwu_cli.sources.telling import percent


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        amount: what is read.
        steps: of each of the two fits, at most.
    """

    amount: Amount
    steps: int


FULL = Effort(Amount(pairs=16_384, length=128), steps=300)
SHORT = Effort(Amount(pairs=4096, length=64), steps=70)
"""At the end of an import: about ten seconds."""


@dataclass(frozen=True)
class Lag:
    """What a store's lag is.

    Attributes:
        verdict: the shifts, and which is right.
        noted: seconds by which the store's import took actions to come later than they are noted.
        fps: frames per second of the store.
        pairs: what it was measured on.
        scores: by unit.
    """

    verdict: Verdict
    noted: float
    fps: float
    pairs: Pairs
    scores: Scores

    @property
    def seconds(self) -> float | None:
        """What `data.source.lag` should be; None where it cannot be told."""
        shift = self.verdict.shift
        return None if shift is None else self.at(shift)

    @property
    def settable(self) -> float | None:
        """The same; None also where it is longer than a config takes."""
        return None if self.seconds is None or abs(self.seconds) > LONGEST_LAG else self.seconds

    def at(self, shift: int) -> float:
        """What `data.source.lag` should be if the right shift is this one."""
        return round(self.noted - shift / self.fps, 6) + 0.0  # no minus before a zero


def measure(store: EpisodeStore, effort: Effort, seed: int, progress: Callable[[int], None]) -> Lag:
    """Measure the lag of a store.

    Args:
        store: two or more episodes.
        effort: how much is read and fitted.
        seed: of what is drawn, of the fits and of the intervals.
        progress: told how much of 1,000 is done.

    Raises:
        DataError: there is not enough to measure on.
        ArtifactError: an episode cannot be read.
    """
    pairs = draw(store, effort.amount, seed, lambda share: progress(round(200 * share)))
    scores = fit_and_score(pairs, effort.steps, seed, lambda share: progress(200 + round(800 * share)))
    return Lag(judge(scores, seed), imported_lag(store) or 0.0, store.frame_spec.fps, pairs, scores)


def after_import(store: EpisodeStore, seed: int) -> tuple[list[str], dict[str, Any] | None]:
    """Measure the lag of a store that was just imported, in short: what is to be told, and the figures.

    Never fails: an import is done, whatever is found of its lag.
    """
    try:
        with counted("data import: action lag", 1000, "parts of the work") as show:
            found = measure(store, SHORT, seed, show)
    except AhriuwuError as error:
        return [f"action lag was not looked at: {error.message}"], None
    notes = [f"action lag, looked at in short: best shift {in_words(found)}"]
    if found.verdict.shift:
        notes.append(
            f"warning: data.source.lag is {found.noted:g}, and {found.seconds:g} would be right by this; "
            f"`ahriuwu data lag {store.folder}` measures it with more care"
        )
    return notes, facts(found)


def lag(folder: Path, config: Path | None, png: Path | None, seed: int) -> Report:
    """Measure a store's lag, and write it into a run's config.

    Args:
        folder: the store.
        config: a run.toml whose `data.source.lag` is set where the lag can be told; None for none.
        png: file for a picture of it.
        seed: see `measure`.

    Raises:
        InputError: nothing is there, `png` is no name of a picture, or the store was not imported: no lag is to be set.
        ConfigError: the run.toml is none, or is written in a way that this cannot change.
        DataError: there is not enough to measure on.
        ArtifactError: it is no readable episode store.
        StorageError: a file cannot be written.
    """
    store = EpisodeStore.open(folder)
    if png is not None:
        require_drawable(store, png)
    if config is not None:
        require_changeable(store, config)
    with counted("data lag", 1000, "parts of the work") as show:
        found = measure(store, FULL, seed, show)
    notes = [_basis(found), f"best shift: {in_words(found)}"]
    if png is not None:
        draw_curve(png, found.verdict, found.at, f"{folder}: {in_words(found)}")
        notes.append(f"picture: {png}")
    notes += _next(store, found, config)
    rows = [
        [
            signed(each.shift),
            f"{found.at(each.shift):.3f}",
            *(_percent(value) for value in (each.explained, each.low, each.high, each.accuracy, each.trivial)),
            _percent(each.best),
        ]
        for each in found.verdict.shifts
    ]
    columns = ("shift", "lag s", "explained", "from", "to", "right", "trivial guess", "best in")
    applied = str(config) if config is not None and found.settable is not None else None
    data = {"folder": str(folder), **facts(found), "applied": applied}
    return Report(f"Action lag of {folder}", columns, rows, data, notes)


def facts(found: Lag) -> dict[str, Any]:
    """All figures, for `--json`."""
    verdict, scores = found.verdict, found.scores
    loss, base = scores.loss.sum(axis=0), scores.trivial_loss.sum(axis=0)  # (S, P)
    by_part = 1 - loss / np.where(base > 0, base, np.nan)
    return {
        "shift": verdict.shift,
        "leading": verdict.leading,
        "reason": verdict.reason or None,
        "lag": found.seconds,
        "imported_with": found.noted,
        "fps": found.fps,
        "pairs": len(found.pairs.first),
        "episodes": found.pairs.episodes,
        "units": len(scores.loss),
        "shifts": [{**asdict(each), "lag": found.at(each.shift)} for each in verdict.shifts],
        "parts": [
            {"name": part.name, "classes": len(part.values), "explained": by_part[:, place].tolist()}
            for place, part in enumerate(found.pairs.parts)
        ],
    }


def in_words(found: Lag) -> str:
    """The verdict in a line."""
    shift = found.verdict.shift
    if shift is None:
        return f"cannot tell: {found.verdict.reason}"
    if shift == 0:
        return "0, actions are noted at the step at which they are taken"
    steps = "1 step" if abs(shift) == 1 else f"{abs(shift)} steps"
    when = "after" if shift > 0 else "before"
    return f"{signed(shift)}, actions are noted {steps} ({abs(shift) / found.fps:.3g} s) {when} they are taken"


def _percent(value: float) -> str:
    return percent(value if math.isfinite(value) else None)


def _basis(found: Lag) -> str:
    units = "episodes" if found.pairs.by_episode else "stretches of them"
    names = [part.name for part in found.pairs.parts]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (
        f"{len(found.pairs.first)} pairs of frames of {found.pairs.episodes} episodes, fitted on training episodes and "
        f"tried on others; 95 % intervals over {len(found.scores.loss)} {units}; guessed: {', '.join(names[:5])}{more}"
    )


def _next(store: EpisodeStore, found: Lag, config: Path | None) -> list[str]:
    """What is done about it, or is to be done."""
    if config is not None and found.settable is not None:
        return apply_lag(store, config, found.settable)
    if config is not None:
        beyond = f": {found.seconds:g} s is beyond {LONGEST_LAG:g}" if found.seconds is not None else ""
        return [f"{config} is left as it is{beyond}"]
    if not found.verdict.shift:
        return []
    if imported_lag(store) is None:
        return ["this store was not imported: correct what recorded it"]
    return [
        f"imported with data.source.lag = {found.noted:g}; it should be {found.seconds:g} "
        "(--apply writes it into the run.toml)"
    ]
