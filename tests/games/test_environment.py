"""Gymnasium environments as games: the built-in one, those of the extras, hand-made ones, and refusals."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ahriuwu_cli.core.config import validate
from ahriuwu_cli.core.errors import ConfigError, DataError, InputError
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.frames import FrameTransform
from ahriuwu_cli.games import making
from ahriuwu_cli.games.environment import GameEnv

Register = Callable[..., str]


class Drawn(gymnasium.Env):
    """Draws its step number into one array that it uses again and again."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 0}  # noqa: RUF012

    def __init__(self, observation: spaces.Space, action: spaces.Space, render_mode: str | None = None) -> None:
        self.observation_space, self.action_space, self.render_mode = observation, action, render_mode
        self.canvas = np.zeros(getattr(observation, "shape", None) or (12, 16, 3), np.uint8)
        self.canvas = self.canvas if self.canvas.ndim > 1 else np.zeros((12, 16, 3), np.uint8)
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.canvas[:] = 0
        return self.observe(), {"expert_action": self.action_space.sample()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.taken.append(action)
        self.canvas += 1
        return self.observe(), 1.0, False, False, {}

    def observe(self) -> Any:
        return self.canvas if self.observation_space.dtype == np.uint8 else np.zeros(3, np.float32)

    def render(self) -> Any:
        return self.canvas if self.render_mode == "rgb_array" else None


class Blind(Drawn):
    metadata = {"render_modes": ["human"]}  # noqa: RUF012


@pytest.fixture
def register() -> Iterator[Register]:
    made: list[str] = []

    def add(observation: spaces.Space, action: spaces.Space, kind: type = Drawn) -> str:
        name = f"Made{len(made)}-v0"
        gymnasium.register(id=name, entry_point=lambda **options: kind(observation, action, **options))
        made.append(name)
        return name

    yield add
    for name in made:
        del gymnasium.registry[name]


VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)


def check_play(env: GameEnv, height: int, width: int) -> None:
    frame, _ = env.reset(seed=0)
    frames = [frame]
    rng = np.random.default_rng(0)
    low = [0] * env.action_spec.dim
    for _ in range(5):
        row = np.array(low, np.float32)
        row[0] = rng.integers(2)
        step = env.step(row)
        assert isinstance(step.reward, float)
        assert isinstance(step.terminal, bool)
        frames.append(step.frame)
    assert {frame.shape for frame in frames} == {(height, width, 3)}
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}
    assert max(frame.std() for frame in frames) > 0
    env.close()


def test_built_in_game() -> None:
    env = GameEnv("ahriuwu/Bricks-v0", FrameTransform(32, 32))
    assert env.action_spec.components[0].labels == ("noop", "left", "right")
    assert env.frame_spec.model_dump() == {"height": 32, "width": 32, "fps": 15.0}
    _, info = env.reset(seed=1)
    assert info["expert_action"].shape == (1,)
    check_play(env, 32, 32)


def test_options_pass_through_and_frames_are_resized() -> None:
    large = GameEnv("ahriuwu/Bricks-v0", FrameTransform(32, 32), options={"size": 64, "max_steps": 1})
    frame, _ = large.reset(seed=4)
    assert np.array_equal(frame, GameEnv("ahriuwu/Bricks-v0", FrameTransform(32, 32)).reset(seed=4)[0])
    assert large.step(np.zeros(1, np.float32)).truncated


@pytest.mark.parametrize("game", ["ALE/Breakout-v5", "ALE/Pong-v5"])
def test_atari(game: str) -> None:
    pytest.importorskip("ale_py")
    env = GameEnv(game, FrameTransform(64, 48), options={"full_action_space": True})
    assert env.action_spec.components[0].num_classes == 18
    assert env.action_spec.components[0].labels[:2] == ("NOOP", "FIRE")
    check_play(env, 64, 48)
    one, two = (GameEnv(game, FrameTransform(64, 64), options={"repeat_action_probability": 0.25}) for _ in range(2))
    assert np.array_equal(one.reset(seed=3)[0], two.reset(seed=3)[0])
    for action in [1, 2, 3, 2, 0, 3] * 5:
        row = np.array([action], np.float32)
        assert np.array_equal(one.step(row).frame, two.step(row).frame)


