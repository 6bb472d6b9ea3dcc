"""`agent finetune`: behaviour cloning, reward and continue heads on top of the dynamics, dynamics loss kept.

Shapes: B windows, T frames per window, L mtp_length. A batch holds relevant windows first and the others
after them (agent/batches.py): behaviour cloning is learned on the relevant ones, the dynamics loss on the others,
reward and continue on both.

Decision: relevant windows are shown at tau_context with d_min, which is how the agent meets frames when it
plays and when it dreams; the others carry the noise of the dynamics loss.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ahriuwu_cli.agent.batches import mixed_places, mixture, read_recorded
from ahriuwu_cli.agent.checkpoint import agent_config
from ahriuwu_cli.agent.config import AgentSection
from ahriuwu_cli.agent.heldout import GOAL as CLONING
from ahriuwu_cli.agent.heldout import FinetunedJudge
from ahriuwu_cli.agent.model import AgentModel, DistanceHead
from ahriuwu_cli.agent.objective import alive_loss, cloning_loss, reward_loss
from ahriuwu_cli.agent.occupancy import BucketsEver
from ahriuwu_cli.agent.relevance import opening, relevance, relevant_shares
from ahriuwu_cli.agent.rewards import require_reward_range
from ahriuwu_cli.core.artifact import Kind
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.lineage import require_parent
from ahriuwu_cli.core.memory import estimate_step_memory, require_memory
from ahriuwu_cli.core.training.batches import batch_generator
from ahriuwu_cli.core.training.loop import TrainResult, train
from ahriuwu_cli.core.training.stage import ArtifactFields, Goal, Opening, StageState
from ahriuwu_cli.dynamics.checkpoint import World, WorldSpecs, load_world
from ahriuwu_cli.dynamics.config import DynamicsModelConfig, ObjectiveConfig
from ahriuwu_cli.dynamics.model import Prediction
from ahriuwu_cli.dynamics.shortcut_forcing import corrupt, forcing_loss, snap
from ahriuwu_cli.dynamics.train import draw_inputs
from ahriuwu_cli.latents.heldout import heldout_windows
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows
from ahriuwu_cli.nn.running_rms import RunningRms

GOAL = replace(CLONING, others=("heldout_reward", "heldout_continue"))
"""What says how far finetuning has come."""


class AgentStage:
    """Finetuning of one agent."""

    losses = ("policy_loss", "reward_loss", "continue_loss", "flow")
    kind: Kind = "agent"

    def __init__(
        self,
        section: AgentSection,
        world: World,
        windows: LatentWindows,
        runtime: Runtime,
        seed: int,
        heldout: LatentWindows | None = None,
    ) -> None:
        self._section, self._world, self._windows, self._runtime = section, world, windows, runtime
        self._objective = ObjectiveConfig.model_validate(world.header.config["objective"])
        self.module = AgentModel(world.model.config, section.heads, agent_specs(world, windows))
        self.module.take_world(world.model.state_dict())
        self.module.to(runtime.device)
        self._tau_context = snap(world.sampler.tau_context, world.model.config.k_max)
        self._seed = seed
        self._rms = RunningRms()
        self._buckets = BucketsEver(self.module.twohot, runtime.device)
        self._judge = None if heldout is None else FinetunedJudge(section, windows, heldout, self._tau_context)
        self._parent_flow: float | None = None
        self._relevant = relevant_shares(windows, section.batch_length)

    @property
    def goal(self) -> Goal | None:
        """The likelihood of actions that were never learned from."""
        return None if self._judge is None else GOAL

    def heldout(self) -> dict[str, float]:
        """The heads (see `HeldoutPlay`), and the agent's own world beside the one that finetuning started from."""
        assert self._judge is not None
        if self._parent_flow is None:
            self._parent_flow = self._judge.flow(self._world.model)
        return {**self._judge.judge(self.module), "heldout_flow_parent": self._parent_flow}

    def opening(self) -> Opening:
        """How much of the data is relevant."""
        return opening(self._relevant, self._section)

    def trained(self) -> dict[str, nn.Parameter]:
        """The heads, the task embedding and the whole transformer."""
        return dict(self.module.named_parameters())

    def batch(self, step: int, part: int) -> LatentBatch:
        """Relevant windows, and others after them."""
        places = mixed_places(self._section, self._windows.sampler, batch_generator(self._seed, step, part))
        return read_recorded(self._section, self._windows, places)

    def loss(self, step: int, batch: LatentBatch) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Weighted sum of the normalised terms on one mixed batch."""
        del step
        num_relevant, _ = mixture(self._section.train.batch_size, self._section.relevant_fraction)
        losses, metrics = agent_losses(self.module, batch, num_relevant, self._objective, self._tau_context)
        weights = term_weights(self._section)
        total = torch.stack([weights[name] * self._rms.normalise(name, value) for name, value in losses.items()]).sum()
        return total, {**metrics, "reward_buckets_ever": self._buckets.see(batch.reward, batch.reward_valid)}

    def describe(self) -> ArtifactFields:
        """Both sections and the specs; parents up to the dynamics, the latents those of this training."""
        parent, data = self._world.header, self._windows.header
        return ArtifactFields(
            config=agent_config(self._section.model_dump(), parent.config),
            specs=parent.specs | {"tasks": self._windows.tasks},
            parents=data.parents | {"packed": data.fingerprint, "dynamics": parent.fingerprint},
            info={"relevant": self._relevant},
        )

    def state(self) -> StageState:
        """Running averages and the buckets used so far."""
        return StageState(self._rms.state() | self._buckets.state())

    def load_state(self, state: StageState) -> None:
        """Restore `state`."""
        self._rms.load_state(state.tensors)
        self._buckets.load_state(state.tensors)


def agent_specs(world: World, windows: LatentWindows) -> WorldSpecs:
    """The world's specs with the tasks of the windows, which are the agent's."""
    return replace(world.specs, tasks=tuple(windows.tasks))


def term_weights(section: AgentSection) -> dict[str, float]:
    """What each normalised loss term counts for.

    Decision: [D4] normalises the terms and names no weights. With equal ones a tiny model's policy stays at the
    marginal action frequencies for hundreds of steps: the gradients of the other terms, whose irreducible part is
    small, drown its own in the shared transformer (built-in game: accuracy 0.40 at step 340; 0.72 with 0.1). That is so
    with AdamW. With Muon equal weights are better for every term: on MinAtar Asterix, 700 steps, reward and continue
    weighing 0.1 against 1 ended at a policy of 1.362 and 1.347, a reward of 0.080 and 0.057, ends of 0.0199 and 0.0152.
    """
    return {
        "policy": 1.0,
        "reward": section.reward_weight,
        "continue": section.reward_weight,
        "dynamics": section.dynamics_weight,
    }


def agent_losses(
    model: AgentModel,
    batch: LatentBatch,
    num_relevant: int,
    objective: ObjectiveConfig,
    tau_context: float,
    cloning: DistanceHead | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The terms of [D4] Eq. 9 and the dynamics loss on a batch whose first `num_relevant` rows are relevant.

    Behaviour cloning is learned by the head `cloning`, the model's policy by default.

    Returns:
        Terms by name (those with rows to learn from) and metrics.
    """
    world = model.world
    count, length = batch.valid.shape
    relevant, others = slice(0, num_relevant), slice(num_relevant, count)
    device = batch.latents.device
    z_tilde = world.normalise(batch.latents)
    tau = torch.full((count, length), tau_context, device=device)
    d = torch.full_like(tau, 1 / world.config.k_max)
    action, known = batch.action[:, :length], batch.action_valid[:, :length].clone()
    separate = torch.zeros(count, dtype=torch.bool, device=device)
    z_tilde[relevant] = corrupt(z_tilde[relevant], torch.randn_like(z_tilde[relevant]), tau[relevant])
    forcing = None
    if num_relevant < count:
        inputs = draw_inputs(world, batch.rows(others), objective, tau_context)
        forcing = inputs.forcing
        z_tilde[others], tau[others], d[others] = forcing.z_tilde, forcing.levels.tau, forcing.levels.d
        known[others], separate[others] = inputs.action_valid, inputs.separate
    out: Prediction = world(z_tilde, tau, d, action, known, task=batch.task, separate=separate)
    assert out.agent is not None
    watching = batch.valid & ~separate[:, None]  # single images say nothing about what led to them
    is_relevant = torch.arange(count, device=device) < num_relevant
    losses: dict[str, Tensor] = {}
    metrics: dict[str, Tensor] = {}
    losses["reward"], more = reward_loss(
        model.twohot, model.reward(out.agent), batch.reward, batch.reward_valid, watching
    )
    metrics |= more
    losses["continue"], more = alive_loss(model.alive(out.agent), batch.terminal, batch.reward_valid, watching)
    metrics |= more
    if num_relevant:
        losses["policy"], more = cloning_loss(
            model.choices,
            (cloning or model.policy)(out.agent),
            batch.action,
            batch.action_valid,
            batch.valid & is_relevant[:, None],
        )
        metrics |= more
    if forcing is not None:
        losses["dynamics"], more = forcing_loss(out.z1_hat[others], forcing, batch.valid[others], world.config.k_max)
        metrics |= more
    return losses, metrics


