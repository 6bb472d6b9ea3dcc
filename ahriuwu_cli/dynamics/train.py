"""`dynamics train`: shortcut forcing on windows of packed latents, with alternating lengths.

Shapes: B windows, T frames per window, N latent tokens, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ahriuwu_cli.core.artifact import Kind
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.memory import estimate_step_memory, require_memory
from ahriuwu_cli.core.training.batches import batch_generator
from ahriuwu_cli.core.training.loop import TrainResult, train
from ahriuwu_cli.core.training.stage import ArtifactFields, Goal, StageState
from ahriuwu_cli.dynamics.checkpoint import WorldSpecs
from ahriuwu_cli.dynamics.config import DynamicsSection, ObjectiveConfig
from ahriuwu_cli.dynamics.heldout import GOAL, HeldoutWorld
from ahriuwu_cli.dynamics.model import DynamicsModel, Prediction
from ahriuwu_cli.dynamics.shortcut_forcing import Emphasis, Forcing, draw_levels, forcing_loss, prepare, snap
from ahriuwu_cli.latents.heldout import heldout_windows
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows


def batch_shape(section: DynamicsSection, step: int, total: int | None = None) -> tuple[int, int]:
    """(windows, frames per window) of a step: mostly short, now and then long, long only at the end.

    There are `total` steps, `train.steps` by default. `train.batch_size` counts short windows; a long batch holds as
    many frames in fewer windows.
    """
    settings = section.train
    total = settings.steps if total is None else total
    only_long = step >= total * (1 - section.long_only_fraction)
    if not only_long and step % section.long_every != section.long_every - 1:
        return settings.batch_size, section.short_length
    windows = max(1, settings.batch_size * section.short_length // section.long_length)
    return windows, section.long_length


def dynamics_loss(
    model: DynamicsModel, batch: LatentBatch, objective: ObjectiveConfig, tau_context: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Shortcut forcing on one batch (no agent token); noise, levels and image mode are drawn here."""
    inputs = draw_inputs(model, batch, objective, tau_context)
    forcing = inputs.forcing
    out: Prediction = model(
        forcing.z_tilde,
        forcing.levels.tau,
        forcing.levels.d,
        inputs.action,
        inputs.action_valid,
        separate=inputs.separate,
    )
    return forcing_loss(out.z1_hat, forcing, batch.valid, model.config.k_max)


@dataclass(frozen=True)
class ForcingInputs:
    """One batch ready for the network.

    Attributes:
        forcing: corrupted latents and their targets.
        action: (B, T, A); action_valid: (B, T) bool.
        separate: (B,) bool, examples treated as single images.
    """

    forcing: Forcing
    action: Tensor
    action_valid: Tensor
    separate: Tensor


def draw_inputs(
    model: DynamicsModel, batch: LatentBatch, objective: ObjectiveConfig, tau_context: float
) -> ForcingInputs:
    """Draw levels, noise, image mode and action dropout for a batch and compute its targets.

    `tau_context` is the signal level at which the sampler shows past frames.
    """
    z1 = model.normalise(batch.latents)  # (B, T, N, C)
    count, length = batch.valid.shape
    k_max = model.config.k_max
    emphasis = Emphasis(objective.context_fraction, objective.noise_fraction, snap(tau_context, k_max))
    levels = emphasis.lay_over(draw_levels(count, length, k_max, objective.bootstrap_fraction, z1.device), k_max)
    separate = torch.rand(count, device=z1.device) < objective.image_fraction
    labelled = torch.rand(count, 1, device=z1.device) >= objective.action_dropout
    action, known = batch.action[:, :length], batch.action_valid[:, :length] & labelled

    def denoise(z_tilde: Tensor, tau: Tensor, d: Tensor, rows: slice) -> Tensor:
        out: Prediction = model(z_tilde, tau, d, action[rows], known[rows], separate=separate[rows])
        return out.z1_hat

    forcing = prepare(
        denoise,
        z1,
        torch.randn_like(z1),
        levels,
        k_max,
        loss_space=objective.loss_space,
        ramped=objective.ramp,
    )
    return ForcingInputs(forcing, action, known, separate)


