"""Where an environment's picture is - an observation, a part of one, or what it draws - and its pixels as bytes.

Shapes: h x w pixels, C = 1 (grey), 3 (RGB) or 4 (RGBA) channels.

Decision: an observation is a picture only where its space leaves no doubt; where the game can draw itself too, small
grids are left to it, since a grid of symbols may have the bounds of a picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from ahriuwu_cli.core.errors import DataError, InputError
from ahriuwu_cli.episodes.names import Keys, part_name

AUTO, OBSERVATION, RENDER = "auto", "observation", "render"
MIN_SIDE = 8  # pixels; smaller arrays are no pictures
SURE_SIDE = 32  # pixels from which an observation comes before what the game draws
CHANNELS = (1, 3, 4)
HINT = "wrap the environment so that it shows uint8 RGB or grey images, or set data.frame_from"


@dataclass(frozen=True)
class Reading:
    """How an array is a picture: where its channels are, and whether they go to 1 or to 255."""

    channels_first: bool
    unit: bool
    alpha: bool


@dataclass(frozen=True)
class Source:
    """Where frames come from.

    Attributes:
        name: as `data.frame_from` says it.
        path: keys that lead through Dict and Tuple observations; None for what the game draws.
        reading: of an observation; None where only the picture itself can tell.
    """

    name: str
    path: Keys | None = None
    reading: Reading | None = None
    shape: tuple[int, ...] = ()

    def pixels(self, image: Any, env_id: str) -> np.ndarray:
        """The picture as (h, w, 3), (h, w, 1) or (h, w) uint8.

        Raises:
            DataError: it is none, or not what the observation space declares.
        """
        if not isinstance(image, np.ndarray):
            found = "nothing" if image is None else type(image).__name__
            raise DataError(f"{env_id} gave {found} for a picture ({self.name}); expected an array", hint=HINT)
        if self.reading is None:
            return _as_bytes(image, _seen(image, env_id), env_id)
        if image.shape != self.shape:
            raise DataError(
                f"{env_id} gave a picture of shape {image.shape}; its observation space says {self.shape}",
                hint="correct the environment's observation_space",
            )
        return _as_bytes(image, self.reading, env_id)

    def find(self, observation: Any) -> Any:
        """The picture in an observation; None where it has no such part."""
        for key in self.path or ():
            try:
                observation = observation[key]
            except (LookupError, TypeError):
                return None
        return observation


def choose(space: spaces.Space[Any], wanted: str, *, draws: bool, env_id: str) -> Source:
    """Decide what the frames are.

    Args:
        space: the observation space.
        wanted: `data.frame_from`: auto, observation, render, or the keys of a part, joined by `/`.
        draws: the game has the render mode rgb_array.
        env_id: for messages.

    Raises:
        InputError: there is no such picture, or several.
    """
    parts = dict(_parts(space, ()))
    sources = {path: source for path, part in parts.items() if isinstance(source := _source(path, part), Source)}
    if wanted == RENDER or (wanted == AUTO and draws and not _is_sure(sources.get(()))):
        if not draws:
            raise InputError(f"{env_id} cannot draw itself: it has no render mode 'rgb_array'", hint=HINT)
        return Source(RENDER)
    if wanted == AUTO:
        if len(sources) == 1:
            return next(iter(sources.values()))
        if sources:
            names = ", ".join(source.name for source in sources.values())
            raise InputError(f"{env_id} shows several pictures: {names}", hint="set data.frame_from to one of them")
        seen = "; ".join(f"{part_name(path) or OBSERVATION}: {_source(path, part)}" for path, part in parts.items())
        raise InputError(f"{env_id} shows no picture and has no render mode 'rgb_array'. {seen}", hint=HINT)
    path = next((path for path in parts if wanted.removeprefix("/") == part_name(path)), None)
    if wanted == OBSERVATION:
        path = ()
    if path is None or path not in parts:
        names = ", ".join(part_name(path) or OBSERVATION for path in parts)
        raise InputError(
            f"data.frame_from is {wanted!r}, which {env_id} does not observe; it has {names}",
            hint="set data.frame_from to auto, render or one of these",
        )
    if path not in sources:
        raise InputError(f"{env_id}, {wanted}: {_source(path, parts[path])}", hint=HINT)
    return sources[path]


def _parts(space: spaces.Space[Any], path: Keys) -> Iterator[tuple[Keys, spaces.Space[Any]]]:
    """Every space that is neither Dict nor Tuple, with the keys that lead to it."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in inner:
            yield from _parts(part, (*path, key))
    else:
        yield path, space


