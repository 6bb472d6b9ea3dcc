"""Any Gymnasium environment as a game: frames of one size, float32 action rows, plain rewards and flags.

Shapes: H x W pixels, A = ActionSpec.dim.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ahriuwu_cli.core.errors import DataError, InputError
from ahriuwu_cli.core.specs import ActionSpec, FrameSpec
from ahriuwu_cli.episodes.actions import ActionCodec
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.frames import to_frame
from ahriuwu_cli.games.bricks import register_game
from ahriuwu_cli.games.experts import expert_for
from ahriuwu_cli.games.policies import EXPERT_ACTION

DEFAULT_FPS = 15.0
MIN_IMAGE_SIDE = 8  # smaller uint8 arrays are symbols, not pictures (MiniGrid's 7x7)

# Prefix of an environment id -> (module to import, extra that installs it).
EXTRAS: dict[str, tuple[str, str]] = {
    "ALE/": ("ale_py", "atari"),
    "MiniGrid-": ("minigrid", "minigrid"),
    "BabyAI-": ("minigrid", "minigrid"),
    "MinAtar/": ("minatar.gym", "minatar"),
    "Vizdoom": ("vizdoom.gymnasium_wrapper", "vizdoom"),
}


@dataclass(frozen=True)
class Step:
    """What came back for one action: frame (H, W, 3) uint8, reward, flags, and the environment's info."""

    frame: np.ndarray
    reward: float
    terminal: bool
    truncated: bool
    info: dict[str, Any]


class GameEnv:
    """One environment, made with `gymnasium.make(env_id, **options)`.

    An image observation (uint8, (h, w, 3), (h, w, 1) or (h, w)) is the frame; otherwise the frame is
    what `render_mode="rgb_array"` draws, in bytes or as floats from 0 to 1. `info["expert_action"]`, offered by
    the environment or by a script (experts.py), is given as a row. Where an environment has nothing to show at the end
    of an episode, its last picture stays.

    Args:
        env_id: Gymnasium id.
        height: H; width: W.
        options: keyword arguments of gymnasium.make.
        crop: (top, left, height, width) of the part of the picture that becomes the frame; None for all of it.

    Attributes:
        action_spec: made from the action space.
        frame_spec: the wanted size and the environment's `render_fps` (15 where it names none).

    Raises:
        InputError: unknown id, missing package, refused options, no picture, or an action space
            that cannot be used; always before anything is played.
    """

    def __init__(
        self,
        env_id: str,
        *,
        height: int,
        width: int,
        options: Mapping[str, Any] | None = None,
        crop: Sequence[int] | None = None,
    ) -> None:
        self.env_id = env_id
        self._crop = crop
        self._options = dict(options or {})
        self._expert = expert_for(env_id)
        self._env, self._uses_observation = _make(env_id, self._options)
        try:
            meanings = getattr(self._env.unwrapped, "get_action_meanings", None)
            labels = [str(label) for label in meanings()] if callable(meanings) else []
            self._codec = ActionCodec(self._env.action_space, labels)
            self.frame_spec = FrameSpec(height=height, width=width, fps=_fps(self._env))
        except BaseException:
            self._env.close()
            raise

    @property
    def action_spec(self) -> ActionSpec:
        """Named, typed components of the action rows."""
        return self._codec.spec

    def reset(self, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode: frame (H, W, 3) uint8 and info."""
        observation, info = self._env.reset(seed=seed)
        self._shown = self._frame(observation)
        return self._shown, self._info(info)

    def step(self, row: np.ndarray) -> Step:
        """Take the action that a row (A,) float32 stands for.

        Raises:
            DataError: the row is outside its declared range, or the environment draws no proper image.
        """
        observation, reward, terminal, truncated, info = self._env.step(self._codec.to_action(row))
        if not _shows_nothing(self._env.unwrapped):
            self._shown = self._frame(observation)
        return Step(self._shown, float(reward), bool(terminal), bool(truncated), self._info(info))

    def close(self) -> None:
        """Let go of the environment."""
        self._env.close()

    def _frame(self, observation: Any) -> np.ndarray:
        image = observation if self._uses_observation else self._env.render()
        if not isinstance(image, np.ndarray):
            raise DataError(
                f"{self.env_id} drew {type(image).__name__}; expected a uint8 image",
                hint="use an environment with image observations or render_mode 'rgb_array'",
            )
        if np.issubdtype(image.dtype, np.floating):
            image = _bytes_of(image, self.env_id)
        if self._crop is not None:
            image = _cropped(image, self._crop, self.env_id)
        frame = to_frame(image, self.frame_spec.height, self.frame_spec.width)
        return frame.copy() if frame is image else frame  # an environment may draw into the same array again

    def _info(self, info: dict[str, Any]) -> dict[str, Any]:
        if EXPERT_ACTION in info:
            return {**info, EXPERT_ACTION: self._codec.to_row(info[EXPERT_ACTION])}
        action = None if self._expert is None else self._expert(self._env.unwrapped)
        return info if action is None else {**info, EXPERT_ACTION: self._codec.to_row(action)}


def make_env(data: DataSection) -> GameEnv:
    """Make the environment that the `[data]` section describes.

    Raises:
        InputError: it cannot be made.
    """
    return GameEnv(data.env, height=data.height, width=data.width, options=data.env_options, crop=data.crop)


def _shows_nothing(env: Any) -> bool:
    """True where ViZDoom's episode is over: its picture is black then, for want of one, and says nothing."""
    return "vizdoom" in type(env).__module__ and env.state is None


def _bytes_of(image: np.ndarray, env_id: str) -> np.ndarray:
    """A picture whose channels go from 0 to 1, in bytes."""
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):  # also where a channel is not a number
        raise DataError(
            f"{env_id} drew {image.dtype} between {low:g} and {high:g}; expected uint8, or floats from 0 to 1",
            hint="wrap the environment so that it shows uint8 RGB or grey images",
        )
    pixels: np.ndarray = np.rint(image * 255).astype(np.uint8)
    return pixels


