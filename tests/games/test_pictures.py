"""Which picture becomes the frame, and how arrays of other types and layouts become bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ahriuwu_cli.core.errors import DataError, InputError
from ahriuwu_cli.episodes.frames import FrameTransform
from ahriuwu_cli.games.environment import GameEnv
from ahriuwu_cli.games.pictures import PictureWatch, choose

RGB = spaces.Box(0, 255, (32, 48, 3), np.uint8)
VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
SYMBOLS = spaces.Box(0, 3, (10, 10), np.uint8)
NESTED = spaces.Dict(
    {"cameras": spaces.Dict({"front": RGB, "back/up": RGB}), "speed": VECTOR, "tiles": spaces.Tuple([SYMBOLS, RGB])}
)


def chosen(space: spaces.Space[Any], wanted: str = "auto", draws: bool = True) -> str:
    return choose(space, wanted, draws=draws, env_id="Game-v0").name


@pytest.mark.parametrize(
    ("space", "with_render", "without"),
    [
        (RGB, "observation", "observation"),
        (spaces.Box(0.0, 1.0, (64, 64, 3), np.float32), "observation", "observation"),
        (spaces.Box(0, 255, (3, 84, 84), np.uint8), "observation", "observation"),
        (spaces.Box(0, 255, (84, 84), np.uint8), "observation", "observation"),
        (spaces.Box(0, 255, (16, 16, 3), np.uint8), "render", "observation"),  # may be symbols: the game knows better
        (spaces.Box(0, 255, (64, 64, 4), np.uint8), "render", "observation"),  # RGBA, or four grey pictures
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), "render", "shape .* is no picture"),
        (SYMBOLS, "render", r"uint8 \(10, 10\) from 0 to 3 may be symbols, or shades of a picture"),
        (spaces.Box(-np.inf, np.inf, (64, 64, 3)), "render", "may be a picture from 0 to 1 or from 0 to 255"),
        (spaces.Box(0, 255, (84, 84, 12), np.uint8), "render", r"shape \(84, 84, 12\) is no picture"),
        (spaces.Box(0, 1, (10, 10, 4), np.bool_), "render", "bool"),
        (VECTOR, "render", r"shape \(3,\) is no picture"),
        (spaces.Discrete(3), "render", "Discrete is no picture"),
        (spaces.Dict({"image": RGB, "speed": VECTOR}), "render", "image"),
        (spaces.Dict({"render": RGB}), "render", "/render"),
        (NESTED, "render", "several pictures: cameras/back~1up, cameras/front, tiles/1"),
    ],
)
def test_the_rule_of_auto(space: spaces.Space[Any], with_render: str, without: str) -> None:
    """A picture whose space leaves no doubt and that is large enough, or else what the game draws."""
    assert chosen(space) == with_render
    if without in ("observation", "image", "/render"):
        assert chosen(space, draws=False) == without
    else:
        with pytest.raises(InputError, match=without) as caught:
            chosen(space, draws=False)
        assert "data.frame_from" in caught.value.hint


@pytest.mark.parametrize(
    ("space", "wanted", "name"),
    [
        (RGB, "render", "render"),
        (spaces.Box(0, 255, (16, 16, 3), np.uint8), "observation", "observation"),
        (NESTED, "cameras/front", "cameras/front"),
        (NESTED, "cameras/back~1up", "cameras/back~1up"),
        (NESTED, "tiles/1", "tiles/1"),
        (spaces.Dict({"render": RGB}), "/render", "/render"),
        (spaces.Dict({"observation": RGB}), "/observation", "/observation"),
    ],
)
def test_a_picture_may_be_named(space: spaces.Space[Any], wanted: str, name: str) -> None:
    assert chosen(space, wanted) == name
    assert chosen(space, name) == name, "what the store says is taken again"


@pytest.mark.parametrize(
    ("space", "wanted", "message"),
    [
        (SYMBOLS, "observation", "may be symbols, or shades of a picture"),
        (NESTED, "speed", r"Game-v0, speed: shape \(3,\) is no picture"),
        (NESTED, "cameras", "'cameras', which Game-v0 does not observe; it has cameras/back~1up, cameras/front"),
        (NESTED, "observation", "'observation', which Game-v0 does not observe; it has cameras"),
        (RGB, "pixels", "'pixels', which Game-v0 does not observe; it has observation"),
    ],
)
def test_names_that_show_no_picture(space: spaces.Space[Any], wanted: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen(space, wanted)


def test_a_game_that_cannot_draw_is_not_asked_to() -> None:
    with pytest.raises(InputError, match="no render mode 'rgb_array'"):
        chosen(RGB, "render", draws=False)


# ---------------------------------------------------------------- pixels


class Shown(gymnasium.Env[Any, Any]):
    """Observes what it is made with, and draws something else."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    action_space = spaces.Discrete(2)

    def __init__(self, space: Any, observation: Any, drawn: Any = None, render_mode: str | None = None) -> None:
        self.observation_space, self.observation, self.drawn, self.render_mode = space, observation, drawn, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observation, {}

    def render(self) -> Any:
        return self.drawn


