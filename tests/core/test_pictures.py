"""Side-by-side pictures: every pixel where it belongs, the context marker, the files as others read them."""

from __future__ import annotations

from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ahriuwu_cli.core.pictures import writing
from ahriuwu_cli.core.pictures.palette import NUM_COLOURS, TOLERANCE, index_colours
from ahriuwu_cli.core.pictures.style import GAP, NEUTRAL_COLOUR, TRACK_COLOUR
from ahriuwu_cli.core.pictures.tiles import CONTEXT_COLOUR, DREAM_COLOUR, side_by_side
from ahriuwu_cli.core.pictures.writing import write_gif, write_mp4, write_png
from ahriuwu_cli.evaluation.metrics import psnr

Frames = NDArray[np.uint8]


def _frames(*shape: int, seed: int = 0) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _has(picture: Frames, colour: tuple[int, int, int]) -> bool:
    return bool((picture == np.array(colour, np.uint8)).all(axis=-1).any())


def _find(picture: Frames, tile: Frames) -> list[tuple[int, int]]:
    """Places (top, left) where a tile appears pixel for pixel."""
    height, width = tile.shape[:2]
    corners = np.argwhere((picture[: -height + 1, : -width + 1] == tile[0, 0]).all(axis=-1))
    return [
        (int(top), int(left))
        for top, left in corners
        if (picture[top : top + height, left : left + width] == tile).all()
    ]


@pytest.mark.parametrize("scale", [1, 3])
def test_each_frame_lies_in_its_row_column_and_step(scale: int) -> None:
    columns = {"truth": _frames(2, 3, 10, 14, 3), "a longer caption": _frames(2, 3, 10, 14, 3, seed=1)}
    video = side_by_side(columns, scale=scale, context_length=1)
    assert video.shape[0] == 3
    assert video.dtype == np.uint8
    for step in range(3):
        places = np.array(
            [
                _find(video[step], frames[row, step].repeat(scale, axis=0).repeat(scale, axis=1))
                for row in range(2)
                for frames in columns.values()
            ]
        ).reshape(2, 2, 2)  # (row, column, top and left): each found exactly once
        assert (places[0, :, 0] < places[1, :, 0]).all()  # the second context lies below
        assert (places[:, 0, 1] < places[:, 1, 1]).all()  # the second column lies to the right
        assert (places[:, 0, 0] == places[:, 1, 0]).all()


def test_context_and_dream_are_told_apart_by_colour() -> None:
    video = side_by_side({"truth": np.zeros((1, 5, 16, 16, 3), np.uint8)}, context_length=2)
    rows_of_tiles = video[:, -40:]  # below status line and progress bar
    for step in range(5):
        assert _has(rows_of_tiles[step], CONTEXT_COLOUR) == (step < 2)
        assert _has(rows_of_tiles[step], DREAM_COLOUR) == (step >= 2)


def test_progress_bar_grows() -> None:
    video = side_by_side({"truth": np.zeros((1, 6, 32, 32, 3), np.uint8)}, context_length=2)
    bar = video[:, GAP:-40]
    for colour, growing in ((CONTEXT_COLOUR, slice(0, 2)), (DREAM_COLOUR, slice(2, 6))):
        shown = [int((frame == np.array(colour, np.uint8)).all(axis=-1).sum()) for frame in bar[growing]]
        assert (np.diff(shown) > 0).all()


@pytest.mark.parametrize("context_length", [None, 0, 4])
def test_all_context_all_dream_and_neither(context_length: int | None) -> None:
    video = side_by_side({"truth": np.zeros((1, 4, 16, 16, 3), np.uint8)}, context_length=context_length)
    expected = {None: NEUTRAL_COLOUR, 0: DREAM_COLOUR, 4: CONTEXT_COLOUR}[context_length]
    for colour in (NEUTRAL_COLOUR, DREAM_COLOUR, CONTEXT_COLOUR):
        assert all(_has(frame, colour) == (colour == expected) for frame in video)


def test_captions_do_not_touch_and_differ_with_their_text() -> None:
    black = np.zeros((1, 1, 8, 8, 3), np.uint8)
    picture = side_by_side({"reconstruction": black, "persistence": black}, scale=1)[0]
    other = side_by_side({"reconstruction": black, "shuffled": black}, scale=1)[0]
    assert picture.shape == other.shape
    assert (picture != other).any()
    captions = picture[-36:-14]  # the line above the tiles
    bright = np.flatnonzero((captions > 150).all(axis=-1).any(axis=0))
    assert bright.max() < picture.shape[1] - 2  # nothing is cut off
    assert np.diff(bright).max() >= GAP  # a gap between the two


