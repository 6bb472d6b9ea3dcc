"""The frame transform: identity, averages, interpolation, grey, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.episodes.frames import to_frame

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
