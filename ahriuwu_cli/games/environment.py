"""Any Gymnasium environment as a game: frames of one size, float32 action rows, plain rewards and flags.

Shapes: H x W pixels, A = ActionSpec.dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from ahriuwu_cli.core.errors import DataError, ForeignError, InputError
from ahriuwu_cli.core.specs import ActionSpec, FrameSpec
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.events import events_of
from ahriuwu_cli.episodes.frames import FrameTransform
from ahriuwu_cli.games import making
from ahriuwu_cli.games.answers import frames_per_second, reset_answer, step_answer
from ahriuwu_cli.games.codec import ActionCodec, Bounds
from ahriuwu_cli.games.experts import expert_for
from ahriuwu_cli.games.foreign import Foreign
from ahriuwu_cli.games.pictures import AUTO, RENDER, Source, choose
from ahriuwu_cli.games.policies import EXPERT_ACTION

RGB_ARRAY = "rgb_array"


@dataclass(frozen=True)
class Step:
    """What came back for one action: frame (H, W, 3) uint8, reward, flags, and the environment's info.

    `row` (A,) float32 is the action as it was taken (see `ActionCodec.taken`).
    """

    row: np.ndarray
    frame: np.ndarray
    reward: float
    terminal: bool
    truncated: bool
    info: dict[str, Any]


class GameEnv:
    """One environment, made with `gymnasium.make(env_id, **options)`.

    The frame is an observation, a part of one, or what `render_mode="rgb_array"` draws (pictures.py).
    `info["expert_action"]`, offered by the environment or by a script (experts.py), is given as a row. Where an
    environment has nothing to show at the end of an episode, its last picture stays.

    Args:
        env_id: Gymnasium id.
        transform: what makes a frame of a picture.
        options: keyword arguments of gymnasium.make.
        frame_from: which picture; see DataSection.
        fps: frames per second instead of the environment's `render_fps`.
        action_bounds: low and high by action component instead of the environment's own.

    Attributes:
        action_spec: made from the action space.
        frame_spec: the wanted size and the environment's `render_fps` (15 where it names none).
        frame_from: which picture was chosen; never `auto`.
        notes: what is to be said of the environment.

    Raises:
        InputError: unknown id, missing package, refused options, no picture, or an action space
            that cannot be used; always before anything is played.
        ForeignError: (also of every method) the environment's own code fails.
    """

    def __init__(
        self,
        env_id: str,
        transform: FrameTransform,
        *,
        options: Mapping[str, Any] | None = None,
        frame_from: str = AUTO,
        fps: float | None = None,
        action_bounds: Bounds | None = None,
    ) -> None:
        self.env_id = env_id
        self._transform = transform
        self._steps = 0
        self._expert = expert_for(env_id)
        making.import_environments(env_id)
        self._env, self._source = _make(env_id, dict(options or {}), frame_from)
        self.frame_from = self._source.name
        try:
            with self._foreign("its spaces and names"):
                space, metadata = self._env.action_space, self._env.metadata
                meanings = getattr(self._env.unwrapped, "get_action_meanings", None)
                labels = [str(label) for label in meanings()] if callable(meanings) else []
            self._codec = ActionCodec(space, labels, action_bounds)
            own_fps, self.notes = frames_per_second(metadata)
            self.frame_spec = FrameSpec(
                height=transform.height, width=transform.width, fps=own_fps if fps is None else fps
            )
            self.notes = [] if fps is not None else [f"{env_id}: {note}" for note in self.notes]
        except BaseException:
            with suppress(ForeignError):  # what failed first is what counts
                self.close()
            raise

    @property
    def action_spec(self) -> ActionSpec:
        """Named, typed components of the action rows."""
        return self._codec.spec

    def reset(self, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode: frame (H, W, 3) uint8 and info.

        Raises:
            DataError: the environment shows no proper image, or its expert gives no action of its own.
        """
        with self._foreign("reset"):
            answer = self._env.reset(seed=seed)
        observation, info = reset_answer(answer, self.env_id)
        self._steps = 0
        self._shown = self._frame(observation)
        return self._shown, self._info(info)

    def step(self, row: np.ndarray) -> Step:
        """Take the action that a row (A,) float32 stands for.

        Raises:
            DataError: the row is outside its declared range, or the environment shows no proper image, or gives a
                reward, events or an expert's action that cannot be used.
        """
        action = self._codec.to_action(row)
        with self._foreign(f"step {self._steps}"):
            answer = self._env.step(action)
            blank = _shows_nothing(self._env.unwrapped)
        observation, reward, terminal, truncated, info = step_answer(answer, self.env_id, self._steps)
        self._steps += 1
        if not blank:
            self._shown = self._frame(observation)
        return Step(self._codec.taken(row), self._shown, reward, terminal, truncated, self._info(info))

    def close(self) -> None:
        """Let go of the environment."""
        with self._foreign("close"):
            self._env.close()

    def _foreign(self, doing: str) -> Foreign:
        return Foreign(self.env_id, doing)

    def _frame(self, observation: Any) -> np.ndarray:
        if self._source.name == RENDER:
            with self._foreign("render"):
                image = self._env.render()
        else:
            image = self._source.find(observation)
        pixels = self._source.pixels(image, self.env_id)
        frame = self._transform(pixels, self.env_id)
        return frame.copy() if np.may_share_memory(frame, image) else frame  # it may draw into its array again

    def _info(self, info: dict[str, Any]) -> dict[str, Any]:
        action = info.get(EXPERT_ACTION)
        if action is None and self._expert is not None:
            with self._foreign("the scripted expert"):
                action = self._expert(self._env.unwrapped)
        rest = {key: value for key, value in info.items() if key != EXPERT_ACTION}
        try:
            events_of(rest)
            return rest if action is None else {**rest, EXPERT_ACTION: self._codec.to_row(action)}
        except DataError as error:
            raise DataError(f"{self.env_id}: {error.message}", hint=error.hint) from error


