"""The video distance: zero for the same videos, the same both ways, larger the worse the videos are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.evaluation.video_distance import (
    RandomVideoNet,
    clip_features,
    frechet_distance,
    halves_distance,
    load_video_features,
)

COUNT, LENGTH, SIDE = 64, 16, 32
NETWORK = RandomVideoNet()


def bouncing(count: int = COUNT, length: int = LENGTH, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """Videos of a square that bounces in a framed field: (count, length, side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    size = side // 8
    frames = np.full((count, length, side, side, 3), 20, np.uint8)
    frames[:, :, :2] = (90, 90, 160)
    for video in frames:
        place, step = rng.uniform(2, side - size, 2), rng.uniform(-2.5, 2.5, 2)
        for frame in video:
            turned = (place + step < 2) | (place + step > side - size)
            step = np.where(turned, -step, step)
            place = place + step
            row, column = place.astype(int)
            frame[row : row + size, column : column + size] = (230, 180, 40)
    return frames


TRUTH = bouncing()
FEATURES = clip_features(TRUTH, NETWORK)
FLOOR = frechet_distance(FEATURES, clip_features(bouncing(seed=1), NETWORK))


def distance(videos: np.ndarray) -> float:
    return frechet_distance(FEATURES, clip_features(videos, NETWORK))


# ---------------------------------------------------------------- the formula


def test_gaussians_on_a_line() -> None:
    """Worked out by hand: means 0 and 3, variances 1 and 4: 9 + 1 + 4 - 2 * 2 = 10."""
    a, b = np.array([[-1.0], [0.0], [1.0]]), np.array([[1.0], [3.0], [5.0]])
    assert frechet_distance(a, b) == pytest.approx(10.0)


def test_the_formula_with_a_matrix_square_root() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(90, 5)) @ rng.normal(size=(5, 5)) + 1
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


SETS = arrays(np.float64, st.tuples(st.integers(2, 6), st.just(4)), elements=st.floats(-100, 100))


@given(SETS, SETS)
@settings(max_examples=60)
def test_it_is_a_distance_whatever_the_rank(a: np.ndarray, b: np.ndarray) -> None:
    """Fewer videos than features leave covariances without full rank; nothing becomes negative or complex."""
    there, back = frechet_distance(a, b), frechet_distance(b, a)
    scale = 1e-9 * (1 + np.square(a).sum() + np.square(b).sum())
    assert there >= 0
    assert there == pytest.approx(back, rel=1e-9, abs=scale)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=scale)


@pytest.mark.parametrize("shapes", [((1, 4), (5, 4)), ((5, 4), (5, 3)), ((5,), (5,))])
def test_what_has_no_spread_is_refused(shapes) -> None:
    with pytest.raises(ValueError, match="expected two rows each"):
        frechet_distance(*(np.zeros(shape) for shape in shapes))


# ---------------------------------------------------------------- the order it gives


def test_equal_videos_are_at_zero_and_other_true_ones_near() -> None:
    assert distance(TRUTH) == pytest.approx(0.0, abs=1e-9)
    assert distance(TRUTH[::-1]) == pytest.approx(0.0, abs=1e-9)  # a set has no order
    assert FLOOR > 0


def noisy(amount: float) -> np.ndarray:
    noise = np.random.default_rng(2).normal(0, amount, TRUTH.shape)
    return np.clip(TRUTH + noise, 0, 255).astype(np.uint8)


def blurred(amount: float) -> np.ndarray:
    return gaussian_filter(TRUTH, (0, 0, amount, amount, 0))


def frozen(amount: int) -> np.ndarray:
    frames = TRUTH.copy()
    frames[:, LENGTH - amount :] = frames[:, LENGTH - amount - 1 : LENGTH - amount]
    return frames


def shuffled(amount: int) -> np.ndarray:
    """Time is put into disorder within blocks of so many frames."""
    order = np.concatenate([start + np.arange(amount).reshape(2, -1).T.ravel() for start in range(0, LENGTH, amount)])
    return TRUTH[:, order]


def vanishing(amount: int) -> np.ndarray:
    """What moves is gone from the last frames."""
    frames = TRUTH.copy()
    frames[:, LENGTH - amount :] = np.median(TRUTH, axis=(0, 1)).astype(np.uint8)
    return frames


@pytest.mark.parametrize(
    ("harm", "amounts"),
    [
        (noisy, (6, 12, 24, 48)),
        (blurred, (0.5, 0.8, 1.2, 2.0)),
        (frozen, (4, 8, 12, 15)),
        (shuffled, (4, 8, 16)),
        (vanishing, (4, 8, 12, 16)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_worse_the_further(harm, amounts) -> None:
    """Pitfall 10: the measure is tried on harm whose amount is known before it is believed on dreams."""
    found = [distance(harm(amount)) for amount in amounts]
    assert all(less < more for less, more in pairwise([0.0, *found])), found
    assert found[-1] > 3 * FLOOR


def test_halves_of_the_truth_are_the_floor() -> None:
    halves = halves_distance(FEATURES, seed=0)
    assert halves == halves_distance(FEATURES, seed=0)
    assert halves is not None and 0 < halves < distance(frozen(15)) / 3
    assert halves_distance(FEATURES[:3], seed=0) is None


# ---------------------------------------------------------------- clips and networks


def test_long_videos_are_cut_into_clips() -> None:
    long = bouncing(3, 40)
    cut = np.concatenate([long[:, :16], long[:, 16:32]], axis=1).reshape(-1, 16, SIDE, SIDE, 3)
    np.testing.assert_allclose(clip_features(long, NETWORK), clip_features(cut, NETWORK), atol=1e-6)
    assert len(clip_features(bouncing(3, 5), NETWORK)) == 3


@pytest.mark.parametrize("shape", [(8, 8), (20, 48), (64, 64), (70, 96)])
def test_any_frame_size(shape) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, *shape, 3)).astype(np.uint8)
    features = clip_features(frames, NETWORK)
    assert features.shape == (2, 64) and np.isfinite(features).all()


def test_the_network_is_the_same_every_time_and_draws_from_nobody() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = RandomVideoNet()
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(clip_features(TRUTH[:2], again), clip_features(TRUTH[:2], NETWORK))


def test_another_network_from_a_file(tmp_path) -> None:
    class Mean(torch.nn.Module):
        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return clips.mean(dim=(2, 3, 4))

    path = tmp_path / "mean.pt"
    torch.jit.trace(Mean(), torch.zeros(2, 3, 4, 8, 8)).save(str(path))
    found = clip_features(TRUTH[:5], load_video_features(str(path)))
    np.testing.assert_allclose(found, TRUTH[:5].mean(axis=(1, 2, 3)) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(("content", "found"), [(None, "does not exist"), (b"text", "cannot be read")])
def test_a_file_that_is_no_network(tmp_path, content, found) -> None:
    path = tmp_path / "net.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=found):
        load_video_features(str(path))


@pytest.mark.parametrize("frames", [np.zeros((2, 3, 8, 8, 3)), np.zeros((2, 8, 8, 3), np.uint8)])
def test_anything_but_videos_is_refused(frames) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        clip_features(frames, NETWORK)
