"""Kind `frames`: folders of PNG or JPEG pictures, one folder for each recording, in the natural order of their names.

What was done may be in a side-car beside a folder by its name (`play/` and `play.csv`), as for kind `video`.

Shapes: N frames.
"""

from __future__ import annotations

from collections.abc import Mapping as Options
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import AhriuwuError, InputError
from ahriuwu_cli.sources.imports.fields import settings, shown
from ahriuwu_cli.sources.imports.folders import LAST_NUMBER, folders_of, has_pictures, pictures_of
from ahriuwu_cli.sources.imports.frames import ImageFiles
from ahriuwu_cli.sources.imports.mapping import UNLABELLED, Mapping, as_mapping
from ahriuwu_cli.sources.imports.protocol import Found, Recorded, Source
from ahriuwu_cli.sources.imports.sidecar import labels_of
from ahriuwu_cli.sources.imports.table import READERS, read_table

FEWEST = 2
"""Pictures of a folder that is a recording."""
OTHERS = ("features.json", "labels.json")
"""Files beside pictures that say more of them than this kind reads; see kind prototype."""


class FramesOptions(Section):
    """Options of kind `frames`, beside the mapping."""

    fps: float = Field(gt=0, le=1000, description="pictures per second")


class FramesImporter:
    """See Importer."""

    KIND = "frames"
    SAYS = f"folders of PNG or JPEG pictures; actions in {', '.join(READERS)} files beside them by the same names"
    EXTRA: str | None = None

    def detect(self, source: Path) -> str | None:
        """See Importer."""
        with suppress(AhriuwuError, OSError):
            folders = list(folders_of(source, _is_recording))
            around = {folder for each in folders for folder in (each, each.parent)}
            if folders and not any((folder / name).is_file() for folder in around for name in OTHERS):
                return f"{len(folders)} folders of pictures" if folders != [source] else "a folder of pictures"
        return None

    def open_source(self, source: Path, options: Options[str, Any]) -> Source:
        """See Importer; beside FramesOptions there is the mapping."""
        own = {name: value for name, value in options.items() if name != "mapping"}
        if "fps" not in own:
            raise InputError("pictures have no times of their own", hint="say how many a second: --option fps=20")
        fps = settings(FramesOptions, own, self.KIND).fps
        mapping = as_mapping(options["mapping"]) if options.get("mapping") else None
        folders = list(folders_of(source, _is_recording))
        if not folders:
            raise InputError(
                f"{source} has no folder of pictures", hint=f"give a folder with {FEWEST} PNG or JPEG files, or more"
            )
        cars = {folder: _side_car(folder, "" if mapping is None else mapping.suffix) for folder in folders}
        found = [_found(folder, source, fps, mapping, cars[folder]) for folder in folders]
        return Source(
            action=UNLABELLED if mapping is None else mapping.action_spec(),
            recordings=found,
            fps=fps,
            notes=_notes(mapping, sum(car is not None for car in cars.values()), len(folders)),
        )


def _is_recording(folder: Path) -> bool:
    return has_pictures(folder, FEWEST)


def _side_car(folder: Path, suffix: str) -> Path | None:
    """The table beside a folder; None where there is none."""
    paths = (folder.with_name(folder.name + ending) for ending in ([suffix] if suffix else READERS))
    return next((path for path in paths if path.is_file()), None)


def _notes(mapping: Mapping | None, labelled: int, count: int) -> list[str]:
    if mapping is None:
        said = "there are side-cars and no mapping says what is in them (--map): nothing is labelled"
        return [said] if labelled else []
    return [f"{count - labelled} of {count} folders have no side-car: their actions are not known"] * (labelled < count)


def _found(folder: Path, source: Path, fps: float, mapping: Mapping | None, side_car: Path | None) -> Found:
    pictures = pictures_of(folder)
    labelled = mapping is not None and side_car is not None

    def read() -> Recorded:
        frames, notes = ImageFiles(pictures, np.arange(len(pictures)) / fps), _holes(pictures)
        if mapping is None or side_car is None:
            return Recorded(frames, notes=notes)
        return labels_of(read_table(side_car), mapping, frames.times).recorded(frames, notes)

    files = (*pictures, side_car) if labelled and side_car is not None else tuple(pictures)
    return Found(shown(folder, source), files, read)


def _holes(pictures: list[Path]) -> list[str]:
    """What is to be told where the numbers in names leave some out."""
    matches = [LAST_NUMBER.search(path.stem) for path in pictures]
    numbers = [int(match[0]) for match in matches if match is not None]
    steps = np.diff(np.array(numbers, np.float64))
    if len(numbers) < len(pictures) or not len(steps) or (steps == np.median(steps)).all():
        return []
    odd = int(np.argmax(steps != np.median(steps)))
    after, before = ascii(pictures[odd].name)[1:-1], ascii(pictures[odd + 1].name)[1:-1]
    return [f"the numbers of its pictures are not evenly spaced ({after} comes before {before}); they are taken to be"]
