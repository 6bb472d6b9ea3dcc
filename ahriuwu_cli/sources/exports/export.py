"""`ahriuwu export`: a whole store in a format of others, and what it takes to bring it back."""

from __future__ import annotations

import shlex
from pathlib import Path

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.files import whole_folder
from ahriuwu_cli.core.lock import contents
from ahriuwu_cli.core.progress import counted
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.toml import value_text
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.exports.protocol import Exporter
from ahriuwu_cli.sources.exports.registry import exporter
from ahriuwu_cli.sources.exports.survey import USUAL_GAP, Survey


def export_store(source: Path, name: str, folder: Path) -> Report:
    """Write the store at `source` into `folder`, which appears whole or not at all.

    Args:
        source: an episode store.
        name: of the format.
        folder: a new folder, or an empty one.

    Raises:
        InputError: nothing is there, the format is unknown or cannot hold the store, or `folder` is not empty.
        ArtifactError: the store is damaged.
        StorageError: it cannot be written; nothing is left of it then.
    """
    chosen = exporter(name)
    if folder.exists() and (not folder.is_dir() or contents(folder)):
        raise InputError(f"{folder} is not an empty folder; an export needs one", hint="give another folder")
    store = EpisodeStore.open(source)
    survey = Survey.of(store)
    losses = [*chosen.losses(store, survey), *survey.common_losses()]
    with counted("export", len(survey.ids), "episodes") as show, whole_folder(folder) as temporary:
        chosen.write(store, survey, temporary, show)
    return _report(chosen, store, survey, folder, losses)


def _report(chosen: Exporter, store: EpisodeStore, survey: Survey, folder: Path, losses: list[str]) -> Report:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    again = _again(chosen, store, survey, folder)
    facts = {
        "episodes": len(survey.ids),
        "steps": survey.steps,
        "steps without a label": survey.unlabelled,
        "bytes": size,
    }
    return Report(
        title=f"Exported {store.folder} to {chosen.FORMAT}: {folder}",
        columns=("what", "how much"),
        rows=[[name, f"{value:,}"] for name, value in facts.items()],
        data={
            "format": chosen.FORMAT,
            "folder": str(folder),
            "fingerprint": store.fingerprint,
            "episodes": facts["episodes"],
            "steps": facts["steps"],
            "unlabelled": survey.unlabelled,
            "bytes": size,
            "losses": losses,
            "import": again,
        },
        notes=[*(f"does not come back: {loss}" for loss in losses), f"back again: {again}"],
    )


def _again(chosen: Exporter, store: EpisodeStore, survey: Survey, folder: Path) -> str:
    """The command that imports what was exported."""
    frame = store.frame_spec
    words = ["ahriuwu", "data", "import", chosen.FORMAT, str(folder), *chosen.again(survey, folder)]
    words += ["--fps", f"{frame.fps:.12g}", "--size", f"{frame.height}x{frame.width}"]
    if survey.longest > USUAL_GAP:
        words += ["--set", f"data.source.gap={1.01 * survey.longest:.6g}"]
    if len(survey.policies) == 1:
        words += ["--set", f"data.source.played_by={value_text(survey.policies[0])}"]
    return shlex.join([*words, "--out", "STORE"])
