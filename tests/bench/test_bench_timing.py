"""The clock, the memory mark and the machine's own measures."""

from __future__ import annotations

import gc
import sys

import pytest
import torch

from ahriuwu_cli.bench.config import TimingSection
from ahriuwu_cli.bench.machine import SAMPLES, Machine
from ahriuwu_cli.bench.sampler import Run
from ahriuwu_cli.bench.timing import PeakMemory, Spread, measure, memory_in_use, no_collection
from ahriuwu_cli.core.device import Runtime

CPU = torch.device("cpu")


def test_spread() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 5.0, 4.0]) == Spread(2.0, 3.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_warmup_is_not_counted_and_nothing_is_collected_inside() -> None:
    seen = []
    seconds = measure(lambda: seen.append(gc.isenabled()), 4, 2, CPU, between=lambda: seen.append("between"))
    assert len(seconds) == 4
    assert seen == [True, True, *([False, "between"] * 4)]
    assert gc.isenabled()


def test_collection_comes_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="inside"), no_collection():
        raise ValueError("inside")
    assert gc.isenabled()


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")
def test_peak_memory_sees_what_was_given_back() -> None:
    mark = PeakMemory(CPU)
    before = memory_in_use(CPU)
    torch.ones(64 * 2**20 // 4).sum()
    after = memory_in_use(CPU)
    assert mark.bytes() > 60 * 2**20
    assert before is not None
    assert after - before < 32 * 2**20
    assert PeakMemory(CPU).bytes() < 32 * 2**20  # a new mark starts from now


def test_machine_is_measured_in_the_precision_of_the_work() -> None:
    timing = TimingSection(matmul_size=8, bandwidth_mib=1)
    plain, half = (Machine(Runtime(CPU, precision), timing) for precision in ("fp32", "bf16"))
    assert (plain.weight_bytes, half.weight_bytes) == (4, 2)
    plain.visit()
    plain.sample()
    facts = plain.data()
    assert 0 < facts["matmul_flops_per_second"] <= facts["matmul_flops_per_second_best"]
    assert 0 < facts["read_bytes_per_second"] <= facts["read_bytes_per_second_best"]
    assert f"the median of {SAMPLES + 1} products of 8 x 8" in plain.lines()[1]


def test_first_and_last_tenth_and_growth() -> None:
    dream = [1.0, 2.0] + [5.0] * 16 + [7.0, 9.0]
    run = Run(dream, [0.5] * 20, [100, *[150] * 8, 130])
    assert run.tenth(0) == 2.0
    assert run.tenth(9) == 8.5
    assert run.growth == 30
    assert Run(dream, dream, [None] * 10).growth is None
