"""Two small sources of latents: six recorded episodes of the built-in game, and episodes made by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from ahriuwu_cli.core.artifact import Header, write_weights
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.latents import build
from ahriuwu_cli.latents.build import build_latents
from ahriuwu_cli.latents.config import LatentsSection
from ahriuwu_cli.latents.pack import pack_latents
from ahriuwu_cli.sources.record import record
from ahriuwu_cli.tokenizer.config import TokenizerSection
from ahriuwu_cli.tokenizer.train import TokenizerStage

CPU = Runtime(torch.device("cpu"), "fp32")
SECTION = TokenizerSection.model_validate(
    {
        "model": {"type": "cnn", "patch": 8, "dim_token": 3, "base_channels": 4},
        "loss": {"lpips_weight": 0.0},
        "train": {"steps": 1, "batch_size": 1, "learning_rate": 1e-3},
    }
)
SaveTokenizer = Callable[..., Header]


@pytest.fixture(scope="session")
def save_tokenizer() -> SaveTokenizer:
    """Write an untrained tokenizer for the episodes of a store, as its training stage describes it."""

    def save(path: Path, episodes: Path, seed: int = 0, **frame: object) -> Header:
        torch.manual_seed(seed)
        stage = TokenizerStage(SECTION, episodes, CPU, seed)
        for parameter in stage.module.parameters():
            parameter.data *= 2  # latents that differ more
        fields = stage.describe()
        specs = fields.specs | {"frame": fields.specs["frame"] | frame}
        tensors = stage.module.state_dict()
        return write_weights(
            path,
            "tokenizer",
            tensors,
            config=fields.config,
            specs=specs,
            parents=fields.parents,
            info=fields.info,
        )

    return save


@dataclass(frozen=True)
class Source:
    """Episodes, a tokenizer for them and the folders of the two latent stages."""

    root: Path

    @property
    def episodes(self) -> Path:
        return self.root / "episodes"

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer.safetensors"

    @property
    def latents(self) -> Path:
        return self.root / "latents"

    @property
    def packed(self) -> Path:
        return self.root / "packed"

    @property
    def store(self) -> EpisodeStore:
        return EpisodeStore.open(self.episodes)

    def build(self, **settings: object) -> None:
        build_latents(self.episodes, self.tokenizer, self.latents, LatentsSection(**settings), CPU)

    def pack(self, **settings: object) -> None:
        pack_latents(self.episodes, self.latents, self.packed, LatentsSection(**settings))


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory, save_tokenizer: SaveTokenizer) -> Source:
    """Six episodes of the built-in game (4 train, 2 held out), built and packed. Read only."""
    source = Source(tmp_path_factory.mktemp("recorded"))
    data = DataSection(episodes=6, noise=0.3, max_episode_steps=20, heldout_fraction=0.34)
    record(source.episodes, data, seed=0)
    save_tokenizer(source.tokenizer, source.episodes)
    source.build(batch_size=8)
    source.pack()
    return source


LENGTHS = (1, 7, 12, 4, 9, 3, 6, 11, 5, 2)  # steps per episode


def hand_made(index: int) -> Episode:
    """An episode whose arrays differ at every step; every third action is unknown, some end in a terminal.

    Every third episode knows of no event.
    """
    steps, rng = LENGTHS[index], np.random.default_rng(index)
    ended = np.arange(steps) == steps - 1
    return Episode(
        frames=rng.integers(0, 256, (steps + 1, 16, 16, 3), dtype=np.uint8),
        actions=rng.uniform(0.1, 1, (steps, 2)).astype(np.float32),
        action_valid=np.arange(steps) % 3 != 1,
        rewards=rng.choice([-1.0, 0.0, 0.0, 0.0, 0.5], steps).astype(np.float32),
        terminals=ended & (index % 2 == 0),
        truncations=ended & (index % 2 == 1),
        timestamps=np.arange(steps + 1) / 10,
        task=("climb", "swim")[index % 2],
        seed=index,
        policy="hand",
        events={"splash": (np.arange(steps) % 4 == index % 4).astype(np.float32)} if index % 3 else {},
    )


@pytest.fixture(scope="session")
def by_hand(tmp_path_factory: pytest.TempPathFactory, save_tokenizer: SaveTokenizer) -> Source:
    """Ten episodes of 2 to 13 frames in shards of at least 15 frames, latents in fp32. Read only."""
    source = Source(tmp_path_factory.mktemp("by_hand"))
    spec = ActionSpec(components=(ActionComponent(name="aim", type="continuous", dim=2, low=0, high=1),))
    frame = FrameSpec(height=16, width=16, fps=10)
    store = EpisodeStore.create(source.episodes, spec, frame, "Some-v0", {}, heldout_fraction=0.3)
    store.append([hand_made(index) for index in range(len(LENGTHS))])
    save_tokenizer(source.tokenizer, source.episodes)
    source.build(dtype="float32")
    source.pack(dtype="float32", shard_frames=15)
    return source


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frames of every episode that is really encoded."""
    counts: list[int] = []
    encode = build.encode_pieces

    def spy(tokenizer, pieces, runtime):
        whole = list(pieces)
        counts.append(sum(map(len, whole)))
        return encode(tokenizer, whole, runtime)

    monkeypatch.setattr(build, "encode_pieces", spy)
    return counts
