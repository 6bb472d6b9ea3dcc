"""What is said of each frame of an episode: the time, the action taken on seeing it, what came back with it.

Shapes: T steps, T+1 frames, A = ActionSpec.dim, L lines of a caption.

Alignment as in episodes/alignment.py: at frame t stand action t, which was taken on seeing it, and reward t-1 and the
events of step t-1, which arrived together with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ahriuwu_cli.core.pictures.captions import Line, Span, broken, line_width, shortened
from ahriuwu_cli.core.pictures.style import BACKGROUND, NEUTRAL_COLOUR, TRACK_COLOUR, Colour
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.episodes.actions import component_range
from ahriuwu_cli.episodes.episode import Tracks
from ahriuwu_cli.episodes.labels import choice_names, column_names

UNKNOWN = "unknown"
NONE = "-"

UNLIT: Colour = (150, 154, 164)
LIT: Colour = (245, 196, 66)
GOOD: Colour = (96, 200, 120)
BAD: Colour = (235, 100, 90)
DOUBT: Colour = (200, 130, 220)

NAMED_CHOICES = 12  # more choices of a categorical component, and only the one that was made is named
NAMED_SWITCHES = 48
NAMED_NUMBERS = 16
NAME_WIDTH = 96  # pixels of the column with the names of components


@dataclass(frozen=True)
class Moment:
    """One frame of an episode.

    Attributes:
        frame: its number t.
        seconds: since the first frame of the episode.
        action: (A,) float32 taken on seeing it; None where it is not known, and at the last frame of the episode.
        is_last: it is the last frame of the episode, at which no action is taken.
        reward: what arrived with it, reward t-1; None at frame 0.
        gathered: rewards up to and with it.
        events: what arrived with it and was not zero, by name.
        ended: how the episode ended on reaching it: "terminal", "truncated", both, or empty.
    """

    frame: int
    seconds: float
    action: np.ndarray | None
    is_last: bool
    reward: float | None
    gathered: float
    events: dict[str, float]
    ended: str


def moments(tracks: Tracks, start: int, stop: int) -> list[Moment]:
    """The moments of frames `start` to `stop` - 1 of an episode."""
    gathered = np.concatenate([[0.0], np.cumsum(tracks.rewards, dtype=np.float64)])  # (T+1,)
    ends = (("terminal", tracks.terminals), ("truncated", tracks.truncations))
    return [
        Moment(
            frame=frame,
            seconds=float(tracks.timestamps[frame] - tracks.timestamps[0]),
            action=tracks.actions[frame] if frame < tracks.num_steps and tracks.action_valid[frame] else None,
            is_last=frame == tracks.num_steps,
            reward=float(tracks.rewards[frame - 1]) if frame else None,
            gathered=float(gathered[frame]),
            events={n: float(v[frame - 1]) for n, v in tracks.events.items() if frame and v[frame - 1]},
            ended=" ".join(name for name, flags in ends if frame and flags[frame - 1]),
        )
        for frame in range(start, stop)
    ]


class Wording:
    """Puts moments into words and captions, by the names that an action spec has for its parts."""

    def __init__(self, spec: ActionSpec) -> None:
        self._parts = [(part, spec.slices()[part.name], _names(part)) for part in spec.components]

    def action(self, moment: Moment) -> dict[str, str]:
        """By component: the choice made, the switches held, the numbers; `unknown`, or `-` where none is taken."""
        return {
            part.name: _in_words(part, None if moment.action is None else moment.action[columns], names, moment.is_last)
            for part, columns, names in self._parts
        }

    def short(self, moment: Moment) -> tuple[str, str]:
        """The action in one line of text, and what came with the frame in another."""
        words = list(self.action(moment).values())
        said = words[:1] if moment.action is None else [word for word in words if word != NONE]
        return ", ".join(said) or NONE, "  ".join(_came(moment))

    def caption(self, moment: Moment, title: str, width: int) -> list[Line]:
        """L lines, as many for each moment, at most `width` pixels wide where names allow it."""
        spans = [_reward(moment.reward), Span(f"return {moment.gathered:g}", NEUTRAL_COLOUR)]
        spans += [_lit(f"{name} {value:g}", LIT) for name, value in moment.events.items()]
        spans += [_lit(moment.ended, BAD)] if moment.ended else []
        lines: list[Line] = [title, [_heading("reward"), *_fitting(spans, width - NAME_WIDTH)]]
        for part, columns, names in self._parts:
            row = None if moment.action is None else moment.action[columns]
            lines += _part_lines(part, row, names, moment.is_last, width)
        return lines


def _reward(reward: float | None) -> Span:
    if not reward:
        return Span(NONE if reward is None else "0", NEUTRAL_COLOUR)
    return _lit(f"{reward:+g}", GOOD if reward > 0 else BAD)


def _came(moment: Moment) -> list[str]:
    """What arrived with a frame, in words."""
    reward = [f"reward {moment.reward:+g}"] if moment.reward else []
    return [*reward, *(f"{name} {value:g}" for name, value in moment.events.items()), *filter(None, [moment.ended])]


def _names(part: ActionComponent) -> list[str]:
    return choice_names(part) if part.type == "categorical" else column_names(part)


def _in_words(part: ActionComponent, row: np.ndarray | None, names: list[str], is_last: bool) -> str:
    if row is None:
        return NONE if is_last else UNKNOWN
    if part.type == "categorical":
        return names[int(row[0])]
    if part.type == "binary":
        return " ".join(name for name, value in zip(names, row, strict=True) if value) or NONE
    decimals = min(2, _decimals(part))
    return " ".join(f"{value:+.{decimals}f}" for value in row)


def _decimals(part: ActionComponent) -> int:
    """So many that a thousandth of the range shows, and the text is as long whatever the number."""
    bottom, top = component_range(part)
    return min(9, max(0, 3 - math.ceil(math.log10(max(abs(bottom), abs(top), 1e-9)))))


# ---------------------------------------------------------------- captions


def _part_lines(
    part: ActionComponent, row: np.ndarray | None, names: list[str], is_last: bool, width: int
) -> list[Line]:
    """The lines of one component, as many whatever the action."""
    if part.type == "continuous":
        lines = _gauges(part, row, names, width)
    elif len(names) <= (NAMED_CHOICES if part.type == "categorical" else NAMED_SWITCHES):
        held = np.zeros(len(names), bool)
        if row is not None:
            held = np.arange(len(names)) == int(row[0]) if part.type == "categorical" else row > 0
        spans = [_lit(n, LIT) if on else _dark(n) for n, on in zip(names, held, strict=True)]
        lines = broken([_heading(part.name), *spans], width, NAME_WIDTH)
    else:
        text = shortened(_in_words(part, row, names, is_last), width - NAME_WIDTH)
        lines = [[_heading(part.name), Span(text, LIT)]]
    if row is None:
        first = [_heading(part.name), Span(NONE, NEUTRAL_COLOUR) if is_last else _lit(UNKNOWN, DOUBT)]
        lines = [first, *([] for _ in lines[1:])]
    return [*lines]


def _gauges(part: ActionComponent, row: np.ndarray | None, names: list[str], width: int) -> list[list[Span]]:
    """Numbers with a bar that says where each lies in its range, in columns."""
    bottom, top = component_range(part)
    values = np.zeros(part.dim) if row is None else row.astype(np.float64)
    shown = names[:NAMED_NUMBERS]
    named = shown if part.dim > 1 or part.labels else [""]
    decimals = _decimals(part)
    widest = max(f"{bottom:+.{decimals}f}", f"{top:+.{decimals}f}", key=line_width)
    column = max(line_width([Span(name, gauge=0.0), Span(widest)]) for name in named) + 12
    per_line = max(1, (width - NAME_WIDTH) // column)
    lines = []
    for first in range(0, len(shown), per_line):
        line = [_heading(part.name if first == 0 else "")]
        for place in range(first, min(first + per_line, len(shown))):
            share = float(np.clip((values[place] - bottom) / (top - bottom), 0, 1))
            end = NAME_WIDTH + (place - first + 1) * column
            line += [Span(named[place], LIT, gauge=share), Span(f"{values[place]:+.{decimals}f}", column=end)]
        lines.append(line)
    if len(names) > len(shown):
        lines.append([_heading(""), Span(f"and {len(names) - len(shown)} more", NEUTRAL_COLOUR)])
    return lines


def _fitting(spans: Sequence[Span], width: int) -> list[Span]:
    """As many of the spans as fit, with a mark where some do not."""
    kept = list(spans)
    while len(kept) > 1 and line_width([*kept, Span("...")]) > width:
        kept.pop()
    return kept if len(kept) == len(spans) else [*kept, Span("...")]


def _heading(name: str) -> Span:
    return Span(shortened(name, NAME_WIDTH - 10), NEUTRAL_COLOUR, column=NAME_WIDTH)


def _lit(text: str, colour: Colour) -> Span:
    return Span(text, BACKGROUND, colour)


def _dark(text: str) -> Span:
    return Span(text, UNLIT, TRACK_COLOUR)