def test_long_captions_are_wrapped_not_widened() -> None:
    black = np.zeros((1, 1, 32, 32, 3), np.uint8)
    short = side_by_side({"dream": black}, scale=4)[0]
    long = side_by_side({"dream with shuffled actions": black}, scale=4)[0]
    assert long.shape[1] == short.shape[1]
    assert long.shape[0] > short.shape[0]


def test_rows_are_named_at_the_left() -> None:
    columns = {"+1": _frames(2, 1, 32, 32, 3), "+16": _frames(2, 1, 32, 32, 3, seed=1)}
    plain = side_by_side(columns, scale=2)[0]
    named = side_by_side(columns, scale=2, row_names=["truth", "dream"])[0]
    shift = named.shape[1] - plain.shape[1]
    assert named.shape[0] == plain.shape[0]
    np.testing.assert_array_equal(named[:, shift + GAP :], plain[:, GAP:])
    written = np.flatnonzero((named[:, :shift] > 150).all(axis=-1).any(axis=1))
    rows = np.array([_find(plain, frame.repeat(2, axis=0).repeat(2, axis=1))[0][0] for frame in columns["+1"][:, 0]])
    assert all(((written > top) & (written < top + 64)).any() for top in rows)
    with pytest.raises(ValueError, match="expected 2, one per row"):
        side_by_side(columns, row_names=["truth"])


def test_a_still_has_no_progress_bar() -> None:
    frame = np.zeros((1, 1, 32, 32, 3), np.uint8)
    still, moment = side_by_side({"a": frame}), side_by_side({"a": frame}, context_length=0)
    assert still.shape[1] < moment.shape[1]
    assert not _has(still[0], TRACK_COLOUR)


