"""Kind `owl`: recordings of OWL Control, folders with a video, `inputs.csv` and `metadata.json`.

The first frame of the video was shown at VIDEO_START; until HOOK_START the picture is black, and those frames are left
out. What the recorder (or its server) rejected has a file that says why. Source: Wayfarer-Labs, owl-control.

Shapes: N frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import AhriuwuError, InputError
from ahriuwu_cli.sources.imports.clock import SNAP
from ahriuwu_cli.sources.imports.desktop_events import desktop_action
from ahriuwu_cli.sources.imports.fields import read_json, settings, shown
from ahriuwu_cli.sources.imports.folders import folders_of, inside
from ahriuwu_cli.sources.imports.frames import PickedFrames, VideoSource
from ahriuwu_cli.sources.imports.owl_inputs import END, HEADER, HOOK_START, START, VIDEO_END, VIDEO_START, Inputs
from ahriuwu_cli.sources.imports.protocol import Found, Recorded, RecordingError, Source
from ahriuwu_cli.sources.imports.virtual_keys import key_codes

INPUTS, ABOUT, USUAL_VIDEO = "inputs.csv", "metadata.json", "recording.mp4"
REJECTED = {".invalid": "the recorder", ".server_invalid": "its server"}
"""Files that say why a recording was rejected, and who did."""
APART = 1.0
"""Seconds by which the video may be shorter or longer than its marks say."""
LONGEST_REASON = 300


class OwlOptions(Section):
    """Options of kind `owl`."""

    keys: list[str] = Field(
        default=["w", "a", "s", "d", "space", "shift", "ctrl"], description="names of keys to import; []: none"
    )
    farthest: float = Field(default=1000.0, gt=0, le=1e6, description="counts of the mouse in a step, to either side")
    zero: Literal["VIDEO_START", "START"] = Field(
        default="VIDEO_START", description="the event at which the video begins; START for recorders that know no other"
    )
    rejected: bool = Field(default=False, description="import also what the recorder or its server rejected")
    task_by_game: bool = Field(
        default=False, description=f"name the task by the game's program ({ABOUT}), not by data.task"
    )


class OwlImporter:
    """See Importer."""

    KIND = "owl"
    SAYS = f"recordings of OWL Control: folders with a video, {INPUTS} and {ABOUT}"
    EXTRA: str | None = None

    def detect(self, source: Path) -> str | None:
        """See Importer."""
        with suppress(AhriuwuError, OSError):
            for folder in folders_of(source, _is_recording, depth=2):
                with (folder / INPUTS).open("rb") as file:
                    if HEADER in file.read(2 * len(HEADER)):
                        return f"{INPUTS} of OWL Control"
        return None

    def open_source(self, source: Path, options: Mapping[str, Any]) -> Source:
        """See Importer."""
        chosen = settings(OwlOptions, options, self.KIND)
        keys = key_codes(chosen.keys)
        recordings, defects = [], []
        for folder in folders_of(source, _is_recording, depth=2):
            try:
                if not chosen.rejected:
                    _require_accepted(folder, source)
                video = _video(folder, source)
            except RecordingError as error:
                defects.append(error)
            else:
                opener = OwlFolder(folder, source, video, chosen, keys)
                recordings.append(Found(shown(folder, source), (video, folder / INPUTS), opener.open))
        if not recordings and not defects:
            raise InputError(
                f"{source} has no {INPUTS}, nor a folder in it",
                hint=f"give the folder of one recording ({USUAL_VIDEO}, {INPUTS}, {ABOUT}), or the one around several",
            )
        return Source(action=desktop_action(keys, chosen.farthest), recordings=recordings, defects=defects)


def _is_recording(folder: Path) -> bool:
    return (folder / INPUTS).is_file()


def _require_accepted(folder: Path, source: Path) -> None:
    for file, who in REJECTED.items():
        path = folder / file
        if path.is_file():
            with suppress(OSError), path.open("rb") as text:
                said = text.read(LONGEST_REASON).decode("utf-8", "replace")
                reason = ascii(" ".join(said.split()))[1:-1]
                raise RecordingError(
                    shown(path, source),
                    f"{who} rejected it: {reason or 'without a reason'}",
                    hint="give --option rejected=true to import it all the same",
                )


def _video(folder: Path, source: Path) -> Path:
    """The one video of a recording, whatever its name."""
    found = [path for path in inside(folder) if path.suffix.lower() == ".mp4" and path.is_file()]
    usual = [path for path in found if path.name == USUAL_VIDEO]
    if len(usual or found) != 1:
        raise RecordingError(shown(folder, source), f"{len(found)} .mp4 files; expected one")
    return (usual or found)[0]


@dataclass(frozen=True)
class OwlFolder:
    """A recording that was found.

    Attributes:
        folder: of the recording.
        source: that it was found in.
        video: in the folder.
        options: how it is read.
        keys: codes of those that are imported.
    """

    folder: Path
    source: Path
    video: Path
    options: OwlOptions
    keys: list[int]

    def open(self) -> Recorded:
        """Read it.

        Raises:
            DataError: a file is damaged, or says nothing of when the video began.
        """
        name = shown(self.folder / INPUTS, self.source)
        inputs = Inputs.read(self.folder / INPUTS, name)
        task = self._game() if self.options.task_by_game else None
        zero = inputs.marks.get(self.options.zero)
        if zero is None:
            raise RecordingError(
                name,
                f"there is no {self.options.zero}: when the video begins is not known",
                hint="for recordings of older recorders give --option zero=START",
            )
        video = VideoSource(self.video, name=shown(self.video, self.source))
        times = video.times - video.times[0]
        hooked = inputs.marks.get(HOOK_START, -math.inf) - zero
        numbers = np.flatnonzero(times >= hooked - SNAP)
        if not len(numbers):
            video.close()
            raise RecordingError(name, f"{HOOK_START} is {hooked - times[-1]:.1f} s after the last frame of the video")
        began = inputs.marks.get(START, -math.inf) - zero
        ended = inputs.marks.get(END, inputs.last) - zero
        return Recorded(
            PickedFrames(video, numbers, times[numbers]),
            inputs.tracks(self.keys, zero),
            unknown=[(-math.inf, began), (ended, math.inf)],
            task=task,
            notes=[*self._notes(inputs, times, int(numbers[0])), *inputs.notes(self.keys)],
        )

    def _game(self) -> str:
        name = shown(self.folder / ABOUT, self.source)
        about = read_json(self.folder / ABOUT, name)
        return about.text("game_exe").strip() or "unknown"

    def _notes(self, inputs: Inputs, times: np.ndarray, black: int) -> Iterator[str]:
        marks = inputs.marks
        if black:
            yield f"{black} frames before {HOOK_START} are left out: the picture is black until then"
        if HOOK_START not in marks:
            yield f"there is no {HOOK_START}: frames that are black at the beginning are kept"
        if END not in marks:
            yield f"there is no {END}: from the last event on, what was done is not known"
        if VIDEO_START in marks and VIDEO_END in marks:
            said, found = marks[VIDEO_END] - marks[VIDEO_START], float(times[-1])
            if abs(said - found) > APART:
                yield f"the video lasts {found:.1f} s, by {VIDEO_START} and {VIDEO_END} {said:.1f} s"
