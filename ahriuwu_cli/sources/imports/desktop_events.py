"""Keys, buttons and mouse of a desktop recording, collected message by message and turned into tracks.

The mouse moves by what the device sent (raw events), which is what a game with a captured pointer sees. Where a
recording has none, it moves by how the pointer did.

Shapes: M entries of a track.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.sources.imports.fields import Entry
from ahriuwu_cli.sources.imports.mcap_messages import Message
from ahriuwu_cli.sources.imports.protocol import Happenings, Switch, Switches, Track
from ahriuwu_cli.sources.imports.virtual_keys import LARGEST, key_name

KINDS = frozenset({"KeyboardEvent", "KeyboardState", "MouseEvent", "MouseState", "RawMouseEvent"})
BUTTONS = ("left", "right", "middle", "x1", "x2")
"""In the order of their bits in a raw event: button k goes down by bit 2 k and up by bit 2 k + 1."""
ABSOLUTE, WHEEL = 0x0001, 0x0400
MOUSE_CODES = frozenset(range(8))
"""Virtual key codes of the mouse's buttons, which have their own component."""
NOTCH = 120
"""What the wheel sends for one notch."""
FARTHEST = 1 << 31


class Presses:
    """When each of some switches went down and up."""

    def __init__(self) -> None:
        self._changes: dict[int, list[tuple[float, bool]]] = {}
        self._held: tuple[float, frozenset[int]] | None = None

    def change(self, which: int, time: float, *, down: bool) -> None:
        """One went down or up, or is said to be so once more."""
        self._changes.setdefault(which, []).append((time, down))

    def held(self, time: float, which: frozenset[int]) -> None:
        """Those that are said to be down; the first time counts, from then on changes tell."""
        if self._held is None:
            self._held = time, which

    def seen(self) -> set[int]:
        """All that ever changed or were down."""
        return set(self._changes) | (set() if self._held is None else set(self._held[1]))

    def track(self, chosen: Sequence[int], zero: float = 0.0) -> Switches:
        """A switch for each of `chosen`, `zero` taken off all times."""
        return Switches(tuple(self._switch(which, zero) for which in chosen))

    def _switch(self, which: int, zero: float) -> Switch:
        changes = sorted(self._changes.get(which, ()), key=lambda change: change[0])
        before = bool(changes) and not changes[0][1]  # what goes up first was down
        if self._held is not None and (not changes or self._held[0] <= changes[0][0]):
            before = which in self._held[1]
        times = np.array([time for time, _ in changes], np.float64) - zero
        return Switch(times, np.array([down for _, down in changes], bool), before)


def desktop_action(keys: Sequence[int], farthest: float) -> ActionSpec:
    """The action of a desktop recording: how the mouse and its wheel moved, which buttons and keys were down.

    Args:
        keys: their codes; none: no component for them.
        farthest: counts of the mouse in a step, to either side.
    """
    mouse = ActionComponent(
        name="mouse", type="continuous", dim=2, low=-farthest, high=farthest, labels=("right", "down"), aggregate="sum"
    )
    wheel = ActionComponent(name="wheel", type="continuous", low=-10, high=10, labels=("notches up",), aggregate="sum")
    buttons = ActionComponent(name="buttons", type="binary", dim=len(BUTTONS), labels=BUTTONS, aggregate="any")
    names = tuple(map(key_name, keys))
    pressed = ActionComponent(name="keys", type="binary", dim=max(1, len(keys)), labels=names, aggregate="any")
    return ActionSpec(components=(mouse, wheel, buttons, *([pressed] if keys else [])))


