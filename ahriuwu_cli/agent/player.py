"""An agent as a policy for real environments: frames in, actions out, one agent token per frame.

Shapes: N environments side by side, H x W pixels, A action width, K action logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ahriuwu_cli.agent.checkpoint import LoadedAgent, load_agent
from ahriuwu_cli.agent.distribution import ActionDistribution
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ArtifactError, ConfigError, DataError, InputError
from ahriuwu_cli.core.lineage import require_parent
from ahriuwu_cli.core.specs import ActionSpec
from ahriuwu_cli.core.training.compilation import compile_dreams
from ahriuwu_cli.dynamics.sampler import Dream
from ahriuwu_cli.episodes.alignment import live_action
from ahriuwu_cli.games.policies import SlotStreams
from ahriuwu_cli.tokenizer.checkpoint import load_tokenizer
from ahriuwu_cli.tokenizer.protocol import EncodeStream, Tokenizer, to_pixels


class AgentPolicy:
    """Acts from the agent token of each block, seeing at most the sampler's context.

    All randomness (context noise and choices) comes from a stream per episode, so an episode does not depend
    on those played beside it.

    Args:
        name: what reports and the episode store call it.
        agent: the loaded agent.
        tokenizer: the tokenizer its latents came from.
        runtime: device and precision.
        temperature: policy temperature.
        task: name of the task to play; the first one by default.

    Decision: a policy over latents of several frames chooses the actions of all these frames at once, before it
    sees the first of them; it is trained and judged in dreams only.

    Raises:
        ConfigError: the agent's latents cover several frames each.
        InputError: the agent knows no such task.
    """

    def __init__(
        self,
        name: str,
        agent: LoadedAgent,
        tokenizer: Tokenizer,
        runtime: Runtime,
        *,
        temperature: float,
        task: str | None = None,
    ) -> None:
        stride = agent.specs.latent.stride
        if stride > 1:
            raise ConfigError(
                f"agent {name} has latents of {stride} frames each; playing needs one latent per frame",
                hint="judge its dream with `ahriuwu eval rollout`, its choices with `ahriuwu eval offline`; to play, "
                "train with a tokenizer that has one latent per frame (cnn, transformer, cosmos of a CI kind)",
            )
        self.name = name
        self._agent, self._tokenizer, self._runtime = agent, tokenizer, runtime
        self._temperature = temperature
        self._task = _task_index(agent.specs.tasks, task)
        self._slots = SlotStreams()
        self._stream: EncodeStream
        self._dream: Dream
        self._last: np.ndarray

    def reset(self, num_envs: int, seed: int) -> None:
        """Get ready for `num_envs` slots."""
        self._slots.reset(num_envs, seed)
        self._stream = self._tokenizer.encode_stream()
        task = torch.full((num_envs,), self._task, device=self._runtime.device)
        self._dream = Dream(self._agent.model.world, self._agent.sampler, noise=self._slot_noise, task=task)
        self._last = np.zeros((num_envs, self._agent.specs.action.dim), np.float32)

    def require_spec(self, spec: ActionSpec) -> None:
        """Refuse an environment whose actions are not those the agent was trained on."""
        if spec != self._agent.specs.action:
            found = ", ".join(component.name for component in spec.components)
            wanted = ", ".join(component.name for component in self._agent.specs.action.components)
            raise ArtifactError(
                f"the environment's actions ({found}) are not those of agent {self.name} ({wanted})",
                hint="play the environment that the agent's episodes were recorded from",
            )

    @torch.no_grad()
    def act(self, frames: np.ndarray, first: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
        """Choose actions: frames (N, H, W, 3) uint8, first (N,) bool -> (N, A) float32."""
        device = self._runtime.device
        self._slots.begin(first, infos)
        action, valid = live_action(self._last, first)
        if first.any():
            rows = torch.from_numpy(first).to(device)
            self._stream.forget(rows)
            self._dream.forget(rows)
        pixels = to_pixels(torch.from_numpy(frames).to(device))[:, None]  # (N, 1, 3, H, W)
        with self._runtime.autocast():
            z = self._agent.model.world.normalise(self._stream.encode(pixels))
            blocks = torch.from_numpy(action).to(device)[:, None], torch.from_numpy(valid).to(device)[:, None]
            agent = self._dream.observe(z, *blocks)
            assert agent is not None
            logits = self._agent.model.policy_now(agent[:, 0])  # (N, K)
        if not logits.isfinite().all():  # a choice among them would be an action like any other (pitfall 15)
            raise DataError(
                f"agent {self.name} gives no finite numbers (NaN, inf) for its actions",
                hint="its weights are broken; look at them with `ahriuwu doctor`",
            )
        distribution = ActionDistribution(self._agent.model.choices, logits, self._temperature)
        uniform = np.stack([rng.random(logits.shape[-1]) for rng in self._slots.streams])
        chosen = distribution.sample(torch.from_numpy(uniform).float().to(device))  # (N, A)
        self._last = chosen.cpu().numpy().astype(np.float32)
        return self._last.copy()

    def _slot_noise(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise (N, ...) with each row from its slot's stream."""
        return torch.from_numpy(
            np.stack([rng.standard_normal(shape[1:], dtype=np.float32) for rng in self._slots.streams])
        )


def _task_index(tasks: tuple[str, ...], task: str | None) -> int:
    if task is None:
        return 0
    if task not in tasks:
        raise InputError(
            f"the agent knows no task {task!r}; expected one of {', '.join(tasks)}", hint="name one of its tasks"
        )
    return tasks.index(task)


def load_player(
    path: Path,
    tokenizer_path: Path,
    runtime: Runtime,
    *,
    temperature: float,
    name: str = "",
    task: str | None = None,
) -> AgentPolicy:
    """A policy from an agent or imagination file and its tokenizer; see AgentPolicy for `temperature` and `task`.

    Raises:
        ConfigError, InputError: see AgentPolicy.
        ArtifactError: the tokenizer is not the one the agent's latents came from.
    """
    agent = load_agent(path, runtime.device)
    tokenizer, header = load_tokenizer(tokenizer_path, runtime.device)
    require_parent(path, agent.header, tokenizer_path, header)
    runtime.serve(agent.model)
    if runtime.compile:
        compile_dreams(agent.model)
    served = runtime.serve(tokenizer)
    return AgentPolicy(name or agent.header.kind, agent, served, runtime, temperature=temperature, task=task)