@pytest.mark.parametrize("game", ["MiniGrid-Empty-8x8-v0", "BabyAI-GoToRedBall-v0"])
def test_minigrid_is_drawn(game: str) -> None:
    pytest.importorskip("minigrid")
    env = GameEnv(game, FrameTransform(64, 64))
    assert env.action_spec.components[0].num_classes == 7
    check_play(env, 64, 64)


def test_minatar_is_drawn_cell_by_cell() -> None:
    pytest.importorskip("minatar")
    env = GameEnv("MinAtar/Breakout-v1", FrameTransform(40, 40), options={"sticky_action_prob": 0.0})
    assert env.action_spec.components[0].num_classes == 3
    check_play(env, 40, 40)
    frame, _ = env.reset(seed=1)
    cells = frame[::4, ::4]
    assert np.array_equal(np.kron(cells, np.ones((4, 4, 1), np.uint8)), frame)
    assert len({tuple(colour) for colour in cells[1:4].reshape(-1, 3)}) == 1  # three rows of bricks
    assert frame.max() > 200


class Painted(Drawn):
    """Draws floats."""

    def render(self) -> Any:
        return np.array([[[0.0, 0.5, 1.0]]], np.float32) * (1 + self.canvas[0, 0, 0])


def test_a_picture_of_floats_from_0_to_1_is_turned_into_bytes(register: Register) -> None:
    env = GameEnv(register(spaces.Box(0, 1, (3,), np.float32), spaces.Discrete(2), Painted), FrameTransform(8, 8))
    assert env.reset(seed=0)[0][3, 3].tolist() == [0, 128, 255]
    with pytest.raises(DataError, match=r"between 0 and 2; expected uint8, or floats from 0 to 1"):
        env.step(np.zeros(1, np.float32))


def test_classic_control_is_drawn() -> None:
    pytest.importorskip("pygame")
    env = GameEnv("CartPole-v1", FrameTransform(40, 60))
    assert env.frame_spec.fps == 50
    check_play(env, 40, 60)


@pytest.mark.parametrize("shape", [(12, 16), (12, 16, 1), (12, 16, 3)])
def test_image_observations_are_frames_of_their_own(register: Register, shape: tuple[int, ...]) -> None:
    env = GameEnv(register(spaces.Box(0, 255, shape, np.uint8), spaces.Discrete(2)), FrameTransform(12, 16))
    frame, _ = env.reset(seed=0)
    frames = [frame, *(env.step(np.zeros(1, np.float32)).frame for _ in range(3))]
    assert [int(frame[0, 0, 0]) for frame in frames] == [0, 1, 2, 3]  # not one array drawn over


def test_other_observations_are_rendered(register: Register) -> None:
    small = spaces.Box(0, 255, (7, 7, 3), np.uint8)  # symbols, as MiniGrid's
    for space in (VECTOR, spaces.Dict({"a": VECTOR}), small):
        env = GameEnv(register(space, spaces.Discrete(2)), FrameTransform(12, 16))
        assert env.reset(seed=0)[0].shape == (12, 16, 3)
        assert env.frame_spec.fps == 15.0  # render_fps 0 names none
        assert env._env.render_mode == "rgb_array"