class DynamicsStage:
    """Training of the dynamics alone."""

    losses = ("flow",)
    kind: Kind = "dynamics"

    def __init__(self, section: DynamicsSection, packed: Path, runtime: Runtime, seed: int) -> None:
        self._section, self._runtime = section, runtime
        self._windows = LatentWindows(packed, "train")
        self.specs = window_specs(self._windows)
        self.module = DynamicsModel(section.model, self.specs.latent, self.specs.action).to(runtime.device)
        self._seed, self._total = seed, section.train.steps
        heldout = heldout_windows(packed) if section.train.heldout_every else None
        self._judge = (
            None if heldout is None else HeldoutWorld(heldout, *_judged_shape(section), section.sampler.tau_context)
        )

    @property
    def goal(self) -> Goal | None:
        """Denoising of frames that were never learned from."""
        return None if self._judge is None else GOAL

    def heldout(self) -> dict[str, float]:
        """See `HeldoutWorld`."""
        assert self._judge is not None
        return self._judge.judge(self.module)

    def trained(self) -> dict[str, nn.Parameter]:
        """Every tensor of the dynamics."""
        return dict(self.module.named_parameters())

    def plan(self, total: int) -> None:
        """Batches are long at the end of training, wherever that is."""
        self._total = total

    def batch(self, step: int, part: int) -> LatentBatch:
        """Windows from anywhere."""
        count, length = batch_shape(self._section, step, self._total)
        places = self._windows.sampler.draw(batch_generator(self._seed, step, part), count, length)
        return self._windows.read(places, length)

    def loss(self, step: int, batch: LatentBatch) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Loss of one batch of windows."""
        del step
        objective, tau_context = self._section.objective, self._section.sampler.tau_context
        loss, metrics = dynamics_loss(self.module, batch, objective, tau_context)
        return loss, dict(metrics)

    def describe(self) -> ArtifactFields:
        """The section, the data's specs, the packed latents and what they came from."""
        header = self._windows.header
        return ArtifactFields(
            config=self._section.model_dump(),
            specs=self.specs.dump(),
            parents=header.parents | {"packed": header.fingerprint},
        )

    def state(self) -> StageState:
        """Nothing: batches and noise are drawn by the step and by torch's generator."""
        return StageState()

    def load_state(self, state: StageState) -> None:
        """Nothing to take back."""
        del state


def _judged_shape(section: DynamicsSection) -> tuple[int, int, int]:
    """Held-out windows, frames per window, and windows in one pass, which is no larger than a training batch."""
    rows = max(1, section.train.batch_size * section.short_length // section.long_length)
    return section.train.heldout_examples, section.long_length, rows


def window_specs(windows: LatentWindows) -> WorldSpecs:
    """What packed latents say of their data."""
    return WorldSpecs(windows.action_spec, windows.frame_spec, windows.latent_spec, tuple(windows.tasks))


def check_dynamics_memory(section: DynamicsSection, specs: WorldSpecs, runtime: Runtime) -> None:
    """Refuse a step that does not fit, before data is read."""
    batch = max(
        (batch_shape(section, step) for step in (0, section.long_every - 1)), key=lambda shape: shape[0] * shape[1]
    )

    def loss(module: nn.Module) -> Tensor:
        assert isinstance(module, DynamicsModel)
        z = torch.zeros(*batch, specs.latent.num_tokens, specs.latent.dim_token)
        tau, action = torch.zeros(batch), torch.zeros(*batch, specs.action.dim)
        out: Prediction = module(z, tau, torch.ones(batch), action, torch.ones(batch, dtype=torch.bool))
        return out.z1_hat.square().mean()

    def build() -> DynamicsModel:
        return DynamicsModel(section.model, specs.latent, specs.action)

    need = estimate_step_memory(build, loss, section.train, runtime)
    require_memory(runtime, need, "one dynamics step")


def train_dynamics(
    section: DynamicsSection, packed: Path, folder: Path, runtime: Runtime, *, seed: int, **options: Any
) -> TrainResult:
    """Train dynamics on the training split of `packed` and write them into `folder`.

    Args:
        section: the `[dynamics]` section.
        packed: packed latents.
        folder: where the artifact, its state and the metrics go.
        runtime: device and precision.
        seed: seed of weights and windows.
        options: `resume`, `overwrite` and `budget` of the loop.
    """
    check_dynamics_memory(section, window_specs(LatentWindows(packed, "train")), runtime)
    torch.manual_seed(seed)
    stage = DynamicsStage(section, packed, runtime, seed)
    return train(stage, section.train, runtime, folder, seed=seed, **options)
