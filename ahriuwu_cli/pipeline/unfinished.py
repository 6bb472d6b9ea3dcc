"""What a run still lacks: each stage that is not finished, as a call that goes on with it or starts it.

Decision: what was made from an earlier part of a store that has grown since is finished. Encoding and training on what
was added is asked for by the commands of these stages, or by `ahriuwu improve`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from ahriuwu_cli.core.artifact import MANIFEST_NAME, Header, Kind, read_header
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.training.budget import Budget
from ahriuwu_cli.core.training.config import TrainSettings
from ahriuwu_cli.core.training.files import RunFiles
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.chain import examples_of, is_current
from ahriuwu_cli.pipeline.config import Run

Work = Iterator[Callable[[], Report]]


def recording_left(run: Run) -> Work:
    """Recording of the episodes that are not there yet."""
    missing = run.config.data.episodes - _played(run.episodes)
    if missing > 0:
        yield partial(_record, run, missing)


def latents_left(run: Run) -> Work:
    """Encoding and packing."""
    if not is_current(run, run.latents, "latents"):
        yield partial(stages.build_latents, run)
    if not is_current(run, run.packed, "packed"):
        yield partial(stages.pack_latents, run)


def training_left(run: Run, kind: Kind, settings: TrainSettings, stage: Callable[..., Report]) -> Work:
    """The training of one kind: nothing when it came to its end, else to be resumed, or started (anew)."""
    weights: Path = getattr(run, kind)
    if is_current(run, weights, kind) and _is_done(run, read_header(weights, kind), settings):
        return
    resume = is_current(run, RunFiles(weights.parent, kind).state, "state", same=(examples_of(kind),))
    yield partial(stage, run, resume=resume, overwrite=not resume)


def _is_done(run: Run, header: Header, settings: TrainSettings) -> bool:
    """True where all steps are done, or training had ended before for want of progress or for all its minutes."""
    if header.info["steps"] >= settings.steps:
        return True
    return header.info.get("stopped") in ("progress", "minutes") and has_used_its_time(run, header)


def has_used_its_time(run: Run, header: Header) -> bool:
    """False for a training that `run.minutes` ended and that now has more of them."""
    if header.info.get("stopped") != "minutes":
        return True
    return 0 < Budget(run.config.run.minutes).share(header.kind).minutes <= float(header.info.get("minutes", 0.0))


def _record(run: Run, missing: int) -> Report:
    """Record the episodes that are not there yet."""
    data = run.config.data.model_copy(update={"episodes": missing})
    rest = replace(run, config=run.config.model_copy(update={"data": data}))
    return stages.record(rest, append=run.episodes.exists())


def _played(folder: Path) -> int:
    """Episodes that are stored, and those that were played and could not be."""
    if not (folder / MANIFEST_NAME).exists():
        return 0
    store = EpisodeStore.open(folder)
    return len(store.episodes) + len(store.skipped)
