"""`eval rollout`: dreams from held-out contexts beside the truth, the tokenizer's ceiling and persistence.

Shapes: M contexts, F frames of a window, H' and W' frame size (see dreaming.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.files import write_json
from ahriuwu_cli.core.lock import exclusive
from ahriuwu_cli.core.pictures.tiles import side_by_side
from ahriuwu_cli.core.pictures.writing import write_gif, write_mp4, write_png
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.evaluation.config import EvalSection
from ahriuwu_cli.evaluation.dreaming import Dreamer, load_dreamer
from ahriuwu_cli.evaluation.fidelity import step_distance
from ahriuwu_cli.evaluation.metrics import Frames, HorizonCurve, horizon_table
from ahriuwu_cli.evaluation.plots import plot_horizon
from ahriuwu_cli.evaluation.seal import sealed
from ahriuwu_cli.evaluation.sheets import dream_sheet, reconstruction_sheet, source_sheet
from ahriuwu_cli.evaluation.video_distance import (
    clip_features,
    frechet_distance,
    halves_distance,
    load_video_features,
)

PICTURE_PIXELS = 128
"""Frames are enlarged to about this many pixels in pictures."""
MARKS = (2, 4, 8, 16, 32, 64)
"""Steps whose PSNR stands in the table, beside the first and the last."""


def evaluate_rollout(
    checkpoint: Path,
    tokenizer_path: Path,
    packed: Path,
    episodes: Path,
    out: Path,
    settings: EvalSection,
    runtime: Runtime,
    *,
    seed: int,
) -> Report:
    """Judge a world model on held-out contexts.

    Writes into `out`: rollout.json and rollout.png (scores and their curves), rollout.gif and rollout.mp4 (all
    sources side by side), and the stills sheet.png (all sources), dream.png (truth above dream) and
    reconstruction.png (what the tokenizer keeps).

    Raises:
        ConfigError: the context is longer than the model's, or a step count is above its k_max.
        DataError: held-out episodes are too short.
        InputError: eval.video_features cannot be read.
        ArtifactError: the artifacts do not belong together.
    """
    network = load_video_features(settings.video_features)
    dreamer = load_dreamer(checkpoint, tokenizer_path, packed, episodes, settings, runtime, seed=seed)
    contexts, steps = dreamer.contexts, settings.sampling_steps or dreamer.source.sampler.steps
    columns = {
        "truth": contexts.frames.numpy(),
        "reconstruction": dreamer.reconstruction(),
        "dream": dreamer.dream(num_steps=steps),
        "shuffled actions": dreamer.dream(shuffled=True, num_steps=steps),
        "persistence": dreamer.persistence(),
    }
    if settings.fine_steps is not None:
        columns[f"dream, K = {settings.fine_steps}"] = dreamer.dream(num_steps=settings.fine_steps)
    after = {name: contexts.dreamed(column) for name, column in columns.items()}
    truth = after.pop("truth")
    features = {name: clip_features(frames, network) for name, frames in {"truth": truth, **after}.items()}
    judged = Judged(
        steps=steps,
        curves=horizon_table(truth, after),
        distances={name: frechet_distance(features["truth"], features[name]) for name in after},
        floor=halves_distance(features["truth"], seed),
        fine=_fine(after, settings),
    )
    with exclusive(out):
        _write_pictures(out, columns, judged.curves, settings, dreamer)
        return _report(out, checkpoint, judged, settings, dreamer)


@dataclass(frozen=True)
class Judged:
    """All numbers of one evaluation.

    Attributes:
        steps: K of the dream.
        curves: PSNR and SSIM of every source.
        distances: video distance of every source to the truth.
        floor: video distance between two halves of the truth, None where these are too few.
        fine: how far the dream at another K is from that at K, see `step_distance`; None without one.
    """

    steps: int
    curves: Mapping[str, HorizonCurve]
    distances: Mapping[str, float]
    floor: float | None
    fine: dict[str, float] | None


def _fine(after: Mapping[str, Frames], settings: EvalSection) -> dict[str, float] | None:
    if settings.fine_steps is None:
        return None
    return step_distance(after["dream"], after[f"dream, K = {settings.fine_steps}"])


def _write_pictures(
    out: Path,
    columns: dict[str, Frames],
    curves: Mapping[str, HorizonCurve],
    settings: EvalSection,
    dreamer: Dreamer,
) -> None:
    header, shown = dreamer.source.header, dreamer.contexts.num_shown
    rows = {name: column[: settings.gif_rows] for name, column in columns.items()}
    truth, made, dream = (columns[name] for name in ("truth", "reconstruction", "dream"))
    scale = max(1, round(PICTURE_PIXELS / truth.shape[2]))
    small = max(1, scale // 2)
    picture = side_by_side(rows, scale=scale, context_length=shown)
    fps = float(header.specs["frame"]["fps"])
    write_gif(out / "rollout.gif", picture, fps)
    write_mp4(out / "rollout.mp4", picture, fps)
    write_png(out / "sheet.png", source_sheet(columns, shown, small))
    write_png(out / "dream.png", dream_sheet(truth, dream, shown, small))
    write_png(out / "reconstruction.png", reconstruction_sheet(truth, made, small))
    plot_horizon(out / "rollout.png", curves, f"{header.kind} {header.fingerprint}, held-out contexts")


def _report(out: Path, checkpoint: Path, judged: Judged, settings: EvalSection, dreamer: Dreamer) -> Report:
    curves, horizon = judged.curves, len(next(iter(judged.curves.values())).psnr)
    marks = sorted({1, *(mark for mark in MARKS if mark < horizon), horizon})
    rows = [
        (
            name,
            f"{curve.psnr_mean:.2f}",
            *(f"{curve.psnr[mark - 1]:.2f}" for mark in marks),
            f"{curve.ssim_mean:.3f}",
            f"{judged.distances[name]:.4f}",
        )
        for name, curve in curves.items()
    ]
    dream, shuffled = curves["dream"].psnr_mean, curves["shuffled actions"].psnr_mean
    above = dream - curves["persistence"].psnr_mean
    data: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "fingerprint": dreamer.source.header.fingerprint,
        "contexts": settings.contexts,
        "context_length": settings.context_length,
        "horizon": settings.horizon,
        "sampling_steps": judged.steps,
        "labelled_contexts": dreamer.contexts.num_known,
        "heldout_episodes": list(dreamer.contexts.episodes),
        "curves": {name: curve.dump() | {"video_distance": judged.distances[name]} for name, curve in curves.items()},
        "dream_above_persistence_db": above,
        "dream_above_shuffled_db": dream - shuffled,
        "video_floor": judged.floor,
        "fine_steps": settings.fine_steps,
        "fine_distance": judged.fine,
    }
    data = sealed(data)
    write_json(out / "rollout.json", data)
    notes = [
        f"dream {above:+.2f} dB over persistence, {dream - shuffled:+.2f} dB over shuffled actions "
        f"(mean of steps 1-{horizon}, {settings.contexts} held-out contexts, K = {judged.steps})"
    ]
    if not dreamer.contexts.num_known:
        notes.append("no held-out window says what was done: dreams go without, and shuffled actions mean nothing")
    if judged.fine is not None:
        notes.append(
            f"from the same noise, K = {judged.steps} and K = {settings.fine_steps} are {judged.fine['pixels']:.2f} "
            f"of 255 apart in the first frame's pixels, {judged.fine['pixels_mean']:.2f} in those of all frames"
        )
    if judged.floor is not None:
        notes.append(f"video distance: to compare sources only; two halves of the truth are {judged.floor:.4f} apart")
    pictures = ", ".join(str(out / name) for name in ("rollout.gif", "sheet.png", "dream.png", "reconstruction.png"))
    notes.append(f"pictures: {pictures}; curves: {out / 'rollout.png'}")
    columns = ("source", "PSNR dB", *(f"+{mark}" for mark in marks), "SSIM", "video distance")
    return Report(f"dream of {horizon} frames", columns, rows, data, notes)
