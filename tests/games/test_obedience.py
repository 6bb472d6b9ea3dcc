"""Whether environments obey their seed, and what a recording says of one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.frames import FrameTransform
from ahriuwu_cli.games.answers import frames_per_second
from ahriuwu_cli.games.environment import GameEnv
from ahriuwu_cli.games.obedience import obeys_seed
from ahriuwu_cli.sources.record import record

GLOBAL = np.random.default_rng(0)


class Noise(gymnasium.Env[Any, Any]):
    """Frames or rewards of noise, from the generator that the seed begins anew or from one that nothing does."""

    observation_space = spaces.Box(0, 255, (32, 32, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def __init__(self, deaf: str = "", fps: Any = None) -> None:
        self.deaf, self.metadata = deaf, {"render_fps": fps}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.picture(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward = (GLOBAL if self.deaf == "rewards" else self.np_random).random()
        return self.picture(), reward, self.steps == 3, False, {}

    def picture(self) -> np.ndarray:
        rng = GLOBAL if self.deaf == "frames" else self.np_random
        still = np.zeros((32, 32, 3), np.uint8)
        return still if self.deaf == "still" else rng.integers(0, 256, (32, 32, 3), np.uint8)


@pytest.fixture(autouse=True)
def noise() -> Iterator[None]:
    gymnasium.register("Noise-v0", entry_point=Noise)
    yield
    del gymnasium.registry["Noise-v0"]


@pytest.mark.parametrize(("deaf", "obeys"), [("", True), ("still", True), ("frames", False), ("rewards", False)])
def test_an_environment_obeys_its_seed_or_not(deaf: str, obeys: bool) -> None:
    assert obeys_seed(GameEnv("Noise-v0", FrameTransform(8, 8), options={"deaf": deaf})) is obeys


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("ahriuwu/Bricks-v0", {"sticky": 0.5}),
        ("ALE/Breakout-v5", {"repeat_action_probability": 0.25}),
        ("MinAtar/Breakout-v1", {}),
        ("MiniGrid-Dynamic-Obstacles-5x5-v0", {}),
        ("VizdoomBasic-v1", {}),
    ],
)
def test_the_games_of_the_extras_obey(env_id: str, options: dict[str, Any]) -> None:
    for prefix, module in (("ALE", "ale_py"), ("MinAtar", "minatar"), ("MiniGrid", "minigrid"), ("Viz", "vizdoom")):
        if env_id.startswith(prefix):
            pytest.importorskip(module)
    env = GameEnv(env_id, FrameTransform(32, 32), options=options)
    assert obeys_seed(env)
    env.close()


def test_a_recording_says_what_is_odd_of_its_game(tmp_path: Path) -> None:
    """Seeds that are not obeyed, rates that are none, pictures that never change; nothing of a sound game."""
    for name, options, found in (
        ("sound", {}, []),
        ("deaf", {"deaf": "rewards"}, ["Noise-v0 does not obey its seed"]),
        ("still", {"deaf": "still", "fps": "fast"}, ["render_fps is 'fast', which is no rate", "frames are black"]),
    ):
        data = DataSection(env="Noise-v0", env_options=options, height=8, width=8, episodes=2, policy="random")
        said = record(tmp_path / name, data, 0).notes
        notes = [note for note in said if not note.startswith(("store ", "frames 8x8"))]
        assert len(notes) == len(found)
        for note, part in zip(notes, found, strict=True):
            assert part in note


@pytest.mark.parametrize(
    ("found", "fps", "noted"),
    [
        (30, 30.0, False),
        (np.int64(30), 30.0, False),
        (np.float32(12.5), 12.5, False),
        (np.array(60), 60.0, False),
        (None, 15.0, False),
        (0, 15.0, False),
        (-3, 15.0, True),
        (True, 15.0, True),
        (float("nan"), 15.0, True),
        (float("inf"), 15.0, True),
        (1e9, 15.0, True),
        ("30", 15.0, True),
    ],
)
def test_the_rate_of_frames(found: Any, fps: float, noted: bool) -> None:
    """A NumPy integer became 15."""
    assert frames_per_second({"render_fps": found}) == (fps, frames_per_second({"render_fps": found})[1])
    assert bool(frames_per_second({"render_fps": found})[1]) is noted
    assert frames_per_second(None) == (15.0, [])


def test_a_rate_may_be_given() -> None:
    env = GameEnv("Noise-v0", FrameTransform(8, 8), options={"fps": "fast"}, fps=24.0)
    assert (env.frame_spec.fps, env.notes) == (24.0, [])
