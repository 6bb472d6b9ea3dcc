"""Best, median and worst episode: the right ones are kept whatever the order, and few wait at a time."""

from __future__ import annotations

import tempfile
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.evaluation import clips
from ahriuwu_cli.evaluation.clips import Highlights, write_videos


def episode(total: float, steps: int = 3, shade: int = 0) -> Episode:
    """An episode of 8x8 frames whose reward comes at its first step."""
    frames = np.full((steps + 1, 8, 8, 3), shade, np.uint8)
    ends = np.arange(steps) == steps - 1
    return Episode(
        frames=frames,
        actions=np.zeros((steps, 1), np.float32),
        action_valid=np.ones(steps, bool),
        rewards=np.array([total, *[0.0] * (steps - 1)], np.float32),
        terminals=ends,
        truncations=np.zeros(steps, bool),
        timestamps=np.arange(steps + 1) / 10,
        task="play",
        seed=0,
        policy="test",
    )


@settings(max_examples=40, deadline=None)
@given(returns=st.lists(st.integers(-3, 3), min_size=1, max_size=11), data=st.data())
def test_the_three_are_those_of_the_sorted_returns(returns: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(returns))))
    ranked = sorted(range(len(returns)), key=lambda index: (returns[index], index))
    with tempfile.TemporaryDirectory() as folder:
        highlights = Highlights(Path(folder), len(returns))
        for done, index in enumerate(order, start=1):
            highlights.add(index, episode(returns[index], shade=index))
            assert {int(path.stem) for path in Path(folder).iterdir()} == set(highlights.kept)
            assert len(highlights.kept) <= min(done, len(returns) // 2 + 3)
        found = [int(clip.frames[0, 0, 0, 0]) for clip in (highlights.worst(), highlights.median(), highlights.best())]
        assert found == [ranked[0], ranked[len(ranked) // 2], ranked[-1]]
        assert len(highlights.kept) == len(set(found))


def test_few_clips_wait(tmp_path: Path) -> None:
    """Memory: of 100 episodes no more than about half have a clip at any time, and none is held."""
    highlights = Highlights(tmp_path, 100)
    most = 0
    for index, value in enumerate(np.random.default_rng(0).normal(size=100)):
        highlights.add(index, episode(float(value)))
        most = max(most, len(highlights.kept))
    assert most <= 53
    assert len(highlights.kept) == 3
    assert not any(isinstance(value, np.ndarray) for value in vars(highlights).values())


def test_a_clip_knows_the_return_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "CLIP_STEPS", 4)
    highlights = Highlights(tmp_path, 1)
    long = episode(2.0, steps=9)
    long.rewards[:] = [0, 1, 0, -2, 0, 0, 0, 0, 3]
    highlights.add(0, long)
    clip = highlights.best()
    assert clip.gathered.tolist() == [0, 0, 1, 1, -1]
    assert (len(clip.frames), clip.total_reward, clip.num_steps, clip.fps) == (5, 2.0, 9, pytest.approx(10))


def test_videos(tmp_path: Path) -> None:
    """GIF of the median, MP4s of the best and the worst, each from its first frame to its last."""
    (tmp_path / "clips").mkdir()
    highlights = Highlights(tmp_path / "clips", 3)
    for index, (value, steps, shade) in enumerate([(5.0, 7, 250), (-1.0, 3, 10), (2.0, 5, 130)]):
        highlights.add(index, episode(value, steps, shade))
    write_videos(tmp_path, "bc", highlights)
    assert {path.name for path in tmp_path.glob("bc*")} == {"bc.gif", "bc-best.mp4", "bc-worst.mp4"}
    assert Image.open(tmp_path / "bc.gif").n_frames == 6
    for name, frames, shade in (("best", 8, 250), ("worst", 4, 10)):
        video = iio.imread(tmp_path / f"bc-{name}.mp4", plugin="pyav")
        assert len(video) == frames
        assert abs(float(video[0, -40, video.shape[2] // 2].mean()) - shade) < 12
