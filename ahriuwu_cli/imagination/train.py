"""`imagine train`: policy and value heads learn from dreams; everything else is frozen ([D4] Sec. 3.3).

Shapes: B rollouts, C context frames, H horizon, D model width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ahriuwu_cli.agent.checkpoint import LoadedAgent, agent_from_header, load_agent
from ahriuwu_cli.agent.distribution import ActionDistribution
from ahriuwu_cli.agent.occupancy import occupancy
from ahriuwu_cli.core.artifact import Kind, require_parent
from ahriuwu_cli.core.device import Runtime, estimate_step_memory, require_memory
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.training.loop import TrainResult, train
from ahriuwu_cli.core.training.stage import ArtifactFields, StageState
from ahriuwu_cli.dynamics.sampler import Dream
from ahriuwu_cli.imagination.config import ImagineSection
from ahriuwu_cli.imagination.model import ImaginationModel
from ahriuwu_cli.imagination.objective import lambda_returns, pmpo, reach_weights
from ahriuwu_cli.imagination.rollout import Rollout, imagine
from ahriuwu_cli.latents.windows import LatentWindows
from ahriuwu_cli.nn.cache import MOST_NEW


class ImagineStage:
    """Training of the policy and value heads of one agent inside its dream."""

    kind: Kind = "imagination"

    def __init__(
        self, section: ImagineSection, agent: LoadedAgent, windows: LatentWindows, runtime: Runtime, seed: int
    ) -> None:
        self._section, self._agent, self._windows, self._runtime = section, agent, windows, runtime
        self.module = ImaginationModel(agent.model).to(runtime.device)
        self._rng = np.random.default_rng(seed)
        self._rollout: Rollout | None = None
        self._uses_ends = windows.has_ends()

    def trained(self) -> dict[str, nn.Parameter]:
        """The policy's and the value's tensors, nothing else."""
        return self.module.trained()

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """PMPO and value loss on a batch of rollouts, drawn anew every `updates_per_rollout` steps."""
        settings = self._section
        if self._rollout is None or step % settings.updates_per_rollout == 0:
            self._rollout = self._dream()
        if step:
            self.module.follow(settings.value_ema)
        loss, metrics = imagination_loss(self.module, self._rollout, settings)
        return loss, dict(metrics)

    def _dream(self) -> Rollout:
        settings = self._section
        context = self._windows.draw_contexts(self._rng, settings.train.batch_size, settings.context_length)
        context = context.to(self._runtime.device)
        dream = Dream(
            self.module.agent.world,
            self._agent.sampler,
            noise=torch.randn,
            task=context.task,
            num_steps=settings.sampling_steps,
        )
        return imagine(
            self.module.agent, dream, context, settings.horizon, settings.temperature, uses_ends=self._uses_ends
        )

    def describe(self) -> ArtifactFields:
        """The three sections of the heads' making and the specs; parents up to the agent."""
        parent = self._agent.header
        return ArtifactFields(
            config=parent.config | {"imagine": self._section.model_dump()},
            specs=parent.specs,
            parents=parent.parents | {"agent": parent.fingerprint},
        )

    def state(self) -> StageState:
        """Loader position and the rollouts in use."""
        tensors = {} if self._rollout is None else self._rollout.tensors()
        return StageState(tensors, {"rng": self._rng.bit_generator.state})

    def load_state(self, state: StageState) -> None:
        """Restore `state`."""
        self._rng.bit_generator.state = state.values["rng"]
        if state.tensors:
            self._rollout = Rollout(**{k: v.to(self._runtime.device) for k, v in state.tensors.items()})


def imagination_loss(
    model: ImaginationModel, rollout: Rollout, settings: ImagineSection
) -> tuple[Tensor, dict[str, Tensor]]:
    """PMPO for the policy and two-hot regression of the lambda-returns for the value."""
    decisions = rollout.agent[:, :-1]  # (B, H, D)
    agent = model.agent
    slow = settings.value_ema > 0
    with torch.no_grad():
        next_value = model.value_now(rollout.agent[:, 1:], slow=slow)
        returns = lambda_returns(rollout.reward, rollout.alive, next_value, settings.gamma, settings.lambda_return)
        value = model.value_now(decisions)
        weight = reach_weights(rollout.alive)
    policy = ActionDistribution(agent.choices, agent.policy_now(decisions))
    prior = ActionDistribution(agent.choices, model.prior_now(decisions).detach())
    policy_loss, metrics = pmpo(
        policy.log_prob(rollout.action), returns - value, policy.kl(prior), weight, settings.alpha, settings.beta
    )
    value_logits = model.value(decisions)  # (B, H, N)
    value_loss = (weight * agent.twohot.loss(value_logits, returns)).sum() / weight.sum()
    metrics |= {
        "policy_loss": policy_loss.detach(),
        "value_loss": value_loss.detach(),
        "imagined_return": (rollout.reward * weight).sum(dim=1).mean(),
        "imagined_end": 1 - (weight[:, -1] * rollout.alive[:, -1]).mean(),
        "value": value.mean(),
        "value_error": ((returns - value).abs() * weight).sum() / weight.sum(),
        **occupancy("value", agent.twohot, value_logits, returns, weight > 0),
        "entropy": (policy.entropy().detach() * weight).sum() / weight.sum(),
    }
    return policy_loss + value_loss, metrics