def make_env(data: DataSection) -> GameEnv:
    """Make the environment that the `[data]` section describes.

    Raises:
        InputError: it cannot be made.
        ForeignError: its own code fails.
    """
    if not data.env:
        raise InputError(
            "data.env is empty: these recordings have no game that could be played",
            hint="recordings are brought in by `ahriuwu data import`; to play a game, set data.env to a Gymnasium "
            "environment id",
        )
    return GameEnv(
        data.env,
        FrameTransform.of(data),
        options=data.env_options,
        frame_from=data.frame_from,
        fps=data.fps,
        action_bounds=data.action_bounds,
    )


def _make(env_id: str, options: dict[str, Any], frame_from: str) -> tuple[gymnasium.Env[Any, Any], Source]:
    """Make the environment, anew where it has to draw and was not made to; also tells where its picture is."""
    env = making.make(env_id, options)
    try:
        with Foreign(env_id, "its observation_space"):
            space, metadata, mode = env.observation_space, env.metadata, env.render_mode
        modes = metadata.get("render_modes") or () if isinstance(metadata, Mapping) else ()
        source = choose(space, frame_from, draws=mode == RGB_ARRAY or RGB_ARRAY in modes, env_id=env_id)
        if source.name != RENDER or mode == RGB_ARRAY:
            return env, source
    except BaseException:
        with suppress(ForeignError):
            _close(env, env_id)
        raise
    _close(env, env_id)
    return making.make(env_id, {**options, "render_mode": RGB_ARRAY}), source


def _close(env: gymnasium.Env[Any, Any], env_id: str) -> None:
    with Foreign(env_id, "close"):
        env.close()


def _shows_nothing(env: Any) -> bool:
    """True where ViZDoom's episode is over: its picture is black then, for want of one, and says nothing."""
    return "vizdoom" in type(env).__module__ and env.state is None
