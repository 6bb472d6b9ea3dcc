"""Stills of an evaluation: what is dreamed beside the truth over the steps, and what the tokenizer keeps.

Shapes: M contexts, F frames of a window, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ahriuwu_cli.core.pictures.tiles import evenly_spaced, side_by_side
from ahriuwu_cli.evaluation.metrics import Frames

SOURCE_STEPS = 8  # columns of the sheet of all sources
DREAM_STEPS = 16  # columns of the sheet of truth and dream
DREAM_CONTEXTS = 4
RECONSTRUCTED = 12
DIFFERENCE_GAIN = 4  # differences are small: shown this many times as large


def source_sheet(columns: Mapping[str, Frames], num_shown: int, scale: int) -> Frames:
    """One context: a row for each source, a column for some steps after the context.

    Args:
        columns: by source, (M, F, H, W, 3) uint8.
        num_shown: frames of the context.
        scale: size of a pixel.

    Returns:
        (H', W', 3) uint8.
    """
    rows = {name: frames[0, num_shown:] for name, frames in columns.items()}
    return _still(rows, SOURCE_STEPS, scale)


def dream_sheet(truth: Frames, dream: Frames, num_shown: int, scale: int) -> Frames:
    """Some contexts: truth above dream, a column for evenly spaced steps after the context.

    Args:
        truth: (M, F, H, W, 3) uint8.
        dream: of the same shape.
        num_shown: frames of the context.
        scale: size of a pixel.

    Returns:
        (H', W', 3) uint8.
    """
    rows = {}
    for number in range(min(DREAM_CONTEXTS, len(truth))):
        rows[f"truth {number + 1}"] = truth[number, num_shown:]
        rows[f"dream {number + 1}"] = dream[number, num_shown:]
    return _still(rows, DREAM_STEPS, scale)


def reconstruction_sheet(truth: Frames, guess: Frames, scale: int) -> Frames:
    """Frames spread over all windows: truth, what the tokenizer makes of it, and their difference.

    Args:
        truth: (M, F, H, W, 3) uint8.
        guess: reconstruction, of the same shape.
        scale: size of a pixel.

    Returns:
        (H', W', 3) uint8.
    """
    truth, guess = truth.reshape(-1, *truth.shape[2:]), guess.reshape(-1, *guess.shape[2:])
    chosen = evenly_spaced(len(truth), RECONSTRUCTED)
    true, made = truth[chosen], guess[chosen]
    difference = np.abs(true.astype(np.int16) - made) * DIFFERENCE_GAIN
    rows = {
        "truth": true,
        "tokenizer": made,
        f"difference x{DIFFERENCE_GAIN}": np.minimum(difference, 255).astype(np.uint8),
    }
    columns = {
        f"frame {place}": np.stack([frames[number] for frames in rows.values()])[:, None]
        for number, place in enumerate(chosen)
    }
    return _draw(columns, list(rows), scale)


def _still(rows: Mapping[str, Frames], count: int, scale: int) -> Frames:
    """Rows of (steps, H, W, 3) at `count` evenly spaced steps, the first and the last among them."""
    steps = evenly_spaced(len(next(iter(rows.values()))), count)
    columns = {f"+{step + 1}": np.stack([frames[step] for frames in rows.values()])[:, None] for step in steps}
    return _draw(columns, list(rows), scale)


def _draw(columns: Mapping[str, Frames], row_names: list[str], scale: int) -> Frames:
    still: Frames = side_by_side(columns, scale=scale, row_names=row_names)[0]
    return still