def check_imagination_memory(section: ImagineSection, agent: LoadedAgent, runtime: Runtime) -> None:
    """Refuse a step that does not fit, before training: weights, the heads' step, and the dream's cache."""
    shape = (section.train.batch_size, section.horizon)  # (B, H)
    world, layout = agent.model.world.config, agent.model.world.layout

    def build() -> nn.Module:
        model = ImaginationModel(agent_from_header(agent.header)).requires_grad_(False)
        for parameter in model.trained().values():
            parameter.requires_grad_(True)
        return model

    def loss(module: nn.Module) -> Tensor:
        assert isinstance(module, ImaginationModel)
        seen = torch.zeros(shape[0], shape[1] + 1, world.dim)
        action = torch.zeros(*shape, agent.specs.action.dim)
        with runtime.autocast():
            rollout = Rollout(seen, action, torch.zeros(shape), torch.ones(shape))
            return imagination_loss(module, rollout, section)[0]

    width = layout.num_tokens * world.num_kv_heads * (world.dim // world.num_heads)  # S * G * E
    slots = (agent.sampler.context_length + MOST_NEW) * (world.num_layers // world.time_every)
    cache = 2 * shape[0] * slots * width * (4 if runtime.precision == "fp32" else 2)  # keys and values
    need = estimate_step_memory(build, loss, section.train, runtime) + cache
    require_memory(runtime, need, "one imagination step")


def check_contexts(section: ImagineSection, agent: LoadedAgent, windows: LatentWindows) -> None:
    """Refuse contexts that the world model does not attend to or that no episode has, before training.

    Raises:
        ConfigError: the contexts are longer than the model's.
        DataError: every episode is too short.
    """
    limit = agent.sampler.context_length
    if section.context_length > limit:
        raise ConfigError(
            f"imagine.context_length is {section.context_length}; the model attends to {limit} past frames",
            hint="lower imagine.context_length",
        )
    windows.draw_contexts(np.random.default_rng(0), 1, section.context_length)


def train_imagination(
    section: ImagineSection,
    agent_path: Path,
    packed: Path,
    folder: Path,
    runtime: Runtime,
    *,
    seed: int,
    **options: Any,
) -> TrainResult:
    """Train the agent at `agent_path` in dreams that start from the training split of `packed`.

    Args:
        section: the `[imagine]` section.
        agent_path: a finetuned agent.
        packed: the packed latents its dynamics were trained on.
        folder: where the artifact, its state and the metrics go.
        runtime: device and precision.
        seed: seed of the value head, contexts and dreams.
        options: `resume` and `overwrite` of the loop.

    Raises:
        ArtifactError: agent and latents do not belong together.
        ConfigError: the section asks for what the world model cannot do.
        DataError: every episode is too short.
        DeviceError: a step does not fit into the memory that is free.
    """
    agent = load_agent(agent_path, runtime.device)
    windows = LatentWindows(packed, "train")
    require_parent(agent_path, agent.header, packed, windows.header)
    k_max = agent.model.world.config.k_max
    if section.sampling_steps > k_max or section.sampling_steps & (section.sampling_steps - 1):
        raise ConfigError(
            f"imagine.sampling_steps is {section.sampling_steps}; "
            f"expected a power of two up to the dynamics' k_max {k_max}",
            hint="correct imagine.sampling_steps",
        )
    check_contexts(section, agent, windows)
    check_imagination_memory(section, agent, runtime)
    torch.manual_seed(seed)
    stage = ImagineStage(section, agent, windows, runtime, seed)
    return train(stage, section.train, runtime, folder, seed=seed, **options)
