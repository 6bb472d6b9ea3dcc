"""Several cameras of one recording: one of them is chosen, or their pictures are laid side by side.

Shapes: C cameras, h x w pixels of the largest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.sources.imports.protocol import FrameSource

ALL = "all"


def choose_cameras(found: Sequence[str], wanted: str | Sequence[str], kind: str) -> list[str]:
    """The cameras whose pictures are imported, in the order in which they are tiled.

    Args:
        found: all that there are.
        wanted: option `cameras`: names, "all", or nothing where there is one.
        kind: of the recordings, for messages.

    Raises:
        InputError: there is none, or several and nothing is wanted, or one of another name.
    """
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    known = ", ".join(found) or "none"
    if not found:
        raise InputError(f"{kind}: there are no pictures in it", hint="give recordings with a camera")
    if names in ([""], []):
        if len(found) > 1:
            raise InputError(
                f"{kind}: there are {len(found)} cameras: {known}",
                hint=f'set data.source.options.cameras to one of them, to several (they are tiled), or to "{ALL}"',
            )
        return list(found)
    if names == [ALL] and ALL not in found:
        return list(found)
    strange = [name for name in names if name not in found]
    if strange or len(set(names)) != len(names):
        reason = f"no camera {strange[0]!r}" if strange else "a camera is named twice"
        raise InputError(
            f"{kind}: option cameras: {reason}; cameras: {known}", hint=f'name some of them, or "{ALL}" for all'
        )
    return names


class Tiles:
    """Cameras with the same times as one picture: in rows of about as many as there are rows, black where none is.

    Args:
        cameras: at least one; a single one is shown as it is.
    """

    def __init__(self, cameras: Sequence[FrameSource]) -> None:
        assert cameras and all(len(camera.times) == len(cameras[0].times) for camera in cameras)
        self._cameras = cameras

    @property
    def times(self) -> np.ndarray:
        """See FrameSource."""
        return self._cameras[0].times

    def chosen(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """See FrameSource."""
        wanted = list(numbers)
        for pictures in zip(*(camera.chosen(wanted) for camera in self._cameras), strict=True):
            yield pictures[0] if len(pictures) == 1 else tiled(pictures)

    def close(self) -> None:
        """See FrameSource."""
        for camera in self._cameras:
            camera.close()


def tiled(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures (h, w, 3) or (h, w) of any sizes as one (rows * h, columns * w, 3); each at its cell's upper left."""
    columns = math.ceil(math.sqrt(len(pictures)))
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    whole = np.zeros((math.ceil(len(pictures) / columns) * height, columns * width, 3), np.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        shown = picture if picture.ndim == 3 else picture[:, :, None]
        whole[row * height :, column * width :][: shown.shape[0], : shown.shape[1]] = shown
    return whole
