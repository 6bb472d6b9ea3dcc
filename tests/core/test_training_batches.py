"""What draws a step's batch, and moving batches to a device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.core.training.batches import Batch, batch_generator

KEYS = st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31), st.integers(0, 1000))


def first_numbers(rng: np.random.Generator) -> list[int]:
    return rng.integers(2**62, size=4).tolist()


@given(left=KEYS, right=KEYS)
def test_each_micro_batch_of_each_step_has_a_generator_of_its_own(left, right):
    """[seed] and [seed, 0] are the same to a seed sequence: neither is what a first batch is drawn with."""
    assert first_numbers(batch_generator(*left)) == first_numbers(batch_generator(*left))
    assert (first_numbers(batch_generator(*left)) == first_numbers(batch_generator(*right))) == (left == right)
    for words in (left[:1], left[:2], left):
        assert first_numbers(batch_generator(*left)) != first_numbers(np.random.default_rng(words))


@given(seed=st.integers(0, 1000), step=st.integers(0, 1000))
def test_numbers_change_with_every_part_of_the_key(seed, step):
    keys = [(seed, step, 0), (seed + 1, step, 0), (seed, step + 1, 0), (seed, step, 1), (step, seed, 2)]
    assert len({tuple(first_numbers(batch_generator(*key))) for key in keys}) == len(keys)


@dataclass(frozen=True)
class Inner(Batch):
    x: torch.Tensor


@dataclass(frozen=True)
class Outer(Batch):
    y: torch.Tensor
    inner: Inner | None
    other: Inner | None


def test_a_batch_moves_with_all_that_is_in_it():
    moved = Outer(torch.ones(2), Inner(torch.ones(3)), None).to(torch.device("meta"))
    assert isinstance(moved, Outer) and isinstance(moved.inner, Inner) and moved.other is None
    assert (moved.y.device.type, moved.inner.x.device.type) == ("meta", "meta")
    assert Batch().to(torch.device("meta")) == Batch()
