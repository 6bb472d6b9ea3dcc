"""Kind `owamcap`: desktop recordings of Open World Agents (the recorder ocap), `<name>.mcap` beside `<name>.mkv`.

The MCAP file has what was done, and for every frame a message that says which one of the video it is (`media_ref`: a
path beside the MCAP file and the frame's time in the video). All is on one clock, that of the MCAP log: it says when
each frame was seen, and when each key went down. Source: open-world-agents, docs/data/technical-reference/format-guide.

Shapes: N frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.sources.imports.desktop_events import KINDS, DesktopEvents, desktop_action
from ahriuwu_cli.sources.imports.fields import Entry, settings, shown
from ahriuwu_cli.sources.imports.folders import inside, named_path
from ahriuwu_cli.sources.imports.frames import PickedFrames, VideoSource
from ahriuwu_cli.sources.imports.mcap_messages import MAGIC, NANO, mcap, messages
from ahriuwu_cli.sources.imports.protocol import Found, Recorded, RecordingError, Source
from ahriuwu_cli.sources.imports.virtual_keys import key_codes

SCREEN = "ScreenCaptured"
KEYS = {"KeyboardEvent", "KeyboardState"}
ROUNDED = 0.002
"""Seconds by which the stamps of a container may differ from those that messages name; MKV has milliseconds."""


class OwamcapOptions(Section):
    """Options of kind `owamcap`."""

    keys: list[str] = Field(default_factory=list, description="names of keys to import; none: all that were pressed")
    farthest: float = Field(default=1000.0, gt=0, le=1e6, description="counts of the mouse in a step, to either side")


class OwamcapImporter:
    """See Importer."""

    KIND = "owamcap"
    SAYS = "desktop recordings of Open World Agents: .mcap files with their videos"
    EXTRA: str | None = "import"

    def detect(self, source: Path) -> str | None:
        """See Importer."""
        with suppress(InputError, OSError):
            for path in _files(source):
                with path.open("rb") as file:
                    if file.read(len(MAGIC)) == MAGIC:
                        return "MCAP files"
        return None

    def open_source(self, source: Path, options: Mapping[str, Any]) -> Source:
        """See Importer."""
        chosen = settings(OwamcapOptions, options, self.KIND)
        mcap()
        paths = _files(source)
        if not paths:
            raise InputError(f"{source} has no .mcap file", hint="give the folder that the .mcap files are in, or one")
        pressed, fps = _looked_through(paths, all_of_them=not chosen.keys)
        keys = key_codes(chosen.keys) or sorted(pressed)
        root = source if source.is_dir() else source.parent
        found = [
            Found(shown(path, source), _bytes_of(path), OwamcapFile(path, shown(path, source), root, keys).open)
            for path in paths
        ]
        return Source(action=desktop_action(keys, chosen.farthest), recordings=found, fps=fps)


def _files(source: Path) -> list[Path]:
    """The .mcap files of a folder and of those right in it, or the one that was given."""
    if source.is_file():
        return [source] if source.suffix == ".mcap" else []
    around = inside(source)
    folders = [path for path in around if path.is_dir()]
    return [path for folder in (None, *folders) for path in (around if folder is None else inside(folder)) if _is(path)]


def _is(path: Path) -> bool:
    return path.suffix == ".mcap" and path.is_file()


def _bytes_of(path: Path) -> tuple[Path, ...]:
    video = path.with_suffix(".mkv")
    return (path, video) if video.is_file() else (path,)


def _looked_through(paths: list[Path], *, all_of_them: bool) -> tuple[set[int], float | None]:
    """Codes of the keys that were pressed in any recording, and the frame rate of the first one that can be read.

    Args:
        paths: of the recordings.
        all_of_them: look for keys in all; else only until the frame rate is known.
    """
    pressed: set[int] = set()
    fps = None
    for path in paths:
        if fps and not all_of_them:
            break
        with suppress(RecordingError):  # told when it is opened
            events, screens = DesktopEvents(), Screens()
            for message in messages(path, path.name, KEYS if fps else {*KEYS, SCREEN}):
                if message.kind == SCREEN:
                    screens.add(message.entry, message.time)
                else:
                    events.add(message)
            pressed |= events.keys.seen()
            fps = fps or screens.rate()
    return pressed, fps


@dataclass(frozen=True)
class OwamcapFile:
    """A recording that was found.

    Attributes:
        path: of the MCAP file.
        name: as the source names it.
        root: folder that no path in it may lead out of.
        keys: codes of those that are imported.
    """

    path: Path
    name: str
    root: Path
    keys: list[int]

    def open(self) -> Recorded:
        """Read it.

        Raises:
            DataError: the MCAP file or the video is damaged, or they do not belong together.
        """
        events, screens = DesktopEvents(), Screens()
        for message in messages(self.path, self.name, {SCREEN, *KINDS}):
            if message.kind == SCREEN:
                screens.add(message.entry, message.time)
            else:
                events.add(message)
        if not screens.video:
            raise RecordingError(self.name, "no message says which frames there are; expected a screen topic")
        video = named_path(self.path.parent, screens.video, self.name)
        if not video.resolve().is_relative_to(self.root.resolve()):
            raise RecordingError(self.name, f"names {ascii(screens.video)[:80]}, which is outside the source")
        frames = VideoSource(video, name=shown(video, self.root))
        try:
            numbers, times = screens.of(frames.times, self.name)
        except RecordingError:
            frames.close()
            raise
        notes = []
        if len(times) < len(screens.rows):
            notes.append(f"{len(screens.rows) - len(times)} of {len(screens.rows)} screens show the frame before again")
        if not events.has_raw:
            notes.append("the mouse was not listened to itself (no raw events): it moves as the pointer on the screen")
        return Recorded(PickedFrames(frames, numbers, times), events.tracks(self.keys), notes=notes)


class Screens:
    """Which frame of the video was seen when.

    Attributes:
        rows: numbers of the messages, (N,).
        video: path of the video as the messages name it; empty before the first one.
    """

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.video = ""
        self._seen: list[float] = []
        self._stamps: list[float] = []

    def add(self, entry: Entry, time: float) -> None:
        """Take the next message."""
        inner = "media_ref" in entry  # before messages had it, path and pts stood beside each other
        reference = entry.entry("media_ref") if inner else entry
        path, stamp = ("uri", "pts_ns") if inner else ("path", "pts")
        video = reference.text(path)
        if self.video and video != self.video:
            raise entry.fault(f"its frame is in a second video, {ascii(video)[:80]}; expected one for each recording")
        if stamp not in reference:
            raise entry.fault("its frame is a picture, not one of a video; expected pts_ns beside the path")
        self.video = video
        self.rows.append(entry.row or 0)
        self._stamps.append(reference.whole(stamp, 0, 1 << 62) * NANO)
        self._seen.append(time)

    def rate(self) -> float | None:
        """Frames per second of the video, by the stamps of its frames; None where there are fewer than two."""
        steps = np.diff(np.unique(self._stamps))
        return round(1 / float(np.median(steps)), 3) if len(steps) else None

    def of(self, shown_at: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the frames of a video that is shown at such times, and when they were seen, (N,) rising.

        Raises:
            RecordingError: the video has no such frame.
        """
        stamps, seen = np.array(self._stamps), np.array(self._seen)
        after = np.clip(np.searchsorted(shown_at, stamps), min(1, len(shown_at) - 1), len(shown_at) - 1)
        before = np.maximum(after - 1, 0)
        numbers = np.where(stamps - shown_at[before] <= shown_at[after] - stamps, before, after)
        usual = float(np.median(np.diff(shown_at))) if len(shown_at) > 1 else 0.0
        far = np.abs(shown_at[numbers] - stamps) > max(ROUNDED, 0.5 * usual)
        if far.any():
            row = int(np.argmax(far))
            reason = f"its frame is at {stamps[row]:.3f} s of the video, which ends at {shown_at[-1]:.3f} s"
            raise RecordingError(name, reason, row=self.rows[row])
        newer = np.concatenate([[True], (np.diff(np.maximum.accumulate(numbers)) > 0) & (np.diff(seen) > 0)])
        return numbers[newer], seen[newer]
