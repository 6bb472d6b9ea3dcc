"""The side-car of OWL Control, `inputs.csv`: what was done, and when the video and the game's picture began.

A row is `timestamp,event_type,event_args`, the arguments JSON in quotes; quotes inside are doubled by newer recorders
and left as they are by older ones, so no reader of CSV fits both. Rows may stand out of order. Source: Wayfarer-Labs,
owl-control, its description of the input recording format.

Shapes: M entries of a track.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ahriuwu_cli.sources.imports.desktop_events import BUTTONS, NOTCH, Presses, happenings
from ahriuwu_cli.sources.imports.fields import Entry, parsed, read_rows
from ahriuwu_cli.sources.imports.protocol import RecordingError, Track
from ahriuwu_cli.sources.imports.virtual_keys import LARGEST, key_name

HEADER = b"timestamp,event_type,event_args"
START, END, VIDEO_START, HOOK_START, VIDEO_END = "START", "END", "VIDEO_START", "HOOK_START", "VIDEO_END"
MARKS = (START, VIDEO_START, HOOK_START, VIDEO_END, END)
ARGUMENTS = {
    "KEYBOARD": ("keycode", "pressed"),
    "MOUSE_BUTTON": ("button", "pressed"),
    "MOUSE_MOVE": ("dx", "dy"),
    "SCROLL": ("amount",),
}
"""By type of event, what its arguments are."""
BUTTON_CODES = {1: "left", 2: "right", 4: "middle", 5: "x1", 6: "x2"}
"""Virtual key codes of the mouse's buttons."""
LAST_TIME = 1e11
"""Seconds since 1970, some thousand years on."""
FARTHEST = (1 << 31) - 1
SHOWN = 6


class Inputs:
    """What a side-car says, collected row by row.

    Attributes:
        marks: of MARKS, when each came first, in seconds since 1970.
        last: the latest time of any row; minus infinity before the first one.
    """

    def __init__(self) -> None:
        self.marks: dict[str, float] = {}
        self.last = -math.inf
        self._keys, self._buttons = Presses(), Presses()
        self._moves: list[tuple[float, tuple[float, ...]]] = []
        self._turns: list[tuple[float, tuple[float, ...]]] = []
        self._passed_over: Counter[str] = Counter()

    @classmethod
    def read(cls, path: Path, name: str) -> Inputs:
        """All of a file.

        Raises:
            RecordingError: it is no such file, or a row is not one of it.
        """
        inputs = cls()
        for kind, time, entry in _entries(path, name):
            inputs.add(kind, time, entry)
        return inputs

    def add(self, kind: str, time: float, entry: Entry) -> None:
        """Take the next event."""
        self.last = max(self.last, time)
        if kind in MARKS:
            self.marks.setdefault(kind, time)
        if kind == "KEYBOARD":
            self._keys.change(entry.whole("keycode", 0, 0xFFFF), time, down=entry.flag("pressed"))
        elif kind == "MOUSE_BUTTON":
            self._buttons.change(entry.whole("button", 0, 0xFFFF), time, down=entry.flag("pressed"))
        elif kind == "MOUSE_MOVE":
            moved = entry.whole("dx", -FARTHEST, FARTHEST), entry.whole("dy", -FARTHEST, FARTHEST)
            self._moves.append((time, moved))
        elif kind == "SCROLL":
            self._turns.append((time, (entry.whole("amount", -0x8000, 0x7FFF) / NOTCH,)))
        elif kind == START and (held := entry.entry_or_none("inputs")) is not None:
            self._keys.held(time, frozenset(held.wholes("keyboard", 0, 0xFFFF)))
            self._buttons.held(time, frozenset(held.wholes("mouse", 0, 0xFFFF)))
        elif kind not in MARKS:
            self._passed_over[kind] += 1

    def tracks(self, keys: Sequence[int], zero: float) -> dict[str, Track]:
        """Mouse, wheel and buttons, and keys where there are any.

        Args:
            keys: codes of those that are imported.
            zero: what is taken off all times.
        """
        codes = {name: code for code, name in BUTTON_CODES.items()}
        found: dict[str, Track] = {
            "mouse": happenings(self._moves, 2, zero),
            "wheel": happenings(self._turns, 1, zero),
            "buttons": self._buttons.track([codes[name] for name in BUTTONS], zero),
        }
        return found | ({"keys": self._keys.track(keys, zero)} if keys else {})

    def notes(self, keys: Sequence[int]) -> Iterator[str]:
        """What is to be told, when these keys are imported."""
        others = sorted(code for code in self._keys.seen() - set(keys) if code <= LARGEST)
        if others:
            names = ", ".join(map(key_name, others[:SHOWN]))
            more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
            yield f"keys that are not imported were pressed: {names}{more}"
        gamepad = sum(count for kind, count in self._passed_over.items() if kind.startswith("GAMEPAD"))
        if gamepad:
            yield f"{gamepad} events of a gamepad are passed over; only keyboard and mouse are imported"


def _entries(path: Path, name: str) -> Iterator[tuple[str, float, Entry]]:
    """Type, time and named arguments of every row."""
    row = 0
    for row, content in read_rows(path, name):
        text = _text(content, name, row)
        if row == 1:
            if text.encode() != HEADER:
                raise RecordingError(name, f"it begins with {ascii(text)[:60]}; expected {HEADER.decode()}", row=row)
        elif text:
            parts = text.split(",", 2)
            if len(parts) < len(HEADER.split(b",")):
                raise RecordingError(name, f"{len(parts)} of 3 values; it may be cut short", row=row)
            kind = parts[1].strip()
            yield kind, _time(parts[0], name, row), _arguments(kind, parts[2].strip(), name, row)
    if row == 0:
        raise RecordingError(name, f"it is empty; expected {HEADER.decode()}")


def _text(content: bytes, name: str, row: int) -> str:
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise RecordingError(name, f"it is not UTF-8 text from byte {error.start} of the row on", row=row) from error


def _time(text: str, name: str, row: int) -> float:
    with suppress(ValueError):
        time = float(text)
        if 0 <= time <= LAST_TIME:
            return time
    raise RecordingError(name, f"its time is {ascii(text)[:60]}; expected seconds since 1970", row=row)


def _arguments(kind: str, text: str, name: str, row: int) -> Entry:
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    try:
        values = parsed(text.encode(), name, row)
    except RecordingError:
        if '""' not in text:
            raise
        values = parsed(text.replace('""', '"').encode(), name, row)
    if kind in ARGUMENTS:
        names = ARGUMENTS[kind]
        if not isinstance(values, list) or len(values) != len(names):
            raise RecordingError(name, f"{kind} has {ascii(text)[:60]}; expected [{', '.join(names)}]", row=row)
        values = dict(zip(names, values, strict=True))
    return Entry(values if isinstance(values, dict) else {}, name, row)