def test_actions_reach_the_environment_in_its_own_form(register: Register) -> None:
    action = spaces.Dict({"look": spaces.Box(-1.0, 1.0, (2,), np.float32), "jump": spaces.MultiBinary(1)})
    env = GameEnv(register(VECTOR, action), FrameTransform(12, 16))
    _, info = env.reset(seed=0)
    assert info["expert_action"].shape == (3,)
    columns = env.action_spec.slices()
    row = np.zeros(3, np.float32)
    row[columns["look"]], row[columns["jump"]] = [0.5, -1.0], 1
    env.step(row)
    taken = env._env.unwrapped.taken[0]
    assert action.contains(taken)
    assert taken["look"].tolist() == [0.5, -1.0]
    assert taken["jump"].tolist() == [1]
    row[columns["look"]] = [0.5, 2.0]
    with pytest.raises(DataError, match=r"the policy's action component 'look' \(continuous\) is 2; expected .* -1..1"):
        env.step(row)


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("Nowhere-v0", {}, "no environment 'Nowhere-v0'"),
        ("nowhere/Game-v0", {}, "no environment"),
        ("CartPole-v99", {}, "no environment"),
        ("not an id", {}, "cannot be made"),
        ("no_such_module:Game-v0", {}, "no_such_module"),
        ("CartPole-v1", {"colour": 3}, "colour"),
        ("ahriuwu/Bricks-v0", {"size": 48}, "size is 48"),
    ],
)
def test_what_cannot_be_made_is_refused(env_id: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        GameEnv(env_id, FrameTransform(32, 32), options=options)
    assert caught.value.hint


def test_environment_without_a_picture_is_refused(register: Register) -> None:
    with pytest.raises(InputError, match="rgb_array"):
        GameEnv(register(VECTOR, spaces.Discrete(2), Blind), FrameTransform(32, 32))


def test_unusable_action_space_is_refused_and_the_environment_closed(register: Register) -> None:
    closed: list[bool] = []

    class Noted(Drawn):
        def close(self) -> None:
            closed.append(True)

    name = register(spaces.Box(0, 255, (32, 32, 3), np.uint8), spaces.Text(3), Noted)
    with pytest.raises(InputError, match="action space"):
        GameEnv(name, FrameTransform(32, 32))
    assert closed == [True]


@pytest.mark.parametrize(
    ("env_id", "extra"),
    [
        ("ALE/Pong-v5", "atari"),
        ("MiniGrid-Empty-8x8-v0", "minigrid"),
        ("BabyAI-X-v0", "minigrid"),
        ("MinAtar/Breakout-v1", "minatar"),
        ("VizdoomBasic-v1", "vizdoom"),
    ],
)
def test_missing_extra_is_named(env_id: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(making.importlib, "import_module", missing)
    with pytest.raises(InputError, match="not installed") as caught:
        GameEnv(env_id, FrameTransform(32, 32))
    assert f"ahriuwu[{extra}]" in caught.value.hint


def test_extras_are_imported_only_when_asked_for() -> None:
    code = (
        "import sys\n"
        "from ahriuwu_cli.episodes.frames import FrameTransform\n"
        "from ahriuwu_cli.games.environment import GameEnv\n"
        "import gymnasium\n"
        "assert 'ahriuwu/Bricks-v0' not in gymnasium.registry\n"
        "GameEnv('ahriuwu/Bricks-v0', FrameTransform(32, 32)).reset(0)\n"
        "print(*{'ale_py', 'minatar', 'minigrid', 'pygame', 'torch', 'vizdoom'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_crop_shows_that_part_of_the_picture():
    whole = GameEnv("ahriuwu/Bricks-v0", FrameTransform(32, 32)).reset(seed=4)[0]
    part = GameEnv("ahriuwu/Bricks-v0", FrameTransform(16, 24, crop=(16, 4, 16, 24))).reset(seed=4)[0]
    np.testing.assert_array_equal(part, whole[16:, 4:28])


def test_a_crop_beyond_the_picture_is_refused():
    with pytest.raises(InputError, match="32x32 pixels") as caught:
        GameEnv("ahriuwu/Bricks-v0", FrameTransform(16, 16, crop=(20, 0, 16, 16))).reset(seed=0)
    assert "top, left, height, width" in caught.value.hint


@pytest.mark.parametrize("crop", [[1, 2, 3], [0, 0, 4, 16], [-1, 0, 16, 16]])
def test_a_crop_needs_four_sensible_numbers(crop):
    with pytest.raises(ConfigError, match="crop"):
        validate(DataSection, {"crop": crop}, "run.toml")
