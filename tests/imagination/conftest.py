"""A trained agent of minuscule size, and a game of three states whose every number is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ahriuwu_cli.agent.config import HeadsConfig
from ahriuwu_cli.agent.model import AgentModel
from ahriuwu_cli.agent.train import finetune_agent
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import TrainingInterrupted
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec, LatentSpec
from ahriuwu_cli.dynamics.checkpoint import WorldSpecs
from ahriuwu_cli.dynamics.config import DynamicsModelConfig, SamplerConfig
from ahriuwu_cli.dynamics.model import Prediction
from ahriuwu_cli.dynamics.sampler import Dream
from ahriuwu_cli.dynamics.train import train_dynamics
from ahriuwu_cli.imagination.config import ImagineSection
from ahriuwu_cli.imagination.model import ImaginationModel
from ahriuwu_cli.imagination.train import ImagineStage, train_imagination
from ahriuwu_cli.latents.windows import LatentBatch
from ahriuwu_cli.pipeline.config import Run


@pytest.fixture(autouse=True)
def _quiet(no_tensorboard: None) -> None:
    """No TensorBoard in this folder."""


@pytest.fixture(scope="session")
def agent_path(packed_run: Run, cpu_runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dynamics and an agent after four steps each on the packed run."""
    folder, config = tmp_path_factory.mktemp("agent"), packed_run.config
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ahriuwu_cli.core.training.sinks._open_tensorboard", lambda folder, step: None)
        train_dynamics(config.dynamics, packed_run.packed, folder, cpu_runtime, seed=0, resume=False)
        dynamics = folder / "dynamics.safetensors"
        finetune_agent(config.agent, dynamics, packed_run.packed, folder / "a", cpu_runtime, seed=0, resume=False)
    return folder / "a" / "agent.safetensors"


# ---------------------------------------------------------------- three states

LEFT, RIGHT, END = 0, 1, 2
DIM = 16  # D; a read-out is (one-hot state, reward, continue, zeros)

# (state, action) -> (next state, reward, continue). With gamma 0.9 the best is to go right, then cash in 3.
# After the end lies a pit that nobody ever reaches: its rewards must not count.
GAME = {
    (LEFT, 0): (END, 1.0, 0.0),
    (LEFT, 1): (RIGHT, 0.0, 1.0),
    (RIGHT, 0): (END, 3.0, 0.0),
    (RIGHT, 1): (LEFT, 0.0, 1.0),
    (END, 0): (END, -5.0, 1.0),
    (END, 1): (END, -5.0, 1.0),
}


class PlainCache:
    """What the exact world remembers: the state it is in; a step counts once it is committed."""

    def __init__(self) -> None:
        self.state = self.written = torch.empty(0)

    def advance(self, steps: int) -> None:
        del steps
        self.state = self.written