@pytest.fixture
def frame_of() -> Iterator[Callable[..., np.ndarray]]:
    """The first frame of an environment that shows an array."""
    gymnasium.register("Shown-v0", entry_point=Shown, order_enforce=False)

    def frame(space: Any, observation: Any, drawn: Any = None, frame_from: str = "observation") -> np.ndarray:
        options = {"space": space, "observation": observation, "drawn": drawn}
        env = GameEnv("Shown-v0", FrameTransform(8, 16), options=options, frame_from=frame_from)
        return env.reset(0)[0]

    yield frame
    del gymnasium.registry["Shown-v0"]


PICTURE = np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3)
GREY = PICTURE[..., 0]
OPAQUE = np.concatenate([PICTURE, np.full((8, 16, 1), 255, np.uint8)], axis=2)
UNITS = (PICTURE / 255).astype(np.float32)


def box(array: np.ndarray, high: float = 255) -> spaces.Box:
    return spaces.Box(0, high, array.shape, array.dtype)


@pytest.mark.parametrize(
    ("array", "high", "expected"),
    [
        (PICTURE, 255, PICTURE),
        (PICTURE.transpose(2, 0, 1), 255, PICTURE),
        (OPAQUE, 255, PICTURE),
        (OPAQUE.transpose(2, 0, 1), 255, PICTURE),
        (UNITS, 1, PICTURE),
        (UNITS.astype(np.float64).transpose(2, 0, 1), 1, PICTURE),
        (PICTURE.astype(np.float32), 255, PICTURE),
        (PICTURE.astype(np.int64), 255, PICTURE),
        (GREY, 255, np.repeat(GREY[:, :, None], 3, axis=2)),
        (GREY[:, :, None], 255, np.repeat(GREY[:, :, None], 3, axis=2)),
        (GREY[None], 255, np.repeat(GREY[:, :, None], 3, axis=2)),
    ],
)
def test_arrays_of_every_kind_are_the_same_picture(
    frame_of: Callable[..., np.ndarray], array: np.ndarray, high: float, expected: np.ndarray
) -> None:
    np.testing.assert_array_equal(frame_of(box(array, high), array), expected)
    if array.dtype.kind == "u" or high == 1:  # what is drawn has no space; bytes, or floats up to 1
        np.testing.assert_array_equal(frame_of(VECTOR, np.zeros(3), array, "render"), expected)


@pytest.mark.parametrize(
    ("array", "high", "message"),
    [
        (OPAQUE[..., ::-1].copy(), 255, "4 channels, the last not 255 everywhere: RGBA .*, or four grey pictures"),
        (UNITS * 2, 1, "between 0 and 2; expected uint8, or floats from 0 to 1"),
        (np.full((8, 16, 3), np.nan, np.float32), 1, "between nan and nan"),
        (PICTURE.astype(np.int64) + 1, 255, "between 1 and 256; expected numbers from 0 to 255"),
    ],
)
def test_values_that_are_no_picture(
    frame_of: Callable[..., np.ndarray], array: np.ndarray, high: float, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        frame_of(box(array, high), array)


def test_parts_of_observations_are_found(frame_of: Callable[..., np.ndarray]) -> None:
    space = spaces.Dict({"cameras": spaces.Tuple([VECTOR, box(PICTURE)])})
    observation = {"cameras": (np.zeros(3), PICTURE)}
    np.testing.assert_array_equal(frame_of(space, observation, frame_from="cameras/1"), PICTURE)
    with pytest.raises(DataError, match=r"gave nothing for a picture \(cameras/1\)"):
        frame_of(space, {"cameras": ()}, frame_from="cameras/1")


def test_a_symbol_grid_is_drawn_by_the_game(frame_of: Callable[..., np.ndarray]) -> None:
    np.testing.assert_array_equal(frame_of(SYMBOLS, np.ones((10, 10), np.uint8), PICTURE, "auto"), PICTURE)


# ---------------------------------------------------------------- does it change?


def test_pictures_that_never_change_are_noted() -> None:
    black, still = np.zeros((4, 8, 8, 3), np.uint8), np.full((4, 8, 8, 3), 7, np.uint8)
    moving = still.copy()
    moving[2, 0, 0, 0] = 8
    for episodes, found in (
        ([black, black], "all frames are black"),
        ([black, still], "no episode's picture ever changes"),
        ([still, moving], None),
        ([], None),
    ):
        watch = PictureWatch()
        for frames in episodes:
            watch.add(frames)
        notes = watch.notes()
        assert bool(notes) == (found is not None)
        if found is not None:
            assert found in notes[0] and "data.frame_from" in notes[0]
