"""What the machine can do at best, measured beside the work: matrix products and reading memory."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from ahriuwu_cli.bench.config import TimingSection
from ahriuwu_cli.bench.timing import measure, seconds_of
from ahriuwu_cli.core.device import AUTOCAST_DTYPES, Runtime

SAMPLES = 7
"""Samples of each measure at each visit; there are visits before, between and after the items."""


class Machine:
    """The machine's own peak, in the precision and with the threads of the work.

    Both figures are medians over the whole run: a machine that is busy with something else while the work runs is
    slow here as well.

    Args:
        runtime: device and precision.
        timing: sizes of the two measures.
    """

    def __init__(self, runtime: Runtime, timing: TimingSection) -> None:
        self.runtime = runtime
        self.size = timing.matmul_size or (1024 if runtime.device.type == "cpu" else 8192)
        self.read_bytes = timing.bandwidth_mib * 2**20
        dtype = AUTOCAST_DTYPES.get(runtime.precision, torch.float32)
        generator = torch.Generator().manual_seed(0)
        shape = (2, self.size, self.size)
        self._first, self._second = torch.randn(shape, generator=generator).to(runtime.device, dtype)
        self._out = torch.empty_like(self._first)
        self._matmul: list[float] = []  # FLOP/s
        self._read: list[float] = []  # bytes/s

    def visit(self) -> None:
        """Measure both a few times."""
        device = self.runtime.device
        for _ in range(SAMPLES):
            self.sample()
        data = torch.ones(self.read_bytes // 4, device=device)
        self._read += [4 * data.numel() / seconds for seconds in measure(data.sum, SAMPLES, 1, device)]

    def sample(self) -> None:
        """Measure one matrix product; for between the repeats of the work."""
        self._multiply()  # the work has left nothing of the matrices in the caches
        self._matmul.append(2 * self.size**3 / seconds_of(self._multiply, self.runtime.device))

    def _multiply(self) -> None:
        torch.mm(self._first, self._second, out=self._out)

    @property
    def peak(self) -> float:
        """FLOP/s of a product of two square matrices of side `size`, median."""
        return statistics.median(self._matmul)

    @property
    def bandwidth(self) -> float:
        """Bytes/s of summing up `read_bytes` bytes of fp32, median."""
        return statistics.median(self._read)

    @property
    def weight_bytes(self) -> int:
        """Bytes of one weight in the precision of the work."""
        return int(self._first.element_size())

    def data(self) -> dict[str, Any]:
        """The figures for `--json`."""
        device = self.runtime.device
        return {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "precision": self.runtime.precision,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "matmul_size": self.size,
            "matmul_flops_per_second": self.peak,
            "matmul_flops_per_second_best": max(self._matmul),
            "read_bytes": self.read_bytes,
            "read_bytes_per_second": self.bandwidth,
            "read_bytes_per_second_best": max(self._read),
        }

    def lines(self) -> list[str]:
        """The figures for people."""
        facts = self.data()
        return [
            f"machine: {facts['device']}, {facts['precision']}, {facts['threads']} threads, torch {facts['torch']}",
            f"peak: {self.peak / 1e9:,.1f} GFLOP/s, the median of {len(self._matmul)} products of {self.size} x "
            f"{self.size} matrices throughout this run (best {max(self._matmul) / 1e9:,.1f})",
            f"memory: {self.bandwidth / 1e9:,.1f} GB/s, the median of {len(self._read)} sums over "
            f"{self.read_bytes / 2**20:,.0f} MiB (best {max(self._read) / 1e9:,.1f})",
        ]