class ExactWorld(nn.Module):
    """The game behind the face of dynamics: exact z1_hat for every tau, read-outs that say all there is to know."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(dim=DIM, k_max=8)
        self.latent = SimpleNamespace(num_tokens=1, dim_token=3)
        table = torch.tensor([[GAME[state, action] for action in (0, 1)] for state in (LEFT, RIGHT, END)])
        self.register_buffer("table", table, persistent=False)  # (3, 2, 3)
        self.register_buffer("latent_mean", torch.zeros(3), persistent=False)

    def normalise(self, latents: Tensor) -> Tensor:
        return latents

    def new_cache(self, context_length: int) -> PlainCache:
        del context_length
        return PlainCache()

    def forward(self, z_tilde, tau, d, action, action_valid, *, task=None, cache=None) -> Prediction:
        """z_tilde (B, T, 1, 3); with a task these blocks are looked at, without one the next is dreamed."""
        del tau, d
        if task is None:
            outcome = self.table[cache.state, action[:, -1, 0].long()]  # (B, 3)
            z1_hat = nn.functional.one_hot(outcome[:, 0].long(), 3).float()[:, None, None]
            return Prediction(z1_hat, None)
        state = z_tilde[:, :, 0].argmax(dim=-1)  # (B, T)
        before = torch.cat([cache.state[:, None] if len(cache.state) else state[:, :1], state[:, :-1]], dim=1)
        outcome = self.table[before, action[..., 0].long()]  # (B, T, 3): what the block's action led to
        known = action_valid[..., None]
        arrived = torch.where(known, outcome[..., 1:], torch.tensor([0.0, 1.0]))
        cache.written = state[:, -1]
        features = torch.cat([nn.functional.one_hot(state, 3).float(), arrived], dim=-1)
        return Prediction(z_tilde, nn.functional.pad(features, (0, DIM - 5)))


class ExactAgent(AgentModel):
    """Real heads for policy and values; reward and continue are read off the read-out."""

    def reward_now(self, agent: Tensor) -> Tensor:
        return agent[..., 3]

    def alive_now(self, agent: Tensor) -> Tensor:
        return agent[..., 4]


@dataclass(frozen=True)
class Arcade:
    """The three-state game to be dreamed and learned."""

    model: ImaginationModel

    def dream(self, count: int) -> Dream:
        """A fresh dream, noiseless."""
        task = torch.zeros(count, dtype=torch.long)
        return Dream(self.model.agent.world, SamplerConfig(steps=2, context_length=4), noise=torch.zeros, task=task)

    def contexts(self, *starts: int) -> LatentBatch:
        """Two recorded frames: one of the other state, then the start, reached by action 1."""
        now = torch.tensor(starts)
        frames = torch.stack([1 - now, now], dim=1)  # (B, 2)
        flags = torch.ones(len(starts), 2, dtype=torch.bool)
        return LatentBatch(
            latents=nn.functional.one_hot(frames, 3).float()[:, :, None],
            action=torch.tensor([[[0.0], [1.0]]] * len(starts)),
            action_valid=torch.tensor([[False, True]] * len(starts)),
            reward=torch.zeros(len(starts), 2),
            reward_valid=flags,
            terminal=~flags,
            valid=flags,
            task=torch.zeros(len(starts), dtype=torch.long),
        )

    def read_out(self, state: int, reward: float = 0.0, alive: float = 1.0) -> Tensor:
        """h of a state (D,)."""
        h = torch.zeros(DIM)
        h[state], h[3], h[4] = 1.0, reward, alive
        return h


@pytest.fixture(scope="session")
def arcade() -> Callable[..., Arcade]:
    """Make the game with fresh heads; `num_hidden` hidden layers."""

    def make(num_hidden: int = 1) -> Arcade:
        specs = WorldSpecs(
            ActionSpec(components=(ActionComponent(name="a", type="categorical", num_classes=2),)),
            FrameSpec(height=8, width=8, fps=1.0),
            LatentSpec(num_tokens=1, dim_token=3, layout="one-hot"),
            ("play",),
        )
        dynamics = DynamicsModelConfig(
            dim=DIM, num_layers=2, num_heads=2, num_kv_heads=1, time_every=2, num_registers=0, k_max=8
        )
        heads = HeadsConfig(dim_hidden=16, num_hidden=num_hidden, mtp_length=2, num_buckets=41, bucket_limit=3.0)
        torch.manual_seed(0)
        agent = ExactAgent(dynamics, heads, specs)
        agent.world = ExactWorld()  # type: ignore[assignment]
        return Arcade(ImaginationModel(agent))

    return make


@pytest.fixture
def straight_and_resumed(packed_run, agent_path, cpu_runtime, stop_at, tmp_path):
    """Train by a section in one go, and stopped at step k and gone on: the tensors of both states."""

    def call(section: ImagineSection, k: int) -> list[dict[str, Tensor]]:
        def train(folder: str, *, resume: bool) -> str:
            made = train_imagination(
                section, agent_path, packed_run.packed, tmp_path / folder, cpu_runtime, seed=1, resume=resume
            )
            return made.header.fingerprint

        whole = train("straight", resume=False)
        stop_at(ImagineStage, k)
        with pytest.raises(TrainingInterrupted):
            train("broken", resume=False)
        stop_at(ImagineStage, 0)
        torch.manual_seed(999)
        assert train("broken", resume=True) == whole
        states = [load_file(tmp_path / name / "imagination.state.safetensors") for name in ("straight", "broken")]
        assert states[0].keys() == states[1].keys()
        return states

    return call
