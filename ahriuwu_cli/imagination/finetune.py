"""Imagination with a transformer that learns too: the losses on recorded data stay ([D4] Sec. 3.3).

Shapes: B rollouts, H horizon, D model width.

Every step has two batches. The rollouts are read again with gradient, so that PMPO and value loss reach the
transformer. A mixed batch of recorded windows, as in agent finetuning, keeps it a world model: dynamics loss, reward
and continue, and behaviour cloning. Decision: cloning trains the prior, whose head has to follow the transformer; the
policy is trained by PMPO alone. Decision: the recorded batch is one micro-batch of the agent's own section, whose
`accumulate` has no meaning here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ahriuwu_cli.agent.batches import mixed_places, mixture, read_recorded
from ahriuwu_cli.agent.checkpoint import LoadedAgent
from ahriuwu_cli.agent.config import AgentSection
from ahriuwu_cli.agent.train import agent_losses, term_weights
from ahriuwu_cli.dynamics.config import ObjectiveConfig
from ahriuwu_cli.dynamics.shortcut_forcing import snap
from ahriuwu_cli.imagination.config import ImagineSection
from ahriuwu_cli.imagination.guard import Outside
from ahriuwu_cli.imagination.losses import Terms, imagination_terms
from ahriuwu_cli.imagination.model import ImaginationModel
from ahriuwu_cli.imagination.rollout import Rollout, read_again
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows
from ahriuwu_cli.nn.running_rms import RunningRms


def agent_section(agent: LoadedAgent) -> AgentSection:
    """The `[agent]` section that an agent was finetuned with."""
    return AgentSection.model_validate(agent.header.config["agent"])


class Finetuning:
    """The loss of a step in which the transformer learns.

    Args:
        agent: the agent that training starts from; its header says how recorded batches are made.
        windows: recorded windows.
    """

    def __init__(self, agent: LoadedAgent, windows: LatentWindows) -> None:
        self._section = agent_section(agent)
        self._objective = ObjectiveConfig.model_validate(agent.header.config["dynamics"]["objective"])
        self._sampler = agent.sampler
        self._tau_context = snap(agent.sampler.tau_context, agent.model.world.config.k_max)
        self._windows = windows
        self._rms = RunningRms()

    def batch(self, rng: np.random.Generator) -> LatentBatch:
        """Recorded windows, as the agent was finetuned on."""
        return read_recorded(self._section, self._windows, mixed_places(self._section, self._windows.sampler, rng))

    def loss(
        self,
        model: ImaginationModel,
        rollout: Rollout,
        settings: ImagineSection,
        outside: Outside,
        recorded: LatentBatch,
        *,
        value_only: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of all terms, each over its running RMS; those of the recorded batch weigh what they do in [agent].

        `recorded` is what `batch` gave. With `value_only` PMPO is not among them. Rewards and continues of a rollout
        stay as they were read when it was dreamed.
        """
        agent = read_again(model.agent, rollout, self._tau_context, self._sampler.context_length)
        terms, metrics = imagination_terms(model, replace(rollout, agent=agent), settings, outside)
        num_relevant, _ = mixture(self._section.train.batch_size, self._section.relevant_fraction)
        found, more = agent_losses(
            model.agent, recorded, num_relevant, self._objective, self._tau_context, cloning=model.prior
        )
        weights = term_weights(self._section)
        losses = [self._rms.normalise("value", terms.value)]
        if not value_only:
            losses.append(self._pmpo(terms))
        for name, value in found.items():
            losses.append(weights[name] * self._rms.normalise(f"recorded_{name}", value))
        named = {name.replace("policy", "prior"): value for name, value in more.items()}
        return torch.stack(losses).sum(), {**named, **metrics}

    def _pmpo(self, terms: Terms) -> Tensor:
        """PMPO over the running RMS of what it weighs.

        Decision: not of its own value, a difference that is zero for a uniform policy and would blow it up.
        """
        share = self._rms.normalise("pmpo", terms.weighed) / terms.weighed.clamp_min(1e-8)
        return terms.policy * share.detach()

    def state(self) -> dict[str, Tensor]:
        """The running averages."""
        return self._rms.state()

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state` gave."""
        self._rms.load_state(tensors)
