"""`eval rollout`: dreams from held-out contexts beside the truth, the tokenizer's ceiling and persistence.

Shapes: M contexts, C context frames, H horizon, T = C + H frames, H' and W' frame size, N latent tokens,
A action width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ahriuwu_cli.agent.checkpoint import load_agent
from ahriuwu_cli.core.artifact import Header, read_header, require_parent
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.files import write_json
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.dynamics.checkpoint import load_world
from ahriuwu_cli.dynamics.config import SamplerConfig
from ahriuwu_cli.dynamics.model import DynamicsModel
from ahriuwu_cli.dynamics.sampler import Dream, noise_from
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.evaluation.config import EvalSection
from ahriuwu_cli.evaluation.metrics import HorizonCurve, horizon_table
from ahriuwu_cli.evaluation.pictures import side_by_side, write_gif, write_mp4, write_png
from ahriuwu_cli.evaluation.plots import plot_horizon
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows
from ahriuwu_cli.tokenizer.checkpoint import load_tokenizer
from ahriuwu_cli.tokenizer.coding import decode_latents
from ahriuwu_cli.tokenizer.protocol import Tokenizer

DECODE_BATCH = 512
SHEET_STEPS = 8
PICTURE_PIXELS = 128
"""Frames are enlarged to about this many pixels in pictures."""


@dataclass(frozen=True)
class DreamSource:
    """A world model to be judged, with its sampler and header."""

    model: DynamicsModel
    sampler: SamplerConfig
    header: Header


def load_dream_source(path: Path, device: torch.device) -> DreamSource:
    """The world model of a dynamics, agent or imagination file."""
    if read_header(path, ("dynamics", "agent", "imagination")).kind == "dynamics":
        world = load_world(path, device)
        return DreamSource(world.model, world.sampler, world.header)
    agent = load_agent(path, device)
    return DreamSource(agent.model.world, agent.sampler, agent.header)


@torch.no_grad()
def dream_along(
    source: DreamSource, batch: LatentBatch, action: Tensor, context_length: int, runtime: Runtime, seed: int
) -> Tensor:
    """Dream the frames after the context under given actions.

    Args:
        source: the world model.
        batch: (M, T) true windows; their first `context_length` frames are shown.
        action: (M, T, A) block actions; those after the context drive the dream.
        context_length: C.
        runtime: device and precision.
        seed: of all noise; equal seeds give equal noise whatever the actions.

    Returns:
        (M, H, N, channels) latents as the tokenizer knows them, on the CPU.
    """
    model = source.model
    batch, action = batch.to(runtime.device), action.to(runtime.device)
    dream = Dream(model, source.sampler, noise=noise_from(torch.Generator().manual_seed(seed)))
    z = model.normalise(batch.latents)
    with runtime.autocast():
        shown = slice(0, context_length)
        dream.observe(z[:, shown], action[:, shown], batch.action_valid[:, shown])
        frames = [dream.step(action[:, t]).z for t in range(context_length, z.shape[1])]
    return model.denormalise(torch.stack(frames, dim=1)).float().cpu()


def shuffled_actions(action: Tensor, context_length: int, seed: int) -> Tensor:
    """Every window keeps its context's actions and gets those after it from another window: (M, T, A), M >= 2."""
    order = torch.randperm(len(action), generator=torch.Generator().manual_seed(seed))
    donor = torch.empty_like(order)
    donor[order] = order.roll(1)  # one cycle through all windows: nobody keeps its own
    return torch.cat([action[:, :context_length], action[donor, context_length:]], dim=1)


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
    """Judge a world model on held-out contexts; writes rollout.{json,png,gif,mp4} and sheet.png into `out`.

    Raises:
        ConfigError: the context is longer than the model's.
        DataError: held-out episodes are too short.
        ArtifactError: the artifacts do not belong together.
    """
    source = load_dream_source(checkpoint, runtime.device)
    tokenizer, tokenizer_header = load_tokenizer(tokenizer_path, runtime.device)
    windows = LatentWindows(packed, "heldout")
    store = EpisodeStore.open(episodes)
    require_parent(checkpoint, source.header, tokenizer_path, tokenizer_header)
    require_parent(checkpoint, source.header, packed, windows.header)
    require_parent(packed, windows.header, episodes, store.header)
    context, length = settings.context_length, settings.context_length + settings.horizon
    if context > source.sampler.context_length:
        raise ConfigError(
            f"eval.context_length is {context}; the model attends to {source.sampler.context_length} past frames",
            hint="lower eval.context_length",
        )
    places = windows.draw_places(np.random.default_rng(seed), settings.contexts, length)
    batch = windows.read(places, length)
    frames = torch.from_numpy(
        np.stack([store.read(windows.episodes[index].id).frames[start : start + length] for index, start in places])
    )
    columns = {"truth": frames.numpy()} | _columns(source, tokenizer, batch, frames, settings, runtime, seed)
    after = {name: column[:, context:] for name, column in columns.items()}
    curves = horizon_table(after["truth"], {name: after[name] for name in after if name != "truth"})
    _write_pictures(out, columns, curves, settings, source.header)
    return _report(out, checkpoint, curves, settings, source, windows)


