"""Kind `vpt`: recordings of Minecraft by OpenAI's contractors, `<version>/<name>.mp4` and `.jsonl`.

One line for each tick of 1/20 s, one frame for each line; the action of a line was taken on seeing its frame. Source:
the loader that was published with the data (openai/Video-Pre-Training, data_loader.py, lib/actions.py), which this
departs from in two places: ticks without an action are kept (a world model needs them: to drop them tears time), and
the hotbar slot that is selected in the first tick is nobody's press.

Shapes: N frames, M ticks, K keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import AhriuwuError, InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.sources.imports.cursor import WithCursor
from ahriuwu_cli.sources.imports.fields import Entry, read_lines, settings, shown
from ahriuwu_cli.sources.imports.folders import inside
from ahriuwu_cli.sources.imports.frames import VideoSource
from ahriuwu_cli.sources.imports.protocol import Found, Recorded, RecordingError, Rows, Source

FPS = 20.0
HEIGHT = 720
"""Pixels of the window that `mouse.x` and `mouse.y` are counted in."""
DEGREES = 360 / 2400
"""That the view turns for one count of the mouse."""
SCALES = {"5.7": 0.5, "5.8": 0.5, "6.7": 2.0, "6.8": 2.0, "6.9": 2.0}
"""Of mouse movement while a window of the game is open, by version of the recorder; 1 in others."""
BINS, WIDEST, MU = 11, 10.0, 10.0
"""Camera bins of each axis, degrees at their ends, and how much finer they are near zero."""
ODD_TICKS = 20
"""So many ticks or frames may be without the other; more say that they do not belong together."""
BUTTONS = {0: "attack", 1: "use", 2: "pickItem"}
KEYS = {
    "w": "forward",
    "s": "back",
    "a": "left",
    "d": "right",
    "space": "jump",
    "left.shift": "sneak",
    "left.control": "sprint",
    "q": "drop",
    "e": "inventory",
    "f": "swapHands",
    "escape": "ESC",
} | {str(slot): f"hotbar.{slot}" for slot in range(1, 10)}
"""By what follows `key.keyboard.`."""
HOTBAR = tuple(f"hotbar.{slot}" for slot in range(1, 10))
POLICY_KEYS = ("attack", "back", "forward", "jump", "left", "right", "sneak", "sprint", "use", "drop", "inventory")
NAMES = {"policy": (*POLICY_KEYS, *HOTBAR), "game": (*POLICY_KEYS, "ESC", "pickItem", "swapHands", *HOTBAR)}
VERSION = re.compile(r"\d+\.\d+")


class VptOptions(Section):
    """Options of kind `vpt`."""

    version: str | None = Field(
        default=None, pattern=r"^\d+\.\d+$", description="of the recorder; none: the name of the folder around"
    )
    keys: Literal["policy", "game"] = Field(
        default="policy",
        description="policy: the 20 of the published agents (Esc closes a window as inventory does); game: 3 more",
    )


class VptImporter:
    """See Importer."""

    KIND = "vpt"
    SAYS = "OpenAI's contractor recordings of Minecraft: .mp4 and .jsonl by one name"
    EXTRA: str | None = None

    def detect(self, source: Path) -> str | None:
        """See Importer."""
        try:
            for path in _side_cars(source):
                first = next(read_lines(path, path.name), None)
                if first is not None and "isGuiOpen" in first and "mouse" in first and "keyboard" in first:
                    return "ticks of Minecraft (isGuiOpen) in .jsonl files beside videos"
                break
        except (AhriuwuError, OSError):
            pass
        return None

    def open_source(self, source: Path, options: Mapping[str, Any]) -> Source:
        """See Importer."""
        chosen = settings(VptOptions, options, self.KIND)
        found, defects = [], []
        for path in _side_cars(source):
            video, name = path.with_suffix(".mp4"), shown(path, source)
            if video.is_file():
                found.append(Found(shown(video, source), (video, path), _opener(path, name, chosen)))
            else:
                defects.append(RecordingError(name, f"there is no {ascii(video.name)[1:-1]} beside it"))
        if not found and not defects:
            raise InputError(
                f"{source} has no .jsonl file, nor a folder in it",
                hint="give the folder that the .mp4 and .jsonl files are in, or the one around such folders",
            )
        return Source(action=_action(chosen), recordings=found, fps=FPS, defects=defects)


def _side_cars(source: Path) -> Iterator[Path]:
    """The .jsonl files of a folder and of those right in it, or the one that was given."""
    if source.is_file():
        yield from [source.with_suffix(".jsonl")] if source.with_suffix(".jsonl").is_file() else []
        return
    for path in inside(source):
        if path.is_dir():
            yield from (each for each in inside(path) if each.suffix == ".jsonl" and each.is_file())
        elif path.suffix == ".jsonl":
            yield path


def _action(options: VptOptions) -> ActionSpec:
    turns = [f"{turn:+.2f}" for turn in bin_degrees(np.arange(BINS))]
    camera = ActionComponent(
        name="camera",
        type="categorical",
        num_classes=BINS * BINS,
        labels=tuple(f"down {pitch} right {yaw}" for pitch in turns for yaw in turns),
        aggregate="mode",
    )
    names = NAMES[options.keys]
    keys = ActionComponent(name="keys", type="binary", dim=len(names), labels=names, aggregate="any")
    return ActionSpec(components=(camera, keys))


def camera_bins(degrees: np.ndarray) -> np.ndarray:
    """The bin of each turn, 0 to BINS - 1: mu-law, finest near zero (ITU-T G.711's curve)."""
    share = np.clip(degrees, -WIDEST, WIDEST) / WIDEST
    bent = np.sign(share) * np.log1p(MU * np.abs(share)) / np.log1p(MU)
    found: np.ndarray = np.round((bent + 1) * (BINS // 2)).astype(np.int64)
    return found


def bin_degrees(bins: np.ndarray) -> np.ndarray:
    """The turn that a bin stands for."""
    bent = bins / (BINS // 2) - 1
    found: np.ndarray = np.sign(bent) * ((1 + MU) ** np.abs(bent) - 1) / MU * WIDEST
    return found


def _opener(path: Path, name: str, options: VptOptions) -> Any:
    return lambda: _open(path, name, options)


def _open(path: Path, name: str, options: VptOptions) -> Recorded:
    version = options.version or (path.parent.name if VERSION.fullmatch(path.parent.name) else None)
    ticks = Ticks(SCALES.get(version or "", 1.0), options.keys)
    for line in read_lines(path, name):
        ticks.add(line)
    video = VideoSource(path.with_suffix(".mp4"))
    times, count = video.times, len(ticks.rows)
    if not count or abs(count - len(times)) > ODD_TICKS:
        video.close()
        raise RecordingError(name, f"{count} ticks for {len(times)} frames; expected as many")
    both = min(count, len(times))
    notes = list(ticks.notes())
    if count != len(times):
        notes.append(f"{count} ticks for {len(times)} frames: what is too much at the end is left out")
    if version is None:
        notes.append("no version of the recorder is known: mouse movement in windows of the game is taken as it stands")
    places = np.full((len(times), 2), np.nan)
    places[:both] = np.array(ticks.places)[:both]
    values = {"camera": ticks.camera(), "keys": np.array(ticks.keys, np.float32)}
    return Recorded(
        frames=WithCursor(video, places, HEIGHT),
        actions={
            part: Rows(times[:both], track[:both], file=name, numbers=ticks.rows[:both])
            for part, track in values.items()
        },
        unknown=[(float(times[both]), np.inf)] if both < len(times) else [],
        notes=notes,
    )


class Ticks:
    """What the lines of a recording say, collected line by line.

    Args:
        scale: of mouse movement while a window of the game is open.
        keys: which; see VptOptions.

    Attributes:
        rows: numbers of the lines, (M,).
        keys: (M, K) of 0 and 1.
        places: of the cursor, (M, 2) column and row; NaN where the game shows none.
    """

    def __init__(self, scale: float, keys: str) -> None:
        self.rows: list[int] = []
        self.keys: list[list[int]] = []
        self.places: list[tuple[float, float]] = []
        self._scale, self._names, self._folds_escape = scale, NAMES[keys], keys == "policy"
        self._turns: list[tuple[float, float]] = []
        self._slot: int | None = None
        self._stuck_until: int | None = None  # tick in which a stuck attack was pressed; None while it is stuck

    def add(self, line: Entry) -> None:
        """Take the next tick."""
        mouse, is_open = line.entry("mouse"), line.flag("isGuiOpen")
        scale = DEGREES * (self._scale if is_open else 1.0)
        self._turns.append((mouse.number("dy", -1e6, 1e6) * scale, mouse.number("dx", -1e6, 1e6) * scale))
        place = mouse.number("x", -1e6, 1e6), mouse.number("y", -1e6, 1e6)
        self.places.append(place if is_open else (np.nan, np.nan))
        pressed = self._pressed(line, mouse, is_open=is_open)
        self.keys.append([int(name in pressed) for name in self._names])
        self.rows.append(line.row or 0)

    def camera(self) -> np.ndarray:
        """Camera classes (M, 1) float32: the bin of pitch times BINS, plus that of yaw."""
        bins = camera_bins(np.array(self._turns, np.float64).reshape(-1, 2))
        classes: np.ndarray = bins[:, :1] * BINS + bins[:, 1:]
        return classes.astype(np.float32)

    def notes(self) -> Iterator[str]:
        """What is to be told."""
        if self._stuck_until is None:
            yield "attack is down from the first tick to the last without a press: taken as never pressed"
        elif self._stuck_until:
            yield f"attack was stuck for {self._stuck_until} ticks until it was pressed: taken as not pressed"

    def _pressed(self, line: Entry, mouse: Entry, *, is_open: bool) -> set[str]:
        tick, fresh = len(self.rows), mouse.wholes("newButtons", 0, 99)
        if tick == 0:
            self._stuck_until = None if fresh == [0] else 0
        elif self._stuck_until is None and 0 in fresh:
            self._stuck_until = tick
        pressed = {BUTTONS[each] for each in mouse.wholes("buttons", 0, 99) if each in BUTTONS}
        if self._stuck_until is None:
            pressed.discard("attack")
        for key in line.entry("keyboard").items("keys"):
            name = KEYS.get(key.removeprefix("key.keyboard.")) if isinstance(key, str) else None
            if name == "ESC" and self._folds_escape:
                name = "inventory" if is_open else None
            pressed |= {name} if name else set()
        slot = line.whole("hotbar", 0, 8)
        if self._slot is not None and slot != self._slot:
            pressed.add(HOTBAR[slot])
        self._slot = slot
        return pressed
