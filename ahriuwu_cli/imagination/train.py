"""`imagine train`: policy and value heads learn from dreams; everything else is frozen ([D4] Sec. 3.3).

Shapes: B rollouts, C context frames, H horizon, D model width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ahriuwu_cli.agent.checkpoint import LoadedAgent, load_agent
from ahriuwu_cli.agent.distribution import ActionDistribution
from ahriuwu_cli.core.artifact import Kind, require_parent
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.training.loop import TrainResult, train
from ahriuwu_cli.core.training.stage import ArtifactFields, StageState
from ahriuwu_cli.dynamics.sampler import Dream
from ahriuwu_cli.imagination.config import ImagineSection
from ahriuwu_cli.imagination.model import ImaginationModel
from ahriuwu_cli.imagination.objective import lambda_returns, pmpo, reach_weights
from ahriuwu_cli.imagination.rollout import Rollout, imagine
from ahriuwu_cli.latents.windows import LatentWindows


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
        names = ("agent.policy.", "value.")
        return {name: value for name, value in self.module.named_parameters() if name.startswith(names)}

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
    value_loss = (weight * agent.twohot.loss(model.value(decisions), returns)).sum() / weight.sum()
    metrics |= {
        "policy_loss": policy_loss.detach(),
        "value_loss": value_loss.detach(),
        "imagined_return": (rollout.reward * weight).sum(dim=1).mean(),
        "imagined_end": 1 - (weight[:, -1] * rollout.alive[:, -1]).mean(),
        "value": value.mean(),
        "value_error": ((returns - value).abs() * weight).sum() / weight.sum(),
        "entropy": (policy.entropy().detach() * weight).sum() / weight.sum(),
    }
    return policy_loss + value_loss, metrics


def train_imagination(
    section: ImagineSection, agent_path: Path, packed: Path, folder: Path, runtime: Runtime, *, seed: int, **options: Any
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
    torch.manual_seed(seed)
    stage = ImagineStage(section, agent, windows, runtime, seed)
    return train(stage, section.train, runtime, folder, seed=seed, **options)
