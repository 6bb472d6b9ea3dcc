"""Recordings of a test: videos as recorders write them, and what an import makes of a source."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from ahriuwu_cli.episodes.config import DataSection, SourceSection
from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.imports.transfer import import_source


def write_play(path: Path, greys: np.ndarray, fps: int, side: int = 32) -> None:
    """A lossless video of even pictures, grey by `greys` (N,), with B-frames; MP4 or Matroska by its suffix."""
    with av.open(str(path), "w", format={".mkv": "matroska"}.get(path.suffix, "mp4")) as container:
        stream = container.add_stream("libx264rgb", rate=fps, options={"qp": "0", "bf": "2"})
        stream.height, stream.width, stream.pix_fmt = side, side, "rgb24"
        for number, grey in enumerate(greys):
            frame = av.VideoFrame.from_ndarray(np.full((side, side, 3), grey, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def imported(source: Path, out: Path, kind: str, **options: Any) -> tuple[list[Episode], dict[str, Any]]:
    """The episodes that `ahriuwu data import` makes of a source, and its report's data."""
    data = DataSection(source=SourceSection(kind=kind, path=str(source), options=options), height=32, width=32)
    report = import_source(out, data, seed=0)
    store = EpisodeStore.open(out)
    return [store.read(record.id) for record in store.episodes], report.data["import"]
