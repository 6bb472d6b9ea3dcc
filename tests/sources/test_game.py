"""Pitfall 43: who appends to a store, or plays what was learned from it, plays the game that was recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ahriuwu_cli.core.artifact import MANIFEST_NAME, fingerprint_of
from ahriuwu_cli.core.errors import ConfigError, InputError
from ahriuwu_cli.episodes.config import GAME_KEYS, DataSection
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.evaluation import agents
from ahriuwu_cli.experiments.improve.work import recorded_game as game_of_improve
from ahriuwu_cli.games.environment import GameEnv, Step, make_env
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.config import Run, preset_run
from ahriuwu_cli.pipeline.players import game_notes, played_environment

ENV = "Sided-v0"


class Sided(gymnasium.Env[Any, Any]):
    """Endless; shows one picture of two, steers without bounds, and gives a reward per step, odd ones if deaf."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    observation_space = spaces.Dict(
        {"left": spaces.Box(0, 255, (32, 40, 3), np.uint8), "right": spaces.Box(0, 255, (32, 40, 3), np.uint8)}
    )
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)

    def __init__(self, pay: float = 1.0, deaf: bool = False, render_mode: str | None = None) -> None:
        self.pay, self.deaf, self.render_mode = pay, deaf, render_mode
        self.played = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.played += 1
        return self.pictures(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return self.pictures(), self.pay + self.deaf * self.played, False, False, {}

    def pictures(self) -> dict[str, np.ndarray]:
        left = self.np_random.integers(0, 100, (32, 40, 3), np.uint8)
        return {"left": left, "right": left + np.uint8(100)}

    def render(self) -> np.ndarray:
        return np.zeros((32, 40, 3), np.uint8)


RECORDED = (
    f"data.env='{ENV}'", "data.env_options={pay=2.0}", "data.height=16", "data.width=16", "data.crop=[0, 8, 32, 32]",
    "data.frame_from='right'", "data.action_bounds={action=[-3.0, 4.0]}", "data.max_episode_steps=5",
    "data.policy='random'", "data.episodes=3",
)  # fmt: skip


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Run]:
    """A run whose episodes are of another game than its config says now."""
    gymnasium.register(ENV, entry_point=Sided)
    stages.record(preset_run("tiny", tmp_path, RECORDED), append=False)
    yield preset_run("tiny", tmp_path, ("run.device='cpu'", "eval.episodes=2"))
    del gymnasium.registry[ENV]


def test_the_store_says_which_game_was_recorded(recorded: Run) -> None:
    store = EpisodeStore.open(recorded.episodes)
    assert store.header.config["data"]["frame_from"] == "right"
    assert store.frame_spec.fps == store.header.config["data"]["fps"] == 30.0
    frames = store.read("000000").frames
    assert frames.min() >= 99, "the right picture"
    part = store.action_spec.components[0]
    assert (part.low, part.high) == (-3.0, 4.0)


def test_what_is_played_is_what_was_recorded(recorded: Run) -> None:
    """5 steps recorded, 83 played: every key that defines the game comes from the store."""
    store = EpisodeStore.open(recorded.episodes)
    data = played_environment(recorded, store)
    settings = store.header.config["data"]
    assert {key: getattr(data, key) for key in GAME_KEYS} == {key: settings[key] for key in GAME_KEYS}
    assert data.policy == recorded.config.data.policy
    assert game_of_improve(recorded, store) == {key: settings[key] for key in GAME_KEYS}
    assert make_env(data).action_spec == store.action_spec
    [note] = game_notes(recorded, store)
    for said in ("max_episode_steps = 5 (data.max_episode_steps: 0)", f"env = {ENV}", "frame_from", "action_bounds"):
        assert (said in note) == (said != "frame_from"), "auto leaves the picture open"


def test_eval_agent_plays_the_recorded_limit(recorded: Run, capsys: pytest.CaptureFixture[str]) -> None:
    report = stages.evaluate_agent(recorded, ["random", "repeat-last"])
    for agent in report.data["agents"].values():
        assert agent["lengths"] == [5, 5]
        assert agent["returns"] == [10.0, 10.0]
    assert "played as it was recorded" in capsys.readouterr().err