def check_agent_memory(
    section: AgentSection, dynamics: DynamicsModelConfig, specs: WorldSpecs, runtime: Runtime
) -> None:
    """Refuse a step that does not fit, before training."""
    shape = (section.train.batch_size, section.batch_length)
    latent, width = specs.latent, specs.action.dim

    def loss(module: nn.Module) -> Tensor:
        assert isinstance(module, AgentModel)
        z, ones = torch.zeros(*shape, latent.num_tokens, latent.dim_token), torch.ones(shape)
        task = torch.zeros(shape[0], dtype=torch.long)
        with runtime.autocast():
            out: Prediction = module.world(z, ones * 0, ones, torch.zeros(*shape, width), ones.bool(), task=task)
            heads = (module.policy, module.reward, module.alive)
            values = [out.z1_hat, *(head(out.agent) for head in heads)]
            return torch.stack([value.square().mean() for value in values]).sum()

    def build() -> nn.Module:
        return AgentModel(dynamics, section.heads, specs)

    require_memory(runtime, estimate_step_memory(build, loss, section.train, runtime), "one agent step")


def finetune_agent(
    section: AgentSection, dynamics: Path, packed: Path, folder: Path, runtime: Runtime, *, seed: int, **options: Any
) -> TrainResult:
    """Finetune an agent on the dynamics at `dynamics` and the training split of `packed`.

    Args:
        section: the `[agent]` section.
        dynamics: trained dynamics.
        packed: the packed latents they were trained on.
        folder: where the artifact, its state and the metrics go.
        runtime: device and precision.
        seed: seed of the heads and windows.
        options: `resume`, `overwrite` and `budget` of the loop.

    Raises:
        ArtifactError: dynamics and latents do not belong together.
        ConfigError: the episodes do not have what one of `section.tasks` is rewarded for, or rewards that the heads
            cannot say.
    """
    world = load_world(dynamics, runtime.device)
    rule = relevance(section)
    windows = LatentWindows(packed, "train", section.tasks, rule)
    require_parent(dynamics, world.header, packed, windows.header)
    require_reward_range(section.heads, windows)
    check_agent_memory(section, world.model.config, agent_specs(world, windows), runtime)
    torch.manual_seed(seed)
    heldout = heldout_windows(packed, section.tasks, rule) if section.train.heldout_every else None
    stage = AgentStage(section, world, windows, runtime, seed, heldout)
    return train(stage, section.train, runtime, folder, seed=seed, **options)
