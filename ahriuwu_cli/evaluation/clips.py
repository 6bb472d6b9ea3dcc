"""The best, the median and the worst episode of an agent, kept while others are still being played, as videos.

Shapes: T steps of an episode, S = min(T, CLIP_STEPS) steps of its clip, H x W pixels.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ahriuwu_cli.core.pictures.captions import captioned
from ahriuwu_cli.core.pictures.tiles import side_by_side
from ahriuwu_cli.core.pictures.writing import write_gif, write_mp4
from ahriuwu_cli.episodes.episode import Episode

CLIP_STEPS = 400
"""Steps of an episode that are kept for its video: real games have episodes of tens of thousands."""
PICTURE_PIXELS = 128
"""Height of a frame in the videos, about."""


@dataclass(frozen=True)
class Clip:
    """The beginning of one episode.

    Attributes:
        frames: (S+1, H, W, 3) uint8.
        gathered: (S+1,) float64, the return so far when each frame is seen.
        total_reward: return of the whole episode.
        num_steps: T, steps of the whole episode.
        fps: frames per second.
    """

    frames: NDArray[np.uint8]
    gathered: NDArray[np.float64]
    total_reward: float
    num_steps: int
    fps: float


class Highlights:
    """Keeps the clips of those episodes that can still end up as the best, the median or the worst.

    With n of N episodes played, the one in place k will end in one of the places k..k + N - n. Clips wait as files,
    at most about N / 2 of them, so memory holds a single one.

    Args:
        folder: an empty folder for the files, removed by its owner.
        count: N, episodes that will be added.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count
        self._ranked: list[tuple[float, int]] = []  # (return, index) of all episodes so far, worst first
        self._kept: set[int] = set()

    @property
    def kept(self) -> frozenset[int]:
        """Indices of the episodes whose clips wait."""
        return frozenset(self._kept)

    def add(self, index: int, episode: Episode) -> None:
        """Take in an episode that has ended; `index` is its place among the N."""
        insort(self._ranked, (episode.total_reward, index))
        wanted = self._wanted()
        for gone in self._kept - wanted:
            self._path(gone).unlink()
        self._kept &= wanted
        if index in wanted:
            self._write(index, episode)
            self._kept.add(index)

    def worst(self) -> Clip:
        """The episode of the lowest return, once all N are in."""
        return self._clip(0)

    def median(self) -> Clip:
        """The episode of the median return (the upper one of two), once all N are in."""
        return self._clip(self._count // 2)

    def best(self) -> Clip:
        """The episode of the highest return, once all N are in."""
        return self._clip(self._count - 1)

    def _wanted(self) -> set[int]:
        missing = self._count - len(self._ranked)
        ends = (0, self._count // 2, self._count - 1)
        places = {place for end in ends for place in range(max(0, end - missing), min(end, len(self._ranked) - 1) + 1)}
        return {self._ranked[place][1] for place in places}

    def _clip(self, place: int) -> Clip:
        assert len(self._ranked) == self._count
        with np.load(self._path(self._ranked[place][1])) as stored:
            return Clip(
                stored["frames"],
                stored["gathered"],
                float(stored["total_reward"]),
                int(stored["num_steps"]),
                float(stored["fps"]),
            )

    def _write(self, index: int, episode: Episode) -> None:
        rewards = episode.rewards[:CLIP_STEPS].astype(np.float64)
        np.savez(
            self._path(index),
            frames=episode.frames[: CLIP_STEPS + 1],
            gathered=np.concatenate([[0.0], np.cumsum(rewards)]),
            total_reward=episode.total_reward,
            num_steps=episode.num_steps,
            fps=1 / float(np.diff(episode.timestamps).mean()),
        )

    def _path(self, index: int) -> Path:
        return self._folder / f"{index}.npz"


def write_videos(out: Path, name: str, highlights: Highlights) -> None:
    """Write NAME.gif (median), NAME-best.mp4 and NAME-worst.mp4 into `out`."""
    median = highlights.median()
    caption = f"{name}: {median.total_reward:g}"
    write_gif(out / f"{name}.gif", side_by_side({caption: median.frames[None]}, scale=_scale(median)), median.fps)
    for which, clip in (("best", highlights.best()), ("worst", highlights.worst())):
        captions = [_caption(f"{name}, {which} episode", clip, step) for step in range(len(clip.frames))]
        write_mp4(out / f"{name}-{which}.mp4", captioned(clip.frames, captions, scale=_scale(clip)), clip.fps)


def _caption(title: str, clip: Clip, step: int) -> tuple[str, ...]:
    """What stands above the frame seen after `step` steps."""
    return title, f"return {clip.gathered[step]:g} of {clip.total_reward:g}", f"step {step} of {clip.num_steps}"


def _scale(clip: Clip) -> int:
    height: int = clip.frames.shape[1]
    return max(1, round(PICTURE_PIXELS / height))
