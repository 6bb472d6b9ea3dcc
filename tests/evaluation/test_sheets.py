"""Stills: which frames stand where, found again in the picture pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from ahriuwu_cli.evaluation.metrics import Frames
from ahriuwu_cli.evaluation.sheets import dream_sheet, reconstruction_sheet, source_sheet

SIDE = 6


def noise(*shape: int, seed: int) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (*shape, SIDE, SIDE, 3), dtype=np.uint8)


def corner(sheet: Frames, tile: Frames) -> tuple[int, int]:
    """Where a tile stands; it must stand there once."""
    rows, columns = np.nonzero((sheet[: -SIDE + 1, : -SIDE + 1] == tile[0, 0]).all(axis=-1))
    found = [
        (int(row), int(column))
        for row, column in zip(rows, columns, strict=True)
        if np.array_equal(sheet[row : row + SIDE, column : column + SIDE], tile)
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("horizon", "shown"), [(64, [0, 4, 8, 13, 17, 21, 25, 29, 34, 38, 42, 46, 50, 55, 59, 63]), (3, [0, 1, 2])]
)
def test_truth_stands_above_the_dream_at_evenly_spaced_steps(horizon, shown) -> None:
    truth, dream = noise(2, 5 + horizon, seed=0), noise(2, 5 + horizon, seed=1)
    sheet = dream_sheet(truth, dream, num_shown=5, scale=1)
    left = -1
    for step in shown:
        places = [corner(sheet, frames[number, 5 + step]) for number in range(2) for frames in (truth, dream)]
        assert [row for row, _ in places] == sorted({row for row, _ in places})
        assert len({column for _, column in places}) == 1 and places[0][1] > left
        left = places[0][1]


def test_every_source_has_a_row() -> None:
    columns = {name: noise(2, 12, seed=seed) for seed, name in enumerate(("truth", "dream", "persistence"))}
    sheet = source_sheet(columns, num_shown=4, scale=1)
    rows = [corner(sheet, frames[0, -1])[0] for frames in columns.values()]
    assert rows == sorted(set(rows))
    assert len({corner(sheet, frames[0, 4])[1] for frames in columns.values()}) == 1


def test_reconstructions_stand_below_the_truth_with_their_difference() -> None:
    truth, made = noise(3, 10, seed=0), noise(3, 10, seed=1)
    made[0, 0] = truth[0, 0] ^ 3  # at most 3 apart
    sheet = reconstruction_sheet(truth, made, scale=1)
    top, left = corner(sheet, truth[0, 0])
    below, same = corner(sheet, made[0, 0])
    difference = np.abs(truth[0, 0].astype(int) - made[0, 0]) * 4
    last, also = corner(sheet, difference.astype(np.uint8))
    assert top < below < last and left == same == also
    corner(sheet, truth[2, 9])  # spread to the last frame of the last window
    harsh = np.minimum(np.abs(truth[2, 9].astype(int) - made[2, 9]) * 4, 255)
    corner(sheet, harsh.astype(np.uint8))
