"""PSNR, SSIM and horizon curves against scikit-image, hand-worked numbers, an oracle and noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ahriuwu_cli.evaluation import metrics
from ahriuwu_cli.evaluation.metrics import PSNR_CAP, horizon_table, psnr, ssim

SIZES = [(32, 32), (64, 64), (11, 11), (11, 40), (37, 16), (96, 64)]


def _noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _disturbed(frames: NDArray[np.uint8], amount: float, seed: int = 1) -> NDArray[np.uint8]:
    moved = frames + np.random.default_rng(seed).normal(0, amount, frames.shape)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def _smooth(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    rows, columns = np.arange(shape[-3])[:, None, None], np.arange(shape[-2])[None, :, None]
    frame = 120 + 60 * np.sin(rows / 5) + 40 * np.cos(columns / 4 + np.arange(3))
    return np.broadcast_to(frame, shape).astype(np.uint8)


def _reference_ssim(truth: NDArray[np.uint8], guess: NDArray[np.uint8]) -> float:
    return float(
        structural_similarity(
            truth,
            guess,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("amount", [1, 10, 80])
def test_ssim_equals_scikit_image(size: tuple[int, int], amount: float) -> None:
    for truth in (_noise((*size, 3)), _smooth((*size, 3)), np.zeros((*size, 3), np.uint8)):
        guess = _disturbed(truth, amount)
        assert ssim(truth, guess) == pytest.approx(_reference_ssim(truth, guess), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(11, 48), st.integers(11, 48), st.integers(0, 2**32 - 1))
def test_scores_equal_scikit_image_at_any_size(height: int, width: int, seed: int) -> None:
    truth, guess = _noise((height, width, 3), seed), _noise((height, width, 3), seed + 1)
    assert ssim(truth, guess) == pytest.approx(_reference_ssim(truth, guess), abs=1e-6)
    assert psnr(truth, guess) == pytest.approx(peak_signal_noise_ratio(truth, guess, data_range=255), abs=1e-9)


def test_psnr_of_known_errors() -> None:
    truth = np.full((4, 12, 12, 3), 100, np.uint8)
    guess = truth.copy()
    guess[0] += 1  # mean squared error 1
    guess[1] -= 10  # mean squared error 100
    guess[2, 0, 0, 0] += 12  # mean squared error 144 / 432 = 1 / 3
    expected = [20 * np.log10(255), 20 * np.log10(25.5), 20 * np.log10(255) + 10 * np.log10(3), PSNR_CAP]
    np.testing.assert_allclose(psnr(truth, guess), expected, rtol=1e-12)


def test_psnr_does_not_wrap_around_at_the_ends_of_uint8() -> None:
    black, white = np.zeros((12, 12, 3), np.uint8), np.full((12, 12, 3), 255, np.uint8)
    assert psnr(black, white) == pytest.approx(0.0)
    assert psnr(white, black) == pytest.approx(0.0)
    assert ssim(white, black) == pytest.approx(0.0, abs=1e-3)


def test_metrics_on_an_oracle_and_on_noise() -> None:
    """Pitfall 10: an oracle scores the maximum, noise scores low, more noise scores lower."""
    truth = _smooth((5, 32, 32, 3))
    assert (psnr(truth, truth) == PSNR_CAP).all()
    np.testing.assert_allclose(ssim(truth, truth), 1.0, atol=1e-12)
    assert (psnr(truth, _noise(truth.shape)) < 12).all()
    assert (ssim(truth, _noise(truth.shape)) < 0.1).all()
    levels = [_disturbed(truth, amount) for amount in (2, 8, 32, 128)]
    assert (np.diff([psnr(truth, level).mean() for level in levels]) < -3).all()
    assert (np.diff([ssim(truth, level).mean() for level in levels]) < 0).all()


def test_unconditional_frames_do_not_pass_as_predictions() -> None:
    """Pitfall 10: right-looking frames of other contexts score far below the oracle."""
    truth = np.zeros((8, 4, 32, 32, 3), np.uint8)
    for context in range(8):
        truth[context, :, 4 * context : 4 * context + 4] = 220
    curves = horizon_table(truth, {"oracle": truth, "other context": np.roll(truth, 1, axis=0)})
    assert curves["oracle"].psnr_mean - curves["other context"].psnr_mean > 80
    assert curves["oracle"].ssim_mean - curves["other context"].ssim_mean > 0.2


def test_every_frame_is_scored_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, guess = _noise((3, 4, 16, 20, 3)), _noise((3, 4, 16, 20, 3), 1)
    whole = psnr(truth, guess), ssim(truth, guess)
    assert whole[0].shape == whole[1].shape == (3, 4)
    assert whole[0].dtype == whole[1].dtype == np.float64
    monkeypatch.setattr(metrics, "CHUNK_VALUES", 5 * 16 * 20 * 3)  # 12 frames in chunks of 5, 5 and 2
    for one, score in zip(whole, (psnr, ssim), strict=True):
        np.testing.assert_array_equal(score(truth, guess), one)
        for index in np.ndindex(3, 4):
            assert score(truth[index], guess[index]) == pytest.approx(one[index], abs=1e-12)


def test_views_and_order_of_memory_do_not_matter() -> None:
    truth, guess = _noise((6, 24, 16, 3)), _noise((6, 24, 16, 3), 1)
    np.testing.assert_array_equal(ssim(truth[::-2], guess[::-2]), ssim(truth[::-2].copy(), guess[::-2].copy()))
    turned = np.asfortranarray(truth)
    np.testing.assert_array_equal(psnr(turned, guess), psnr(truth, guess))


def test_no_frames_give_no_scores() -> None:
    nothing = np.zeros((0, 16, 16, 3), np.uint8)
    assert psnr(nothing, nothing).shape == ssim(nothing, nothing).shape == (0,)


@pytest.mark.parametrize("score", [psnr, ssim])
@pytest.mark.parametrize(
    ("truth", "guess", "message"),
    [
        (np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8), "RGB"),
        (np.zeros((2, 16, 16), np.uint8), np.zeros((2, 16, 16), np.uint8), "RGB"),
        (np.zeros((16, 16, 1), np.uint8), np.zeros((16, 16, 1), np.uint8), "RGB"),
        (np.zeros((16, 16, 4), np.uint8), np.zeros((16, 16, 4), np.uint8), "RGB"),
        (np.zeros((16, 16, 3), np.float32), np.zeros((16, 16, 3), np.float32), "truth is float32"),
        (np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.float64), "guess is float64"),
        (np.zeros((2, 16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.uint8), "the shape of the truth"),
        (np.zeros((0, 16, 3), np.uint8), np.zeros((0, 16, 3), np.uint8), "RGB"),
    ],
)
def test_anything_but_rgb_bytes_is_refused(score, truth, guess, message) -> None:
    with pytest.raises(ValueError, match=message):
        score(truth, guess)


def test_a_side_below_eleven_pixels_has_a_window_that_fits() -> None:
    """The frame spec allows 8 pixels: 7 taps along that side, 11 along the other, written out as a sum."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (2, 8, 12, 3)).astype(np.uint8)

    def taps(count: int) -> np.ndarray:
        weights = np.exp(-0.5 * ((np.arange(count) - count // 2) / 1.5) ** 2)
        return weights / weights.sum()

    window = (taps(7)[:, None] * taps(11))[..., None]
    scores = []
    for row, column in ((row, column) for row in range(2) for column in range(2)):
        a = x[row : row + 7, column : column + 11].astype(float)
        b = y[row : row + 7, column : column + 11].astype(float)
        mean_a, mean_b = (window * a).sum((0, 1)), (window * b).sum((0, 1))
        var_a, var_b = (window * a * a).sum((0, 1)) - mean_a**2, (window * b * b).sum((0, 1)) - mean_b**2
        both = (window * a * b).sum((0, 1)) - mean_a * mean_b
        c1, c2 = 2.55**2, 7.65**2
        scores.append(
            (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * (2 * both + c2) / (var_a + var_b + c2)
        )
    assert ssim(x, y) == pytest.approx(np.mean(scores), abs=1e-12)
    assert ssim(x, x) == pytest.approx(1.0, abs=1e-12)
    smallest = np.zeros((2, 1, 2, 3), np.uint8)
    assert ssim(smallest, smallest) == pytest.approx(1.0)


def test_horizon_table_averages_over_contexts_then_over_steps() -> None:
    truth = np.full((2, 3, 12, 12, 3), 100, np.uint8)
    guess = truth.copy()
    guess[0, 1] += 1  # 48.13 dB, the other context is exact
    guess[:, 2] += 10  # 28.13 dB in both contexts
    curve = horizon_table(truth, {"guess": guess})["guess"]
    one, ten = 20 * np.log10(255), 20 * np.log10(25.5)
    np.testing.assert_allclose(curve.psnr, [100, (one + 100) / 2, ten])
    assert curve.psnr_mean == pytest.approx((100 + (one + 100) / 2 + ten) / 3)
    np.testing.assert_allclose(curve.ssim, ssim(truth, guess).mean(axis=0))
    assert curve.ssim_mean == pytest.approx(ssim(truth, guess).mean())


def test_horizon_table_takes_one_context_and_one_step_and_keeps_the_order() -> None:
    truth = _noise((1, 1, 16, 16, 3))
    curves = horizon_table(truth, {"b": truth, "a": _noise(truth.shape, 1)})
    assert list(curves) == ["b", "a"]
    assert curves["a"].psnr.shape == curves["a"].ssim.shape == (1,)
    assert curves["a"].psnr_mean == curves["a"].psnr[0]


def test_horizon_table_names_the_guess_it_refuses() -> None:
    truth = _noise((2, 3, 16, 16, 3))
    with pytest.raises(ValueError, match=r"guess 'dream'.*the shape of the truth"):
        horizon_table(truth, {"persistence": truth, "dream": truth[:, :2]})
    with pytest.raises(ValueError, match="N, T, H, W, 3"):
        horizon_table(truth[0], {"dream": truth[0]})
    with pytest.raises(ValueError, match="N, T, H, W, 3"):
        horizon_table(truth[:, :0], {"dream": truth[:, :0]})
    with pytest.raises(ValueError, match="no guess"):
        horizon_table(truth, {})