def _source(path: Keys, space: spaces.Space[Any]) -> Source | str:
    """The space as a picture, or why it is none."""
    if not isinstance(space, spaces.Box):
        return f"{type(space).__name__} is no picture"
    axes = _axes(space.shape, MIN_SIDE)
    if axes is None:
        return f"shape {space.shape} is no picture; expected (h, w), (h, w, C) or (C, h, w) with C 1, 3 or 4"
    low, high = float(space.low.min()), float(space.high.max())
    even = bool((space.low == low).all() and (space.high == high).all())
    floats = np.issubdtype(space.dtype, np.floating)
    if not even or space.dtype == np.bool_ or (low, high) not in (((0, 1), (0, 255)) if floats else ((0, 255),)):
        readings = "a picture from 0 to 1 or from 0 to 255" if floats else "symbols, or shades of a picture"
        return f"{space.dtype} {space.shape} from {low:g} to {high:g} may be {readings}; the space does not say"
    reading = Reading(channels_first=axes[0], unit=high == 1, alpha=axes[1] == 4)
    name = part_name(path)
    return Source(
        f"/{name}" if name in (AUTO, OBSERVATION, RENDER) else name or OBSERVATION, path, reading, space.shape
    )


def _is_sure(source: Source | None) -> bool:
    if source is None or source.reading is None or source.reading.alpha:
        return False
    sides = source.shape[1:] if source.reading.channels_first else source.shape[:2]
    return min(sides) >= SURE_SIDE


def _axes(shape: tuple[int, ...], side: int) -> tuple[bool, int] | None:
    """Whether channels come first, and how many there are; None for a shape that is no picture."""
    if len(shape) == 2 and min(shape) >= side:
        return False, 1
    if len(shape) == 3 and shape[2] in CHANNELS and min(shape[:2]) >= side:
        return False, shape[2]
    if len(shape) == 3 and shape[0] in CHANNELS and min(shape[1:]) >= side:
        return True, shape[0]
    return None


def _seen(image: np.ndarray, env_id: str) -> Reading:
    """How what a game draws is a picture."""
    axes = _axes(image.shape, 1)
    if axes is None:
        raise DataError(f"{env_id} drew an array of shape {image.shape}; expected (h, w, 3) or (h, w)", hint=HINT)
    return Reading(channels_first=axes[0], unit=bool(np.issubdtype(image.dtype, np.floating)), alpha=axes[1] == 4)


def _as_bytes(image: np.ndarray, reading: Reading, env_id: str) -> np.ndarray:
    """A picture by its reading, channels last, alpha left out."""
    pixels = image if image.dtype == np.uint8 else _rounded(image, 255 if reading.unit else 1, env_id)
    if reading.channels_first:
        pixels = np.moveaxis(pixels, 0, -1)
    if not reading.alpha:
        return pixels
    if (pixels[..., 3] != 255).any():
        raise DataError(
            f"{env_id} gave a picture of 4 channels, the last not 255 everywhere: RGBA with transparent parts, or four "
            "grey pictures",
            hint="wrap the environment so that it shows the newest picture alone, or RGB",
        )
    return pixels[..., :3]


def _rounded(image: np.ndarray, scale: int, env_id: str) -> np.ndarray:
    """Numbers from 0 to 255 / `scale`, in bytes."""
    low, high, top = float(image.min()), float(image.max()), 255 // scale
    if not (low >= 0 and high <= top):  # also where a channel is not a number
        expected = "uint8, or floats from 0 to 1" if scale > 1 else "numbers from 0 to 255"
        raise DataError(f"{env_id} drew {image.dtype} between {low:g} and {high:g}; expected {expected}", hint=HINT)
    return np.rint(image.astype(np.float64) * scale).astype(np.uint8)


# ---------------------------------------------------------------- does it change?


class PictureWatch:
    """Looks whether any picture of a recording changes."""

    def __init__(self) -> None:
        self._seen = 0
        self._alive = False
        self._black = True

    def add(self, frames: np.ndarray) -> None:
        """Take in the frames (T+1, h, w, 3) of one episode."""
        self._seen += 1
        if not self._alive:
            self._black = self._black and not frames[0].any()
            self._alive = any(not np.array_equal(frame, frames[0]) for frame in frames[1:])

    def notes(self) -> list[str]:
        """What is to be said: nothing where a picture has changed."""
        if self._alive or not self._seen:
            return []
        found = "all frames are black" if self._black else "no episode's picture ever changes"
        return [f"{found}: nothing can be learned from them; look at data.frame_from, data.crop and data.env_options"]