def _cropped(image: np.ndarray, crop: Sequence[int], env_id: str) -> np.ndarray:
    """The part (top, left, height, width) of a picture."""
    top, left, height, width = crop
    if top + height > image.shape[0] or left + width > image.shape[1]:
        raise InputError(
            f"data.crop {list(crop)} reaches beyond the picture of {env_id}, which has "
            f"{image.shape[0]}x{image.shape[1]} pixels",
            hint="data.crop is [top, left, height, width] in pixels of the environment's own picture",
        )
    return image[top : top + height, left : left + width]


def _make(env_id: str, options: dict[str, Any]) -> tuple[gymnasium.Env[Any, Any], bool]:
    """Make the environment; also tells whether its observation is the frame."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame greets on stdout, which is for data
    register_game()
    _import_extra(env_id)
    env = _make_once(env_id, options)
    if _is_image(env.observation_space):
        return env, True
    modes = env.metadata.get("render_modes", [])
    if env.render_mode == "rgb_array":
        return env, False
    env.close()
    if "rgb_array" not in modes:
        raise InputError(
            f"{env_id} has observations {env.observation_space} and render modes {modes}; expected uint8 image "
            "observations or the mode 'rgb_array'",
            hint="wrap the environment, or pick one that draws itself",
        )
    return _make_once(env_id, {**options, "render_mode": "rgb_array"}), False


def _make_once(env_id: str, options: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    try:
        return gymnasium.make(env_id, disable_env_checker=True, **options)
    except gymnasium.error.DependencyNotInstalled as error:
        raise InputError(
            f"{env_id} needs a package: {error}", hint="install it, or pick another environment"
        ) from error
    except gymnasium.error.UnregisteredEnv as error:
        detail = " ".join(str(error).split())
        raise InputError(
            f"there is no environment {env_id!r}: {detail}",
            hint="see `python -c 'import gymnasium; gymnasium.pprint_registry()'`; "
            "a package's environments are known as 'module:Id'",
        ) from error
    except (gymnasium.error.Error, TypeError, ValueError, ModuleNotFoundError) as error:
        detail = " ".join(str(error).split())
        raise InputError(
            f"{env_id} cannot be made with options {options}: {detail}", hint="correct data.env or data.env_options"
        ) from error


def _import_extra(env_id: str) -> None:
    """Import and register the package that an id's prefix asks for."""
    for prefix, (module, extra) in EXTRAS.items():
        if env_id.startswith(prefix):
            try:
                package = importlib.import_module(module)
            except ImportError as error:
                raise InputError(
                    f"{env_id} needs the package {module!r}, which is not installed",
                    hint=f"pip install 'ahriuwu[{extra}]'",
                ) from error
            if module == "ale_py":
                package.ALEInterface.setLoggerMode(package.LoggerMode.Error)
            if env_id not in gymnasium.registry and hasattr(package, "register_envs"):
                package.register_envs()  # MinAtar's environments are known only after this
            gymnasium.register_envs(package)
            return


def _is_image(space: spaces.Space[Any]) -> bool:
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    shape = space.shape
    fits = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    return fits and min(shape[:2]) >= MIN_IMAGE_SIDE


def _fps(env: gymnasium.Env[Any, Any]) -> float:
    fps = env.metadata.get("render_fps")
    return float(fps) if isinstance(fps, int | float) and fps > 0 else DEFAULT_FPS