class DesktopEvents:
    """What was done at a desktop.

    Attributes:
        keys: by virtual key code.
    """

    def __init__(self) -> None:
        self.keys = Presses()
        self._raw, self._pointer = _Mouse(), _Mouse()
        self._place: tuple[float, float] | None = None  # of the pointer

    def add(self, message: Message) -> None:
        """Take the next message of KINDS."""
        take = {
            "KeyboardEvent": self._key,
            "KeyboardState": self._key_state,
            "MouseEvent": self._pointer_event,
            "MouseState": self._pointer_state,
            "RawMouseEvent": self._raw_event,
        }
        take[message.kind](message.entry, message.time)

    @property
    def has_raw(self) -> bool:
        """Whether the device itself was listened to."""
        return self._raw.used

    def tracks(self, keys: Sequence[int]) -> dict[str, Track]:
        """Mouse, wheel and buttons, and keys where there are any."""
        mouse = self._raw if self.has_raw else self._pointer
        found: dict[str, Track] = {
            "mouse": happenings(mouse.moves, 2),
            "wheel": happenings(mouse.turns, 1),
            "buttons": mouse.buttons.track(range(len(BUTTONS))),
        }
        return found | ({"keys": self.keys.track(keys)} if keys else {})

    def _key(self, entry: Entry, time: float) -> None:
        what = entry.text("event_type")
        if what not in ("press", "release"):
            raise entry.wrong("event_type", "press or release")
        code = entry.whole("vk", 0, LARGEST)
        if code not in MOUSE_CODES:
            self.keys.change(code, time, down=what == "press")

    def _key_state(self, entry: Entry, time: float) -> None:
        name = "pressed_keys" if "pressed_keys" in entry else "buttons"
        self.keys.held(time, frozenset(entry.wholes(name, 0, LARGEST)) - MOUSE_CODES)

    def _raw_event(self, entry: Entry, time: float) -> None:
        mouse, flags = self._raw, entry.whole("button_flags", 0, 0xFFFF, default=0)
        mouse.used = True
        if entry.whole("us_flags", 0, 0xFFFF, default=0) & ABSOLUTE:
            raise entry.fault("the mouse sent places, not movements (a remote desktop or a tablet)")
        x, y = entry.whole("last_x", -FARTHEST, FARTHEST), entry.whole("last_y", -FARTHEST, FARTHEST)
        if x or y:
            mouse.moves.append((time, (x, y)))
        for number in range(len(BUTTONS)):
            for down, bit in ((True, 1 << 2 * number), (False, 2 << 2 * number)):
                if flags & bit:
                    mouse.buttons.change(number, time, down=down)
        if flags & WHEEL:
            turned = entry.whole("button_data", -0x8000, 0xFFFF)
            mouse.turns.append((time, ((turned - 0x10000 if turned > 0x7FFF else turned) / NOTCH,)))

    def _pointer_event(self, entry: Entry, time: float) -> None:
        what, mouse = entry.text("event_type"), self._pointer
        place = entry.number("x", -FARTHEST, FARTHEST), entry.number("y", -FARTHEST, FARTHEST)
        if self._place is not None and place != self._place:
            mouse.moves.append((time, (place[0] - self._place[0], place[1] - self._place[1])))
        self._place = place
        if what == "click" and entry.text("button") in BUTTONS:
            mouse.buttons.change(BUTTONS.index(entry.text("button")), time, down=entry.flag("pressed"))
        elif what == "scroll":
            mouse.turns.append((time, (entry.number("dy", -1e4, 1e4),)))

    def _pointer_state(self, entry: Entry, time: float) -> None:
        named = entry.items("buttons")
        held = frozenset(BUTTONS.index(each) for each in named if each in BUTTONS)
        for mouse in (self._raw, self._pointer):
            mouse.buttons.held(time, held)


class _Mouse:
    """One way in which a mouse was listened to."""

    def __init__(self) -> None:
        self.used = False
        self.buttons = Presses()
        self.moves: list[tuple[float, tuple[float, ...]]] = []
        self.turns: list[tuple[float, tuple[float, ...]]] = []


def happenings(found: Sequence[tuple[float, tuple[float, ...]]], width: int, zero: float = 0.0) -> Happenings:
    """Values (M, width) by time, in whatever order they came; `zero` is taken off all times."""
    ordered = sorted(found, key=lambda item: item[0])
    values = np.array([value for _, value in ordered], np.float32).reshape(-1, width)
    return Happenings(np.array([time for time, _ in ordered], np.float64) - zero, values)
