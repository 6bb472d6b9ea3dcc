"""`tokenizer train`: random clips of recorded frames, reconstructed.

Shapes: B clips, T frames per clip, H and W frame size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ahriuwu_cli.core.artifact import Kind
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.memory import estimate_step_memory, require_memory
from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.core.training.batches import batch_generator
from ahriuwu_cli.core.training.budget import UNLIMITED, Budget
from ahriuwu_cli.core.training.config import TrainSettings
from ahriuwu_cli.core.training.heldout import HELDOUT_SEED
from ahriuwu_cli.core.training.loop import TrainResult, train
from ahriuwu_cli.core.training.stage import ArtifactFields, Goal, StageState
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.nn.running_rms import RunningRms
from ahriuwu_cli.tokenizer.clips import ClipReader, Clips, ClipSampler
from ahriuwu_cli.tokenizer.config import TokenizerSection
from ahriuwu_cli.tokenizer.frozen import FrozenTokenizer, adopt_tokenizer
from ahriuwu_cli.tokenizer.loss import mean_square, psnr, reconstruction_loss
from ahriuwu_cli.tokenizer.perceptual import load_lpips
from ahriuwu_cli.tokenizer.protocol import Tokenizer, to_pixels
from ahriuwu_cli.tokenizer.regions import counted_pixels
from ahriuwu_cli.tokenizer.registry import module_class
from ahriuwu_cli.tokenizer.statistics import latent_statistics

GOAL = Goal("heldout_mse")
"""What says how far a tokenizer has come: mean squared error of counted pixels."""


class TokenizerStage:
    """Reconstruction training of one tokenizer."""

    losses = ("mse",)
    kind: Kind = "tokenizer"

    def __init__(self, section: TokenizerSection, episodes: Path, runtime: Runtime, seed: int) -> None:
        store = EpisodeStore.open(episodes)
        self._section, self._runtime, self._store = section, runtime, store
        self.module: Tokenizer = build_tokenizer(section, store.frame_spec).to(runtime.device)
        weight = section.loss.lpips_weight
        self._lpips = load_lpips(section.loss.lpips_weights_path).to(runtime.device) if weight else None
        self._counted = _counted_pixels(section, store.frame_spec, runtime.device)
        self._sampler, self._reader = ClipSampler(store, section.clip_length), ClipReader(store, section.clip_length)
        self._reader.look_at(store.ids("train"))
        self._seed = seed
        self._rms = RunningRms()
        self._total = section.train.steps
        self._heldout = _heldout_clips(store, section)

    @property
    def goal(self) -> Goal | None:
        """Reconstruction of frames that were never learned from."""
        return None if self._heldout is None else GOAL

    def heldout(self) -> dict[str, float]:
        """Error and PSNR over the same held-out clips every time, none of them masked."""
        assert self._heldout is not None
        errors, frames = [], self._heldout
        for part in torch.split(frames, self._section.train.batch_size):
            pixels = to_pixels(part.to(self._runtime.device))
            guess = self.module.decode(self.module.encode(pixels)).float()
            errors.append(mean_square(pixels, guess, self._counted) * len(part))
        mse = torch.stack(errors).sum() / len(frames)
        return {"heldout_mse": mse.item(), "heldout_psnr": psnr(mse).item()}

    def trained(self) -> dict[str, nn.Parameter]:
        """Every tensor of the tokenizer."""
        return dict(self.module.named_parameters())

    def plan(self, total: int) -> None:
        """The last step is a log point."""
        self._total = total

    def batch(self, step: int, part: int) -> Clips:
        """Clips from anywhere."""
        rng = batch_generator(self._seed, step, part)
        return Clips(self._reader.read(self._sampler.draw(rng, self._section.train.batch_size)))

    def loss(self, step: int, batch: Clips) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Loss of one batch of clips."""
        pixels = to_pixels(batch.frames)
        latents = self.module.encode_for_training(pixels, step)
        guess = self.module.decode(latents)
        weight = self._section.loss.lpips_weight
        loss, metrics = reconstruction_loss(pixels, guess, self._rms, self._lpips, weight, self._counted)
        if _is_log_point(step + 1, self._section.train, self._total):
            metrics |= latent_statistics(latents)
        return loss, dict(metrics)

    def describe(self) -> ArtifactFields:
        """The section, the frame spec, and the latent layout that later stages take."""
        return ArtifactFields(
            config=self._section.model_dump(),
            specs={
                "frame": self._store.frame_spec.model_dump(),
                "latent": self.module.latent_spec.model_dump(),
            },
            parents={"episodes": self._store.header.fingerprint},
            info={"heldout_episodes": self._store.ids("heldout")},
        )

    def state(self) -> StageState:
        """Running averages."""
        return StageState(self._rms.state())

    def load_state(self, state: StageState) -> None:
        """Restore `state`."""
        self._rms.load_state(state.tensors)