def test_another_game_is_played_on_purpose_only(recorded: Run, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ("eval.episodes=2", "eval.game={max_episode_steps=7, env_options={pay=3.0}}", "run.device='cpu'")
    run = preset_run("tiny", recorded.folder, changes)
    report = stages.evaluate_agent(run, ["random"])
    assert report.data["agents"]["random"]["lengths"] == [7, 7]
    assert report.data["agents"]["random"]["returns"] == [21.0, 21.0]
    assert "max_episode_steps = 7 (recorded: 5)" in capsys.readouterr().err


def test_pairs_are_claimed_only_where_the_seed_is_obeyed(recorded: Run, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ("eval.episodes=3", "eval.game={env_options={deaf=true}}", "run.device='cpu'")
    deaf = preset_run("tiny", recorded.folder, changes)
    for run, seeded in ((recorded, True), (deaf, False)):
        report = stages.evaluate_agent(run, ["random", "repeat-last"])
        assert report.data["environment"]["seeded"] is seeded
        assert report.data["paired"] is seeded
        assert any("paired episodes" in note for note in report.notes) is seeded
        assert ("does not obey its seed" in capsys.readouterr().err) is not seeded


@pytest.mark.parametrize(
    ("game", "message"), [("{height=8}", "eval.game has height"), ("{max_episode_steps='x'}", "eval.game.max_episode")]
)
def test_only_some_of_a_game_can_be_changed(tmp_path: Path, game: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        preset_run("tiny", tmp_path, (f"eval.game={game}",))


def test_another_limit_is_not_appended(recorded: Run) -> None:
    other = preset_run("tiny", recorded.folder, [*RECORDED, "data.max_episode_steps=6"])
    with pytest.raises(InputError, match=r"data.max_episode_steps 5; this recording has 6"):
        stages.record(other, append=True)
    same = preset_run("tiny", recorded.folder, [*RECORDED, "data.frame_from='auto'"][:-1])
    stages.record(same, append=True)
    assert len(EpisodeStore.open(recorded.episodes).episodes) == 6


SHAPED = (*RECORDED, "data.crop=[0, 0, 32, 40]", "data.fit='pad'", "data.masks=[[0, 0, 32, 10]]")


def test_eval_agent_plays_with_the_recorded_fit_and_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 27: what an agent sees at play is made as what it learned from."""
    gymnasium.register(ENV, entry_point=Sided)
    stages.record(preset_run("tiny", tmp_path, SHAPED), append=False)
    seen: list[np.ndarray] = []

    def watched(data: DataSection) -> GameEnv:
        env = make_env(data)
        step = env.step

        def watched_step(row: np.ndarray) -> Step:
            done = step(row)
            seen.append(done.frame)
            return done

        monkeypatch.setattr(env, "step", watched_step)
        return env

    monkeypatch.setattr(agents, "make_env", watched)
    stages.evaluate_agent(preset_run("tiny", tmp_path, ("run.device='cpu'", "eval.episodes=2")), ["random"])
    del gymnasium.registry[ENV]
    recorded = EpisodeStore.open(tmp_path / "episodes").read("000000").frames
    for frames in (recorded[1:], np.stack(seen)):  # 32x40 in 16x16: 13 rows from the second on; 4 columns are masked
        assert not frames[:, [0, 14, 15]].any()
        assert not frames[:, :, :4].any()
        assert frames[:, 1:14, 4:].min() >= 99


def test_a_store_of_before_was_stretched_and_has_no_masks(recorded: Run) -> None:
    """A store that says nothing of fit and masks is not appended to, nor played, with others."""
    manifest = recorded.episodes / MANIFEST_NAME
    content = json.loads(manifest.read_text())
    for key in ("fit", "masks"):
        del content["config"]["data"][key]
    parts = (content[key] for key in ("kind", "config", "specs", "parents", "info"))
    content["fingerprint"] = fingerprint_of(*parts, "")
    manifest.write_text(json.dumps(content))
    store = EpisodeStore.open(recorded.episodes)
    run = preset_run("tiny", recorded.folder, ("data.fit='pad'", "data.masks=[[0, 0, 4, 4]]"))
    data = played_environment(run, store)
    assert (data.fit, data.masks) == ("stretch", [])
    with pytest.raises(InputError, match=r"data.fit stretch; this recording has pad"):
        stages.record(preset_run("tiny", recorded.folder, [*RECORDED, "data.fit='pad'"]), append=True)
