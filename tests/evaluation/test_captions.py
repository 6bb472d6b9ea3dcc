"""Captions: the frames stay as they are, the text changes from frame to frame and is not cut off."""

from __future__ import annotations

import numpy as np
import pytest

from ahriuwu_cli.evaluation.captions import captioned
from ahriuwu_cli.evaluation.pictures import BACKGROUND, GAP

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3), dtype=np.uint8)


def test_frames_are_below_their_text() -> None:
    captions = [("a long first line of text", f"step {step}") for step in range(3)]
    pictures = captioned(FRAMES, captions, scale=2)
    assert pictures.dtype == np.uint8
    left = (pictures.shape[2] - 20) // 2
    tiles = pictures[:, -GAP - 16 : -GAP, left : left + 20]
    np.testing.assert_array_equal(tiles[:, ::2, ::2], FRAMES)
    np.testing.assert_array_equal(tiles[:, 1::2, 1::2], FRAMES)
    above = pictures[:, : -GAP - 16]
    assert len({picture.tobytes() for picture in above}) == 3  # number of the step and bar


def test_text_is_whole() -> None:
    """The last columns are background: the picture is as wide as its longest line."""
    wide = captioned(FRAMES[:1], [("W" * 60,)])
    assert wide.shape[2] > 60 * 8
    assert (wide[0, : GAP + 12, -GAP + 1 :] == BACKGROUND).all()
    assert (wide[0, : GAP + 12] != BACKGROUND).any()


def test_what_cannot_be_drawn_is_refused() -> None:
    for captions in ([], [("a",)] * 2, [("a",), ("a",), ("a", "b")]):
        with pytest.raises(ValueError, match="one number of lines"):
            captioned(FRAMES, captions)
    with pytest.raises(ValueError, match="scale is 0"):
        captioned(FRAMES, [("a",)] * 3, scale=0)
