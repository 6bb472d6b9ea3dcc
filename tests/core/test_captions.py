"""Captions: the frames stay as they are, the text changes from frame to frame and is not cut off."""

from __future__ import annotations

import numpy as np
import pytest

from ahriuwu_cli.core.pictures.captions import Span, broken, captioned, line_width
from ahriuwu_cli.core.pictures.style import BACKGROUND, GAP

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3), dtype=np.uint8)


def test_frames_are_below_their_text() -> None:
    captions = [("a long first line of text", f"step {step}") for step in range(3)]
    pictures = np.stack(list(captioned(FRAMES, captions, scale=2)))
    assert pictures.dtype == np.uint8
    left = (pictures.shape[2] - 20) // 2
    tiles = pictures[:, -GAP - 16 : -GAP, left : left + 20]
    np.testing.assert_array_equal(tiles[:, ::2, ::2], FRAMES)
    np.testing.assert_array_equal(tiles[:, 1::2, 1::2], FRAMES)
    above = pictures[:, : -GAP - 16]
    assert len({picture.tobytes() for picture in above}) == 3  # number of the step and bar


def test_text_is_whole() -> None:
    """The last columns are background: the picture is as wide as its longest line."""
    [wide] = captioned(FRAMES[:1], [("W" * 60,)])
    assert wide.shape[1] > 60 * 8
    assert (wide[: GAP + 12, -GAP + 1 :] == BACKGROUND).all()
    assert (wide[: GAP + 12] != BACKGROUND).any()


def test_what_cannot_be_drawn_is_refused() -> None:
    for captions in ([], [("a",), ("a",), ("a", "b")]):
        with pytest.raises(ValueError, match="one number of lines"):
            captioned(FRAMES, captions)
    with pytest.raises(ValueError, match="shorter"):
        list(captioned(FRAMES, [("a",)] * 2))
    with pytest.raises(ValueError, match="scale is 0"):
        captioned(FRAMES, [("a",)] * 3, scale=0)


def test_text_can_stand_under_the_frames() -> None:
    pictures = np.stack(list(captioned(FRAMES, [(f"step {step}",) for step in range(3)], scale=2, under=True)))
    left = (pictures.shape[2] - 20) // 2
    np.testing.assert_array_equal(pictures[:, GAP : GAP + 16 : 2, left : left + 20 : 2], FRAMES)
    assert (pictures[:, :GAP] == BACKGROUND).all()
    assert len({picture.tobytes() for picture in pictures[:, GAP + 16 :]}) == 3


def test_a_box_and_a_gauge_are_drawn() -> None:
    lit, marker = (250, 200, 60), (200, 10, 200)

    def drawn(*spans: Span) -> np.ndarray:
        [picture] = captioned(FRAMES[:1], [[spans]], under=True)
        return picture

    assert (drawn(Span("W", BACKGROUND, lit)) == lit).all(axis=-1).any()
    assert not (drawn(Span("W")) == lit).all(axis=-1).any()
    marks = [np.argwhere((drawn(Span("", marker, gauge=at)) == marker).all(axis=-1))[:, 1] for at in (0.0, 0.5, 1.0)]
    assert marks[0].max() < marks[1].min()
    assert marks[1].max() < marks[2].min()


def test_long_lines_break_between_spans() -> None:
    spans = [Span("keys", column=40), *(Span(f"key {number}") for number in range(30))]
    lines = broken(spans, 200, 40)
    assert [span for line in lines for span in line if span.text] == spans
    assert len(lines) > 2
    assert all(line_width(line) <= 200 for line in lines)
