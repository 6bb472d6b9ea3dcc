"""Kind `video`: video files of any game, each with what was done in a side-car by the same name, or unlabelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping as Options
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.sources.imports.frames import VideoSource
from ahriuwu_cli.sources.imports.mapping import UNLABELLED, Mapping, as_mapping
from ahriuwu_cli.sources.imports.protocol import Found, Recorded, Source
from ahriuwu_cli.sources.imports.sidecar import labels_of
from ahriuwu_cli.sources.imports.table import READERS, read_table

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".gif", ".avi", ".m4v")


class VideoImporter:
    """Video files, alone or in a folder and the folders in it."""

    KIND = "video"
    SAYS = f"{', '.join(SUFFIXES)} files; actions, rewards and events in {', '.join(READERS)} files by the same names"
    EXTRA = None

    def detect(self, source: Path) -> str | None:
        """See Importer."""
        videos = _videos(source)
        if not videos:
            return None
        kinds = ", ".join(
            f"{count} {suffix}" for suffix, count in sorted(Counter(v.suffix.lower() for v in videos).items())
        )
        with_labels = sum(_sidecar(video, "") is not None for video in videos)
        return f"{kinds} files, {with_labels} with a side-car"

    def open_source(self, source: Path, options: Options[str, Any]) -> Source:
        """See Importer; the one option is the mapping."""
        unknown = sorted(set(options) - {"mapping"})
        if unknown:
            raise InputError(f"kind video has no option {unknown[0]!r}", hint="it takes a mapping only (--map)")
        mapping = as_mapping(options["mapping"]) if options.get("mapping") else None
        videos = _videos(source)
        base = source if source.is_dir() else source.parent
        suffix = "" if mapping is None else mapping.suffix
        found, notes = [], []
        for video in videos:
            sidecar = _sidecar(video, suffix)
            name = video.relative_to(base).as_posix()
            files = (video,) if sidecar is None or mapping is None else (video, sidecar)
            found.append(Found(name, files, _opener(name, files, mapping)))
        labelled = sum(len(each.files) > 1 for each in found)
        if mapping is None and any(_sidecar(video, "") for video in videos):
            notes.append("there are side-cars and no mapping says what is in them (--map): nothing is labelled")
        elif labelled < len(found):
            notes.append(
                f"{len(found) - labelled} of {len(found)} videos have no side-car: their actions are not known"
            )
        return Source(UNLABELLED if mapping is None else mapping.action_spec(), found, notes=notes)


def _videos(source: Path) -> list[Path]:
    """Video files in order of their names."""
    paths = [source] if source.is_file() else sorted(source.rglob("*"))
    return [path for path in paths if path.suffix.lower() in SUFFIXES and path.is_file() and path.name[0] != "."]


def _sidecar(video: Path, suffix: str) -> Path | None:
    """The side-car of a video; None where there is none."""
    for ending in (suffix,) if suffix else READERS:
        path = video.with_name(video.stem + ending)
        if path.is_file():
            return path
    return None


def _opener(name: str, files: tuple[Path, ...], mapping: Mapping | None) -> Any:
    def read() -> Recorded:
        frames = VideoSource(files[0], name=name)
        if mapping is None or len(files) == 1:
            return Recorded(frames)
        return labels_of(read_table(files[1]), mapping, frames.times).recorded(frames)

    return read
