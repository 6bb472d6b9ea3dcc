"""The boundary to other people's code: whose fault it is and where, what passes, and what it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ahriuwu_cli.cli.main import run
from ahriuwu_cli.core.errors import DataError, ForeignError, InputError, TrainingInterrupted
from ahriuwu_cli.episodes.frames import FrameTransform
from ahriuwu_cli.games.environment import GameEnv
from ahriuwu_cli.games.foreign import Foreign
from ahriuwu_cli.games.making import import_environments

GAME = """
import ctypes, os, sys
import gymnasium
import numpy as np
from gymnasium import spaces

print("import: python")


class Game(gymnasium.Env):
    observation_space = spaces.Box(0, 255, (32, 32, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def __init__(self, breaks="", colour="red"):
        self.breaks = breaks
        if breaks == "init":
            raise ValueError("no such colour")

    def reset(self, *, seed=None, options=None):
        print("reset: python")
        os.system("echo reset: shell")
        ctypes.CDLL(None).puts(b"reset: C")
        self.fail("reset")
        return np.zeros((32, 32, 3), np.uint8), {}

    def step(self, action):
        self.fail("step")
        if self.breaks == "exit":
            sys.exit(0)
        if self.breaks == "inside numpy":
            np.zeros(3).reshape(2)
        return np.full((32, 32, 3), 9, np.uint8), 1.0, True, False, {}

    def close(self):
        self.fail("close")

    def fail(self, where):
        if self.breaks == where:
            raise ZeroDivisionError("by " + where)


gymnasium.register("Foreign-v0", entry_point=Game)
"""


@pytest.fixture
def game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., GameEnv]]:
    """The game as a file in the current folder, made with what breaks."""
    (tmp_path / "foreign_game.py").write_text(GAME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    yield lambda **options: GameEnv("foreign_game:Foreign-v0", FrameTransform(32, 32), options=options)
    sys.modules.pop("foreign_game", None)
    gymnasium.registry.pop("Foreign-v0", None)


@pytest.mark.parametrize(
    ("breaks", "doing", "what", "function"),
    [
        ("init", "being made", "ValueError: no such colour", "__init__"),
        ("reset", "reset", "ZeroDivisionError: by reset", "fail"),
        ("step", "step 0", "ZeroDivisionError: by step", "fail"),
        ("inside numpy", "step 0", "ValueError: cannot reshape", "step"),
        ("exit", "step 0", r"it called sys.exit\(0\)", "step"),
        ("close", "close", "ZeroDivisionError: by close", "fail"),
    ],
)
def test_a_failure_names_whose_it_is_and_where(
    game: Callable[..., GameEnv], breaks: str, doing: str, what: str, function: str
) -> None:
    with pytest.raises(ForeignError, match=rf"^foreign_game:Foreign-v0 failed in {doing}: {what}") as caught:
        env = game(breaks=breaks)
        env.reset(0)
        env.step(np.zeros(1, np.float32))
        env.close()
    assert caught.value.place.startswith("foreign_game.py, line ")
    assert caught.value.place.endswith(f"in {function}")
    assert caught.value.place in caught.value.message
    assert "not ahriuwu's code" in caught.value.hint
    assert not isinstance(caught.value.__cause__, ForeignError)


def test_options_that_are_not_taken_are_no_fault_of_the_code(game: Callable[..., GameEnv]) -> None:
    with pytest.raises(InputError, match=r"cannot be made with options .*size"):
        game(size=3)


def test_stops_and_errors_of_our_own_pass_as_they_are() -> None:
    for error in (KeyboardInterrupt(), MemoryError(), TrainingInterrupted("stop", hint="go on")):
        with pytest.raises(type(error)) as caught, Foreign("a game", "step"):
            raise error
        assert caught.value is error


def test_a_fault_of_ours_is_not_laid_to_the_game() -> None:
    """Only lines of ahriuwu on the stack: a traceback, for us."""
    from ahriuwu_cli.core.toml import value_text

    with pytest.raises(TypeError), Foreign("a game", "step"):
        value_text(object())


def test_an_error_that_cannot_say_what_it_is() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def step() -> None:
        raise Mute

    with (
        pytest.raises(ForeignError, match=r"failed in step: Mute \(.*test_foreign.py, line"),
        Foreign("a game", "step"),
    ):
        step()


# ---------------------------------------------------------------- modules


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, InputError, "there is no module 'named_game', neither installed nor in "),
        ("import nowhere_to_be_found", ForeignError, r"No module named 'nowhere_to_be_found' \(named_game.py, line 1"),
        ("x = (", ForeignError, r"importing named_game: SyntaxError: .*\(named_game.py, line 1\)"),
        ("raise SystemExit", ForeignError, r"it called sys.exit\(None\) \(named_game.py, line 1"),
        ("x = 1", InputError, "no environment 'named_game:Game-v0'.*; named_game registers none"),
    ],
)
def test_modules_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, error: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    if text is not None:
        (tmp_path / "named_game.py").write_text(text)
    try:
        with pytest.raises(error, match=message):
            GameEnv("named_game:Game-v0", FrameTransform(32, 32))
    finally:
        sys.modules.pop("named_game", None)


def test_a_file_in_the_current_folder_hides_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "colorsys.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    import_environments("colorsys:Game-v0")
    assert sys.modules["colorsys"].__file__ != str(tmp_path / "colorsys.py")


# ---------------------------------------------------------------- stdout


def test_what_a_game_prints_is_not_in_the_data(game: Callable[..., GameEnv], tmp_path: Path) -> None:
    """`--json` stays JSON, whether Python, a shell or a C library of the game writes."""
    code = "from ahriuwu_cli.cli.main import main; main()"
    command = ["data", "record", "--env", "foreign_game:Foreign-v0", "--out", "e", "--episodes", "2", "--json"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    house = {**buffered, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True, env=house)
    assert done.stdout.startswith("{\n")
    assert done.stdout.endswith("}\n")
    for said in ("import: python", "reset: python", "reset: shell", "reset: C"):
        assert said not in done.stdout
        assert said in done.stderr


def test_stdout_comes_back(game: Callable[..., GameEnv], capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    env = game()
    print("ours, before")
    env.reset(0)
    print("ours, after")
    assert sys.stdout is before
    out, err = capfd.readouterr()
    assert out.split("\n") == ["ours, before", "ours, after", ""]
    assert "reset: C" in err


# ---------------------------------------------------------------- answers


class Answering(gymnasium.Env[Any, Any]):
    """Gives whatever it is made with."""

    observation_space = spaces.Box(0, 255, (32, 32, 3), np.uint8)
    action_space = spaces.Discrete(2)
    picture = np.zeros((32, 32, 3), np.uint8)

    def __init__(self, reset: Any = None, step: Any = None, **changes: Any) -> None:
        self.on_reset = reset or (lambda: (self.picture, {}))
        self.on_step = step or (lambda: (changes.pop("observation", self.picture), *self.rest(**changes)))

    def rest(self, reward: Any = 1.0, terminated: Any = False, truncated: Any = False, info: Any = None) -> Any:
        return reward, terminated, truncated, {} if info is None else info

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.on_reset()

    def step(self, action: Any) -> Any:
        return self.on_step()


@pytest.fixture
def answering() -> Iterator[Callable[..., Any]]:
    """The step that comes of an answer."""
    gymnasium.register("Answering-v0", entry_point=Answering, order_enforce=False)

    def step(**options: Any) -> Any:
        env = GameEnv("Answering-v0", FrameTransform(32, 32), options=options)
        env.reset(0)
        return env.step(np.zeros(1, np.float32))

    yield step
    del gymnasium.registry["Answering-v0"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reset": lambda: Answering.picture}, ForeignError, "reset gave ndarray, no tuple; expected 2 values"),
        ({"reset": lambda: (Answering.picture, None)}, ForeignError, "reset gave None for info; expected a dict"),
        ({"reset": lambda: (None, {})}, DataError, "gave nothing for a picture"),
        ({"step": lambda: (1, 2, False, {})}, ForeignError, "step gave 4 values, as the old gym did; expected 5"),
        ({"step": lambda: None}, ForeignError, "step gave NoneType"),
        ({"reward": None}, ForeignError, "step 0 gave the reward None; expected a number"),
        ({"reward": "1"}, ForeignError, "reward '1'"),
        ({"reward": np.zeros(2)}, ForeignError, "reward array"),
        ({"reward": float("nan")}, DataError, "Answering-v0: step 0 gave the reward nan; expected a finite"),
        ({"reward": 1e300}, DataError, "reward 1e"),
        ({"terminated": "no"}, ForeignError, "terminated = 'no'; expected True or False"),
        ({"truncated": None}, ForeignError, "truncated = None"),
        ({"info": []}, ForeignError, "for info; expected a dict"),
        ({"info": {"events": {"hit": float("inf")}}}, DataError, "Answering-v0: event 'hit' is inf"),
        ({"info": {"events": {"hit": 1e300}}}, DataError, "event 'hit' is 1e"),
        ({"info": {"expert_action": 7}}, DataError, "Answering-v0: the action 7 is none of Discrete"),
        ({"observation": None}, DataError, "gave nothing for a picture"),
        ({"observation": np.zeros((32, 32), np.uint8)}, DataError, r"shape \(32, 32\); its observation space says"),
    ],
)
def test_answers_that_cannot_be_used(
    answering: Callable[..., Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        answering(**options)


@pytest.mark.parametrize(
    ("reward", "terminated"), [(1, True), (True, np.True_), (np.float32(1), 1), (np.array([1]), np.array([True]))]
)
def test_numbers_of_any_kind_are_numbers(answering: Callable[..., Any], reward: Any, terminated: Any) -> None:
    step = answering(reward=reward, terminated=terminated, info={"expert_action": None})
    assert (step.reward, step.terminal) == (1.0, True)
    assert type(step.reward) is float
    assert type(step.terminal) is bool
    assert step.info == {}


def test_a_crash_of_the_game_is_one_line_and_no_traceback(
    game: Callable[..., GameEnv], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["-s", "data.env_options={breaks='step'}", "-s", "data.policy=random"]
    code = run(["data", "record", "--env", "foreign_game:Foreign-v0", "--out", str(tmp_path / "e"), *options])
    out, err = capfd.readouterr()
    assert (code, out) == (1, "")
    assert "error: foreign_game:Foreign-v0 failed in step 0: ZeroDivisionError: by step (foreign_game.py, line" in err
    assert "Traceback" not in err
    assert "fault in ahriuwu" not in err
