"""`agent finetune --from-scratch`: behaviour cloning without a world model, the baseline of [D4] Fig. 4.

Shapes: B windows, T frames per window, L mtp_length.

The network is the agent's, freshly initialised; all it learns from is the policy term of [D4] Eq. 9. What only
reads a world model (latents, reward, continue) stays as it was initialised.

Decision: every window of a batch is relevant and carries behaviour cloning. The finetuned agent clones a share of
its batch, so in equally many steps this baseline sees more actions than the agent it is compared with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ahriuwu_cli.agent.batches import read_recorded, read_windows, relevant_places
from ahriuwu_cli.agent.checkpoint import agent_config
from ahriuwu_cli.agent.config import AgentSection
from ahriuwu_cli.agent.heldout import GOAL, HeldoutPlay
from ahriuwu_cli.agent.model import AgentModel
from ahriuwu_cli.agent.objective import cloning_loss
from ahriuwu_cli.agent.relevance import opening, relevance, relevant_shares
from ahriuwu_cli.agent.train import check_agent_memory
from ahriuwu_cli.core.artifact import Kind
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.training.batches import batch_generator
from ahriuwu_cli.core.training.loop import TrainResult, train
from ahriuwu_cli.core.training.stage import ArtifactFields, Goal, Opening, StageState
from ahriuwu_cli.dynamics.config import DynamicsSection
from ahriuwu_cli.dynamics.shortcut_forcing import snap
from ahriuwu_cli.dynamics.train import window_specs
from ahriuwu_cli.latents.heldout import heldout_windows
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows

TRAINED = ("world.", "policy.")
UNREAD = ("world.read_latent.",)
"""Below `TRAINED`, but only a world model reads it."""


def learns_from_scratch(name: str) -> bool:
    """True for a tensor, by its name, that the baseline trains; the others stay as they were drawn."""
    return name.startswith(TRAINED) and not name.startswith(UNREAD)


class ScratchStage:
    """Cloning of one agent from freshly initialised weights."""

    losses = ("policy_loss",)
    kind: Kind = "agent"

    def __init__(
        self,
        section: AgentSection,
        dynamics: DynamicsSection,
        windows: LatentWindows,
        runtime: Runtime,
        seed: int,
        heldout: LatentWindows | None = None,
    ) -> None:
        self._section, self._dynamics, self._windows, self._runtime = section, dynamics, windows, runtime
        self.specs = window_specs(windows)
        self.module = AgentModel(dynamics.model, section.heads, self.specs).to(runtime.device)
        self._tau_context = snap(dynamics.sampler.tau_context, dynamics.model.k_max)
        self._seed = seed
        play = None if heldout is None else HeldoutPlay(section, windows, heldout, self._tau_context, heads=False)
        self._play = play
        self._relevant = relevant_shares(windows, section.batch_length)

    @property
    def goal(self) -> Goal | None:
        """The likelihood of actions that were never learned from."""
        return None if self._play is None else GOAL

    def heldout(self) -> dict[str, float]:
        """See `HeldoutPlay`."""
        assert self._play is not None
        return self._play.judge(self.module)

    def opening(self) -> Opening:
        """How much of the data is relevant."""
        return opening(self._relevant, self._section)

    def trained(self) -> dict[str, nn.Parameter]:
        """The policy head, and all of the transformer that an agent token reads."""
        return {name: parameter for name, parameter in self.module.named_parameters() if learns_from_scratch(name)}

    def batch(self, step: int, part: int) -> LatentBatch:
        """Relevant windows."""
        rng, count = batch_generator(self._seed, step, part), self._section.train.batch_size
        places = relevant_places(self._section, self._windows.sampler, rng, count)
        return read_recorded(self._section, self._windows, places)

    def loss(self, step: int, batch: LatentBatch) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Behaviour cloning on one batch of relevant windows."""
        del step
        loss, metrics = scratch_loss(self.module, batch, self._tau_context)
        return loss, dict(metrics)

    def describe(self) -> ArtifactFields:
        """The agent's section, sizes and sampler; parents up to the packed latents, no dynamics among them."""
        header = self._windows.header
        sizes = {"model": self._dynamics.model.model_dump(), "sampler": self._dynamics.sampler.model_dump()}
        return ArtifactFields(
            config=agent_config(self._section.model_dump(), sizes),
            specs=self.specs.dump(),
            parents=header.parents | {"packed": header.fingerprint},
            info={"from_scratch": True, "heads": ["policy"], "relevant": self._relevant},
        )

    def state(self) -> StageState:
        """Nothing: batches and noise are drawn by the step and by torch's generator."""
        return StageState()

    def load_state(self, state: StageState) -> None:
        """Nothing to take back."""
        del state


def scratch_loss(model: AgentModel, batch: LatentBatch, tau_context: float) -> tuple[Tensor, dict[str, Tensor]]:
    """-ln p(a_{t+n} | h_t) on windows shown at `tau_context` with d_min, as the finetuned agent's relevant ones are."""
    agent = read_windows(model, batch, tau_context)  # (B, T, D)
    return cloning_loss(model.choices, model.policy(agent), batch.action, batch.action_valid, batch.valid)


def train_scratch(
    section: AgentSection,
    dynamics: DynamicsSection,
    packed: Path,
    folder: Path,
    runtime: Runtime,
    *,
    seed: int,
    **options: Any,
) -> TrainResult:
    """Clone an agent from scratch on the training split of `packed`.

    Args:
        section: the `[agent]` section; its `relevant_fraction` has no say.
        dynamics: the `[dynamics]` section, of which sizes and sampler count.
        packed: packed latents.
        folder: where the artifact, its state and the metrics go.
        runtime: device and precision.
        seed: seed of weights and windows.
        options: `resume`, `overwrite` and `budget` of the loop.
    """
    rule = relevance(section)
    windows = LatentWindows(packed, "train", section.tasks, rule)
    check_agent_memory(section, dynamics.model, window_specs(windows), runtime)
    torch.manual_seed(seed)
    heldout = heldout_windows(packed, section.tasks, rule) if section.train.heldout_every else None
    stage = ScratchStage(section, dynamics, windows, runtime, seed, heldout)
    return train(stage, section.train, runtime, folder, seed=seed, **options)
