"""The frame transform: identity, averages, interpolation, grey, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.core.config import validate
from ahriuwu_cli.core.errors import ConfigError, DataError, InputError
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.frames import BLOCK, FrameTransform, to_frame

sizes = st.integers(1, 40)


@settings(deadline=None)
@given(sizes, sizes, sizes, sizes, st.integers(0, 255))
def test_a_plain_image_stays_plain(h: int, w: int, height: int, width: int, value: int) -> None:
    frame = to_frame(np.full((h, w, 3), value, np.uint8), height, width)
    assert frame.shape == (height, width, 3)
    assert frame.dtype == np.uint8
    assert (frame == value).all()


@settings(deadline=None)
@given(sizes, sizes, sizes, sizes, st.integers(0, 99))
def test_values_stay_between_the_darkest_and_the_brightest(h: int, w: int, height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    frame = to_frame(image, height, width)
    assert frame.min() >= image.min()
    assert frame.max() <= image.max()
    flipped = to_frame(image[::-1, ::-1], height, width)[::-1, ::-1]
    assert np.abs(flipped.astype(int) - frame).max() <= 1  # no half-pixel shift


def test_same_size_is_the_same_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    assert np.array_equal(to_frame(image, 7, 5), image)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_shrinking_by_a_whole_factor_averages_blocks(down: int, across: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (8 * down, 9 * across, 3), dtype=np.uint8)
    means = image.reshape(8, down, 9, across, 3).mean((1, 3))
    assert np.abs(to_frame(image, 8, 9) - means).max() <= 0.51


def test_shrinking_by_a_fraction_weighs_by_area() -> None:
    image = np.repeat(np.array([[0], [90], [180]], np.uint8)[:, :, None], 3, axis=2)  # three rows onto two
    assert to_frame(image, 2, 1)[:, 0, 0].tolist() == [30, 150]  # (0 + 90/2) / 1.5, (90/2 + 180) / 1.5


def test_enlarging_interpolates_between_centres() -> None:
    image = np.repeat(np.array([[0], [100]], np.uint8)[:, :, None], 3, axis=2)
    assert to_frame(image, 3, 1)[:, 0, 0].tolist() == [0, 50, 100]
    assert to_frame(image, 5, 1)[:, 0, 0].tolist() == [0, 10, 50, 90, 100]


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_enlarging_by_a_whole_factor_repeats_pixels(down: int, across: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    frame = to_frame(image, 8 * down, 9 * across)
    assert np.array_equal(frame.reshape(8, down, 9, across, 3)[:, -1, :, -1], image)
    assert np.array_equal(frame[::down, ::across], image)


def test_grey_becomes_rgb() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (6, 6), dtype=np.uint8)
    for image in (grey, grey[:, :, None]):
        frame = to_frame(image, 6, 6)
        assert frame.shape == (6, 6, 3)
        assert (frame == grey[:, :, None]).all()


@pytest.mark.parametrize("shape", [(6,), (6, 6, 4), (2, 6, 6, 3), (0, 6, 3)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="expected uint8"):
        to_frame(np.zeros(shape, np.uint8), 4, 4)


def test_float_images_are_refused() -> None:
    with pytest.raises(DataError, match="float32"):
        to_frame(np.zeros((6, 6, 3), np.float32), 6, 6)


@pytest.mark.parametrize(("h", "w", "height", "width"), [(300, 7, 2 * BLOCK + 5, 5), (7, 300, 9, 2 * BLOCK + 5)])
def test_rows_far_down_are_averages_as_well(h: int, w: int, height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8)
    down, across = _shares(h, height), _shares(w, width)
    means = np.einsum("ih,hwc,jw->ijc", down, image.astype(np.float64), across)
    assert np.abs(to_frame(image, height, width) - means).max() <= 0.51


def _shares(source: int, target: int) -> np.ndarray:
    """How much of every source row is in each output row (target, source): areas, or bilinear where it is enlarged."""
    at = np.arange(source)
    if target < source:
        edges = np.arange(target + 1) * source / target
        low, high = np.maximum(edges[:-1, None], at), np.minimum(edges[1:, None], at + 1)
        shares = np.maximum(high - low, 0)
    else:
        centre = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
        shares = np.maximum(1 - np.abs(centre[:, None] - at), 0)
    return shares / shares.sum(axis=1, keepdims=True)


# ---------------------------------------------------------------- crop, fit and masks


def ramp(h: int, w: int) -> np.ndarray:
    """A picture whose red says the row, green the column; no black in it."""
    image = np.full((h, w, 3), 255, np.uint8)
    image[..., 0], image[..., 1] = np.arange(1, h + 1)[:, None], np.arange(1, w + 1)
    return image


def test_padding_keeps_all_of_the_picture_and_its_aspect() -> None:
    frame = FrameTransform(16, 16, fit="pad")(ramp(8, 16), "a game")
    assert np.array_equal(frame[4:12], ramp(8, 16))
    assert not frame[:4].any()
    assert not frame[12:].any()
    high = FrameTransform(16, 16, fit="pad")(ramp(16, 7), "a game")
    assert np.array_equal(high[:, 4:11], ramp(16, 7))
    assert not np.delete(high, np.s_[4:11], axis=1).any()


def test_covering_keeps_the_aspect_and_cuts_off_the_sides() -> None:
    assert np.array_equal(FrameTransform(8, 8, fit="cover")(ramp(8, 16), "a game"), ramp(8, 16)[:, 4:12])
    assert np.array_equal(FrameTransform(8, 8, fit="cover")(ramp(17, 8), "a game"), ramp(17, 8)[4:12])


@settings(deadline=None)
@given(sizes, sizes, sizes, sizes, st.sampled_from(["stretch", "pad", "cover"]))
def test_any_size_fits_any_other(h: int, w: int, height: int, width: int, fit: str) -> None:
    frame = FrameTransform(height, width, fit=fit)(np.full((h, w, 3), 9, np.uint8), "a game")  # type: ignore[arg-type]
    assert (frame.shape, frame.dtype) == ((height, width, 3), np.uint8)
    rows, columns = (frame == 9).all(axis=(1, 2)).sum(), (frame == 9).all(axis=2).any(axis=0).sum()
    if fit != "pad":
        assert (frame == 9).all()
        return
    rows = int((frame == 9).all(axis=2).any(axis=1).sum())
    assert ((frame == 9) | (frame == 0)).all()
    assert rows == height or columns == width
    assert abs(rows - columns * h / w) <= max(1, h / w) or abs(columns - rows * w / h) <= max(1, w / h)


def test_masks_are_black_before_anything_else_and_the_picture_is_left_alone() -> None:
    image = ramp(16, 16)
    frame = FrameTransform(8, 8, crop=[4, 4, 8, 8], masks=[[0, 0, 5, 6], [11, 11, 5, 5]])(image, "a game")
    expected = ramp(16, 16)[4:12, 4:12]
    expected[:1, :2] = 0
    expected[7:, 7:] = 0
    assert np.array_equal(frame, expected)
    assert np.array_equal(image, ramp(16, 16))
    grey = FrameTransform(8, 8, masks=[[0, 0, 2, 8]])(np.full((8, 8), 7, np.uint8), "a game")
    assert np.array_equal(grey[:, 0, 0], [0, 0, 7, 7, 7, 7, 7, 7])


@pytest.mark.parametrize(
    ("transform", "setting"),
    [
        (FrameTransform(8, 8, masks=[[0, 10, 4, 7]]), "data.masks"),
        (FrameTransform(8, 8, crop=[9, 0, 8, 8]), "data.crop"),
    ],
)
def test_what_reaches_beyond_the_picture_is_refused(transform: FrameTransform, setting: str) -> None:
    with pytest.raises(InputError, match=rf"{setting} .* beyond the picture of a game, which has 16x16") as told:
        transform(ramp(16, 16), "a game")
    assert setting in told.value.hint


@pytest.mark.parametrize(
    "values", [{"fit": "zoom"}, {"masks": [[1, 2, 3]]}, {"masks": [[0, 0, 0, 4]]}, {"masks": [[-1, 0, 4, 4]]}]
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        validate(DataSection, values, "run.toml")


def test_the_settings_say_what_is_done() -> None:
    data = DataSection(height=8, width=16, crop=[0, 0, 9, 9], fit="pad", masks=[[1, 1, 2, 2]])
    assert FrameTransform.of(data) == FrameTransform(8, 16, [0, 0, 9, 9], "pad", [[1, 1, 2, 2]])