def _heldout_clips(store: EpisodeStore, section: TokenizerSection) -> Tensor | None:
    """Clips (B, T, H, W, 3) uint8 of the held-out split, always the same; None where no held-out episode has one."""
    settings, length = section.train, section.clip_length
    lengths = [store.record(id_).num_steps + 1 for id_ in store.ids("heldout")]
    if not settings.heldout_every or max(lengths, default=0) < length:
        return None
    rng = np.random.default_rng(HELDOUT_SEED)
    return ClipReader(store, length).read(ClipSampler(store, length, "heldout").draw(rng, settings.heldout_examples))


def _counted_pixels(section: TokenizerSection, frame: FrameSpec, device: torch.device) -> Tensor | None:
    """Pixels in the loss (H, W) bool; None when all are."""
    regions = section.loss.ignored_regions
    if not regions:
        return None
    try:
        return torch.from_numpy(counted_pixels(regions, frame.height, frame.width)).to(device)
    except ValueError as error:
        raise ConfigError(str(error), hint="give regions of the recorded frames, see `ahriuwu data info`") from error


def _is_log_point(done: int, settings: TrainSettings, total: int) -> bool:
    """True when the metrics of the step that makes `done` steps of `total` are written out."""
    cadences = (settings.log_every, settings.checkpoint_every, settings.heldout_every)
    return done == total or any(every and done % every == 0 for every in cadences)


def build_tokenizer(section: TokenizerSection, frame: FrameSpec) -> Tokenizer:
    """A freshly initialised tokenizer."""
    return module_class(section.model.type)(section.model, frame)


def check_tokenizer_memory(section: TokenizerSection, frame: FrameSpec, runtime: Runtime) -> None:
    """Refuse a step that does not fit, before data is read (LPIPS left out of the estimate)."""

    def loss(module: nn.Module) -> Tensor:
        assert isinstance(module, Tokenizer)
        shape = (section.train.batch_size, section.clip_length, 3, frame.height, frame.width)
        pixels = torch.zeros(shape)
        with runtime.autocast():
            return (module.reconstruct_for_training(pixels, 0) - pixels).square().mean()

    need = estimate_step_memory(lambda: build_tokenizer(section, frame), loss, section.train, runtime)
    require_memory(runtime, need, "one tokenizer step")


def train_tokenizer(
    section: TokenizerSection,
    episodes: Path,
    folder: Path,
    runtime: Runtime,
    *,
    seed: int,
    budget: Budget = UNLIMITED,
    **options: Any,
) -> TrainResult:
    """Train a tokenizer on the training split of `episodes` and write it into `folder`.

    A frozen tokenizer (see frozen.py) is not trained: its files are checked and its artifact is written.

    Args:
        section: the `[tokenizer]` section.
        episodes: an episode store.
        folder: where the artifact, its state and the metrics go.
        runtime: device and precision.
        seed: seed of weights and clips.
        budget: see the loop.
        options: `resume` and `overwrite` of the loop.
    """
    frame = EpisodeStore.open(episodes).frame_spec
    if issubclass(module_class(section.model.type), FrozenTokenizer):
        tokenizer = build_tokenizer(section, frame)
        assert isinstance(tokenizer, FrozenTokenizer)
        return adopt_tokenizer(section, tokenizer, episodes, folder, runtime, **options)
    check_tokenizer_memory(section, frame, runtime)
    torch.manual_seed(seed)
    stage = TokenizerStage(section, episodes, runtime, seed)
    return train(stage, section.train, runtime, folder, seed=seed, budget=budget, **options)