def test_one_context_one_step_one_pixel() -> None:
    assert side_by_side({"": np.zeros((1, 1, 1, 1, 3), np.uint8)}, scale=1, context_length=1).shape[0] == 1


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {}, "no column"),
        ({"a": np.zeros((1, 2, 8, 8), np.uint8)}, {}, "RGB"),
        ({"a": np.zeros((1, 2, 8, 8, 1), np.uint8)}, {}, "RGB"),
        ({"a": np.zeros((0, 2, 8, 8, 3), np.uint8)}, {}, "RGB"),
        ({"a": np.zeros((1, 2, 8, 8, 3), np.float32)}, {}, "'a' is float32"),
        ({"a": _frames(1, 2, 8, 8, 3), "b": _frames(1, 3, 8, 8, 3)}, {}, "'b' has shape"),
        ({"a": _frames(1, 2, 8, 8, 3)}, {"scale": 0}, "scale is 0"),
        ({"a": _frames(1, 2, 8, 8, 3)}, {"context_length": 3}, "expected 0..2"),
        ({"a": _frames(1, 2, 8, 8, 3)}, {"context_length": -1}, "expected 0..2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(columns, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        side_by_side(columns, **options)


# ---------------------------------------------------------------- GIF


def _read_gif(path: Path) -> tuple[Frames, list[int], int]:
    frames, delays = [], []
    with Image.open(path) as image:
        assert image.format == "GIF"
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
            delays.append(image.info["duration"])
        return np.stack(frames), delays, image.info["loop"]


def test_gif_of_few_colours_is_exact_and_loops_forever(tmp_path: Path) -> None:
    colours = np.arange(0, 250, 10, dtype=np.uint8)[:, None].repeat(3, axis=1)
    frames = colours[np.random.default_rng(0).integers(0, 25, (6, 21, 33))]
    write_gif(tmp_path / "a.gif", frames, fps=10)
    read, delays, loop = _read_gif(tmp_path / "a.gif")
    np.testing.assert_array_equal(read, frames)
    assert delays == [100] * 6
    assert loop == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.parametrize("fps", [0.5, 7, 14.985, 15, 30, 60])
def test_gif_keeps_its_length_in_time(tmp_path: Path, fps: float) -> None:
    """Pitfall 27: the frame rate is not cut to a whole number of hundredths (15 fps stays 15)."""
    frames = np.zeros((30, 8, 8, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(0, 240, 8)
    write_gif(tmp_path / "a.gif", frames, fps)
    _, delays, _ = _read_gif(tmp_path / "a.gif")
    assert len(delays) == 30
    assert sum(delays) == pytest.approx(30 * 1000 / min(fps, 50), abs=5)
    assert min(delays) >= 20


def test_gif_of_one_frame_and_of_equal_frames(tmp_path: Path) -> None:
    frame = _frames(1, 9, 9, 3) // 64 * 64
    write_gif(tmp_path / "one.gif", frame, fps=15)
    np.testing.assert_array_equal(_read_gif(tmp_path / "one.gif")[0], frame)
    write_gif(tmp_path / "equal.gif", frame.repeat(4, axis=0), fps=10)
    read, delays, _ = _read_gif(tmp_path / "equal.gif")
    np.testing.assert_array_equal(read[0], frame[0])
    assert sum(delays) == 400


def test_gif_of_many_colours_stays_close_and_small(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:64, 0:64]
    still = np.stack([rows * 4, columns * 4, 255 - rows * 2], axis=-1)
    noise = np.random.default_rng(0).normal(0, 0.7, (10, 64, 64, 3))
    frames = np.clip(still + noise, 0, 255).astype(np.uint8)
    for step in range(10):
        frames[step, 30:34, 4 * step : 4 * step + 4] = (255, 0, 0)
    write_gif(tmp_path / "a.gif", frames, fps=15)
    read, _, _ = _read_gif(tmp_path / "a.gif")
    assert psnr(frames, read).min() > 30
    for step in range(10):  # a small thing in a rare colour keeps it
        assert np.abs(read[step, 30:34, 4 * step : 4 * step + 4].astype(int) - (255, 0, 0)).max() < 16
    assert (tmp_path / "a.gif").stat().st_size < frames.nbytes / 10


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 60))
def test_palette_never_shows_more_than_the_tolerance_off_when_it_has_room(seed: int, steps: int, spread: int) -> None:
    rng = np.random.default_rng(seed)
    frames = (rng.integers(0, spread, (steps, 4, 5, 1)) + 100).astype(np.uint8).repeat(3, axis=-1)
    palette, indices = index_colours(frames)
    assert len(palette) <= NUM_COLOURS
    assert np.abs(palette[indices].astype(int) - frames).max() <= TOLERANCE


# ---------------------------------------------------------------- MP4 and PNG


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (2, 2), (1, 1)])
def test_mp4_is_h264_with_even_sizes_and_close_keyframes(tmp_path: Path, size: tuple[int, int]) -> None:
    height, width = size
    ramp = np.linspace(40, 200, 40)[:, None, None, None]
    frames = np.broadcast_to(ramp, (40, height, width, 3)).astype(np.uint8)
    write_mp4(tmp_path / "a.mp4", frames, fps=14.985)
    with av.open(tmp_path / "a.mp4") as container:
        assert "mp4" in container.format.name
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.width) == (height + height % 2, width + width % 2)
        assert float(stream.average_rate) == pytest.approx(14.985, rel=1e-4)
        keys, read = [], []
        for frame in container.decode(stream):
            keys.append(frame.key_frame)
            read.append(frame.to_ndarray(format="rgb24")[:height, :width])
    assert len(read) == 40
    assert np.diff(np.flatnonzero([*keys, True])).max() <= 16
    assert np.abs(np.stack(read).astype(int) - frames).mean() < 4
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_mp4_of_one_frame(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", np.full((1, 16, 16, 3), 90, np.uint8), fps=30)
    assert iio.imread(tmp_path / "a.mp4", plugin="pyav").shape == (1, 16, 16, 3)


def test_png_is_exact(tmp_path: Path) -> None:
    picture = _frames(13, 7, 3)
    write_png(tmp_path / "deep" / "a.png", picture)
    np.testing.assert_array_equal(iio.imread(tmp_path / "deep" / "a.png"), picture)


@pytest.mark.parametrize("write", [write_gif, write_mp4])
@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), 10, "RGB"),
        (np.zeros((3, 8, 8, 1), np.uint8), 10, "RGB"),
        (np.zeros((0, 8, 8, 3), np.uint8), 10, "RGB"),
        (np.zeros((3, 8, 8, 3), np.float32), 10, "float32"),
        (np.zeros((3, 8, 8, 3), np.uint8), 0, "fps is 0"),
        (np.zeros((3, 8, 8, 3), np.uint8), float("nan"), "fps is nan"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, write, frames, fps, message) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a.bin", frames, fps)
    with pytest.raises(ValueError, match="float64"):
        write_png(tmp_path / "a.png", np.zeros((8, 8, 3)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [write_gif, write_mp4])
def test_a_failed_write_keeps_the_previous_file(tmp_path, write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"previous")

    def fail(*args: object, **options: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    monkeypatch.setattr(writing.iio, "imopen", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, np.zeros((3, 16, 16, 3), np.uint8), 10)
    assert path.read_bytes() == b"previous"
    assert list(tmp_path.iterdir()) == [path]
