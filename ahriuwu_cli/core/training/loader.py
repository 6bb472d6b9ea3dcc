"""Batches in the order of training, read ahead by threads: the same ones however many threads there are.

A batch is a function of (step, micro-batch), see batches.py: the loader keeps no place in the data, may begin anywhere,
and may let go of what it has read.

Decision: threads and not processes. Reading is copying out of mapped files and decoding, which lets other threads go
on; batches need no copy between processes, and a worker's error is the error itself.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch

from ahriuwu_cli.core.training.batches import Batch

Key = tuple[int, int]
"""Step, micro-batch."""


@dataclass(frozen=True)
class _Ahead:
    key: Key
    batch: Future[Batch]


class Loader:
    """Gives batches one after the other, on the device; a context that ends its threads however it is left.

    Args:
        read: gives the batch of a step and micro-batch, on the CPU; called in any thread.
        parts: micro-batches of a step.
        device: where batches go. To a CUDA device they are copied from pinned memory, while Python goes on.
        workers: threads that read ahead, `workers` + 1 batches at most; 0: `take` reads.
    """

    def __init__(self, read: Callable[[int, int], Batch], parts: int, device: torch.device, workers: int) -> None:
        self._read, self._parts, self._device, self._workers = read, parts, device, workers
        self._ahead: deque[_Ahead] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._total: float = math.inf

    def plan(self, total: int) -> None:
        """Take the number of steps there will be: what was read ahead is of another plan, and none is read beyond."""
        self._total = total
        self._forget()

    def take(self, step: int, part: int) -> Batch:
        """The batch of a step and micro-batch; those that follow are read ahead.

        Raises:
            Exception: whatever reading it raised.
        """
        assert step < self._total, "a training takes no step beyond its last one"
        if not self._workers:
            return self._read(step, part).to(self._device)
        if self._ahead and self._ahead[0].key != (step, part):
            self._forget()
        self._read_ahead((step, part))
        batch = self._ahead.popleft().batch.result()
        self._read_ahead(self._after((step, part)))
        return batch.to(self._device, non_blocking=self._device.type == "cuda")

    def close(self) -> None:
        """Let go of what was read ahead and wait for the threads to end."""
        self._forget()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_ahead(self, key: Key) -> None:
        """Have as many batches read as may be, those from `key` on."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, "loader")
        if self._ahead:
            key = self._after(self._ahead[-1].key)
        while len(self._ahead) <= self._workers and key[0] < self._total:
            self._ahead.append(_Ahead(key, self._pool.submit(self._prepared, *key)))
            key = self._after(key)

    def _prepared(self, step: int, part: int) -> Batch:
        """A batch as the copy to the device wants it, in a worker."""
        batch = self._read(step, part)
        if self._device.type != "cuda":
            return batch
        with torch.cuda.device(self._device):
            return batch.pinned()

    def _after(self, key: Key) -> Key:
        step, part = key
        return (step, part + 1) if part + 1 < self._parts else (step + 1, 0)

    def _forget(self) -> None:
        for ahead in self._ahead:
            ahead.batch.cancel()
        self._ahead.clear()