def _columns(
    source: DreamSource,
    tokenizer: Tokenizer,
    batch: LatentBatch,
    frames: Tensor,
    settings: EvalSection,
    runtime: Runtime,
    seed: int,
) -> dict[str, np.ndarray]:
    """Whole sequences (M, T, H', W', 3) uint8 of each source to compare with the truth."""
    context = settings.context_length

    def decoded(action: Tensor) -> np.ndarray:
        dreamed = dream_along(source, batch, action, context, runtime, seed)
        whole = torch.cat([batch.latents[:, :context], dreamed], dim=1)
        return decode_latents(tokenizer, whole, runtime, DECODE_BATCH).numpy()

    last = frames[:, context - 1 : context].expand(-1, settings.horizon, -1, -1, -1)
    return {
        "reconstruction": decode_latents(tokenizer, batch.latents, runtime, DECODE_BATCH).numpy(),
        "dream": decoded(batch.action),
        "shuffled actions": decoded(shuffled_actions(batch.action, context, seed)),
        "persistence": torch.cat([frames[:, :context], last], dim=1).numpy(),
    }


def _write_pictures(
    out: Path,
    columns: dict[str, np.ndarray],
    curves: dict[str, HorizonCurve],
    settings: EvalSection,
    header: Header,
) -> None:
    rows = {name: column[: settings.gif_rows] for name, column in columns.items()}
    height = columns["truth"].shape[2]
    scale = max(1, round(PICTURE_PIXELS / height))
    picture = side_by_side(rows, scale=scale, context_length=settings.context_length)
    fps = float(header.specs["frame"]["fps"])
    write_gif(out / "rollout.gif", picture, fps)
    write_mp4(out / "rollout.mp4", picture, fps)
    write_png(out / "sheet.png", _sheet(columns, settings, scale))
    plot_horizon(out / "rollout.png", curves, f"{header.kind} {header.fingerprint}, held-out contexts")


def _sheet(columns: dict[str, np.ndarray], settings: EvalSection, scale: int) -> np.ndarray:
    """One context as a still: a row per source, a column for some steps of the horizon."""
    steps = np.unique(np.linspace(0, settings.horizon - 1, SHEET_STEPS).round().astype(int)) + settings.context_length
    names = list(columns)
    stacked = {
        f"+{step - settings.context_length + 1}": np.stack([columns[name][0, step] for name in names])[:, None]
        for step in steps
    }
    still: np.ndarray = side_by_side(stacked, scale=max(1, scale // 2), row_names=names)[0]
    return still


def _report(
    out: Path,
    checkpoint: Path,
    curves: dict[str, HorizonCurve],
    settings: EvalSection,
    source: DreamSource,
    windows: LatentWindows,
) -> Report:
    marks = sorted({1, *(h for h in (2, 4, 8, 16, 32, 64) if h < settings.horizon), settings.horizon})
    rows = [
        (
            name,
            f"{curve.psnr_mean:.2f}",
            *(f"{curve.psnr[mark - 1]:.2f}" for mark in marks),
            f"{curve.ssim_mean:.3f}",
        )
        for name, curve in curves.items()
    ]
    dream, shuffled = curves["dream"].psnr_mean, curves["shuffled actions"].psnr_mean
    above = dream - curves["persistence"].psnr_mean
    data = {
        "checkpoint": str(checkpoint),
        "fingerprint": source.header.fingerprint,
        "contexts": settings.contexts,
        "context_length": settings.context_length,
        "horizon": settings.horizon,
        "sampling_steps": source.sampler.steps,
        "heldout_episodes": [episode.id for episode in windows.episodes],
        "curves": {
            name: {
                "psnr": [float(v) for v in curve.psnr],
                "ssim": [float(v) for v in curve.ssim],
                "psnr_mean": curve.psnr_mean,
                "ssim_mean": curve.ssim_mean,
            }
            for name, curve in curves.items()
        },
        "dream_above_persistence_db": above,
        "dream_above_shuffled_db": dream - shuffled,
    }
    write_json(out / "rollout.json", data)
    notes = [
        f"dream {above:+.2f} dB over persistence, {dream - shuffled:+.2f} dB over shuffled actions "
        f"(mean of steps 1-{settings.horizon}, {settings.contexts} held-out contexts, K = {source.sampler.steps})",
        f"pictures: {out / 'rollout.gif'}, {out / 'sheet.png'}; curves: {out / 'rollout.png'}",
    ]
    columns = ("source", "PSNR dB", *(f"+{mark}" for mark in marks), "SSIM")
    return Report(f"dream of {settings.horizon} frames", columns, rows, data, notes)
