"""Who chooses actions where only recordings are to be had: agents that read latents, and guesses that look at nothing.

Shapes: B rows side by side, T latents shown at once, N latent tokens, C channels, A action width, K action logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ahriuwu_cli.agent.checkpoint import LoadedAgent, load_agent
from ahriuwu_cli.agent.distribution import ActionChoices
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.training.compilation import compile_dreams
from ahriuwu_cli.dynamics.sampler import Dream, noise_from

Look = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Next latents (B, T, N, C) as the tokenizer knows them, the actions that led to them (B, T, A) and their validity
(B, T), to the logits (B, T, K) of what is done on seeing each. Several latents at once only at the start."""


class Actor(Protocol):
    """Somebody whose choices are judged."""

    @property
    def choices(self) -> ActionChoices:
        """How logits and actions correspond."""
        ...

    def begin(self, task: Tensor, seed: int) -> Look:
        """Begin to look at B sequences, each with its task (B,); `seed` is that of context noise."""
        ...


@dataclass(frozen=True)
class Reader:
    """An agent: it sees latents as it does when it plays, one token read out of its own network for each."""

    agent: LoadedAgent

    @property
    def choices(self) -> ActionChoices:
        """See Actor."""
        return self.agent.model.choices

    def begin(self, task: Tensor, seed: int) -> Look:
        """See Actor."""
        model = self.agent.model
        noise = noise_from(torch.Generator().manual_seed(seed))
        past = Dream(model.world, self.agent.sampler, noise=noise, task=task)

        def look(latents: Tensor, action: Tensor, action_valid: Tensor) -> Tensor:
            read = past.observe(model.world.normalise(latents), action, action_valid)  # (B, T, D)
            assert read is not None, "a task is given"
            return model.policy_now(read)

        return look


@dataclass(frozen=True)
class Guess:
    """One distribution whatever is seen: logits (K,)."""

    choices: ActionChoices
    logits: Tensor

    def begin(self, task: Tensor, seed: int) -> Look:
        """See Actor."""
        del task, seed
        return lambda latents, action, action_valid: self.logits.to(latents.device).expand(*latents.shape[:2], -1)


def load_reader(path: Path, runtime: Runtime) -> Reader:
    """An agent or imagination file, on the runtime's device; see `load_agent` for errors."""
    agent = load_agent(path, runtime.device)
    runtime.serve(agent.model)
    if runtime.compile:
        compile_dreams(agent.model)
    return Reader(agent)
