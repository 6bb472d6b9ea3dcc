"""Reading ahead: the same batches in the same order, within bounds, and an end that leaves nothing behind."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.core.artifact import read_header, read_weights
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import DataError, TrainingInterrupted
from ahriuwu_cli.core.training.batches import Batch, batch_generator
from ahriuwu_cli.core.training.loader import Loader
from ahriuwu_cli.core.training.loop import train

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Numbers(Batch):
    """Numbers (4,) that say which batch this is."""

    x: torch.Tensor


def numbers(step: int, part: int) -> Numbers:
    return Numbers(torch.from_numpy(batch_generator(5, step, part).random(4)).float())


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


# ---------------------------------------------------------------- batches


@given(
    workers=st.integers(0, 4),
    parts=st.integers(1, 3),
    runs=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 6)), min_size=1, max_size=5),
)
@settings(max_examples=60)
def test_whatever_is_asked_for_is_what_is_given(workers, parts, runs):
    """Steps in order, after a jump back (a step taken anew) or ahead, and after the plan has changed."""
    with Loader(numbers, parts, CPU, workers) as loader:
        for first, count in runs:
            loader.plan(first + count)
            for step in range(first, first + count):
                for part in range(parts):
                    assert torch.equal(loader.take(step, part).x, numbers(step, part).x)
    assert loader_threads() == []


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_no_more_than_one_batch_more_than_threads_is_read_ahead(workers):
    """However long a step takes; and none beyond the last step."""
    asked, enough = [], threading.Event()

    def read(step: int, part: int) -> Batch:
        asked.append((step, part))
        if len(asked) == workers + 2:
            enough.set()
        return Batch()

    with Loader(read, 2, CPU, workers) as loader:
        loader.plan(20)
        loader.take(3, 0)
        assert enough.wait(10)
        threading.Event().wait(0.05)  # time to read more, if it would
        keys = [(step, part) for step in range(3, 20) for part in range(2)]
        assert sorted(asked) == keys[: workers + 2]
        for key in keys[1:]:
            loader.take(*key)
    assert sorted(asked) == keys


def test_a_new_plan_lets_go_of_what_was_read_under_the_old_one():
    """A stage's batches may depend on where training ends."""
    total = [100]
    with Loader(lambda step, part: Numbers(torch.tensor([step, total[0]])), 1, CPU, 2) as loader:
        loader.plan(100)
        assert loader.take(0, 0).x.tolist() == [0, 100]
        total[0] = 5
        loader.plan(5)
        assert [loader.take(step, 0).x.tolist() for step in range(1, 5)] == [[step, 5] for step in range(1, 5)]


# ---------------------------------------------------------------- ends


class Unreadable(Exception):
    pass


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_an_error_comes_when_its_batch_is_asked_for_and_not_before(workers):
    def read(step: int, part: int) -> Batch:
        if step >= 3:
            raise Unreadable(f"batch {step}")
        return Batch()

    with pytest.raises(Unreadable, match="batch 3"), Loader(read, 1, CPU, workers) as loader:
        for step in range(3):
            loader.take(step, 0)
        loader.take(3, 0)
    assert loader_threads() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_threads_end_however_it_is_left(error):
    with pytest.raises(error), Loader(numbers, 1, CPU, 3) as loader:
        loader.take(0, 0)
        assert loader_threads()
        raise error
    assert loader_threads() == []


def test_threads_are_waited_for():
    """A read that runs when the loader is left has ended afterwards: nobody writes or reads behind one's back."""
    running, go_on, ended = threading.Event(), threading.Event(), []

    def read(step: int, part: int) -> Batch:
        if step == 1:
            running.set()
            go_on.wait(10)
            ended.append(step)
        return Batch()

    with Loader(read, 1, CPU, 1) as loader:
        loader.take(0, 0)
        assert running.wait(10)
        threading.Timer(0.05, go_on.set).start()
    assert ended == [1]


# ---------------------------------------------------------------- training


def reading(toy):
    """A toy that learns from batches, and whose reader finds one that cannot be read."""

    class Reading(toy):
        def __init__(self, unreadable: int = -1, **options) -> None:
            super().__init__(**options)
            self.unreadable, self.readers = unreadable, set()

        def batch(self, step, part):
            self.readers.add(threading.current_thread().name.partition("_")[0])
            if step == self.unreadable:
                raise DataError(f"batch {step} is damaged", hint="restore it")
            return numbers(step, part)

        def loss(self, step, batch):
            loss, metrics = super().loss(step, batch)
            return loss + (self.module(batch.x) - batch.x).square().mean(), metrics

    return Reading


def with_workers(workers: int) -> Runtime:
    return Runtime(CPU, "fp32", loader_workers=workers)


def test_results_are_the_same_however_many_read_ahead(tmp_path, toy, settings):
    """Every bit of artifact and state; the stage draws from every global generator beside."""
    prints = []
    for workers in (0, 1, 4):
        stage, folder = reading(toy)(), tmp_path / str(workers)
        changes = {"accumulate": 2, "ema_decay": 0.5}
        result = train(stage, settings(**changes), with_workers(workers), folder, resume=False, seed=3)
        assert stage.readers == ({"loader"} if workers else {threading.current_thread().name})
        state, _ = read_weights(folder / "dynamics.state.safetensors", "state")
        prints.append((result.header.fingerprint, state.fingerprint))
    assert prints[0] == prints[1] == prints[2]
    assert loader_threads() == []
    plain = train(toy(), settings(accumulate=2, ema_decay=0.5), with_workers(0), tmp_path / "p", resume=False, seed=3)
    assert plain.header.fingerprint != prints[0][0]  # batches matter


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_cannot_be_read_ends_training_with_its_error(tmp_path, toy, settings, workers):
    """What was saved before is as it was, and training goes on from it when the batch is whole again."""
    runtime = with_workers(workers)
    with pytest.raises(DataError, match="batch 7 is damaged"):
        train(reading(toy)(unreadable=7), settings(), runtime, tmp_path / "x", resume=False, seed=3)
    assert loader_threads() == []
    assert read_header(tmp_path / "x" / "dynamics.state.safetensors", "state").info["step"] == 5
    assert not (tmp_path / "x" / "dynamics.safetensors").exists()
    resumed = train(reading(toy)(), settings(), runtime, tmp_path / "x", resume=True, seed=3)
    whole = train(reading(toy)(), settings(), with_workers(0), tmp_path / "whole", resume=False, seed=3)
    assert resumed.header.fingerprint == whole.header.fingerprint


def test_a_stop_leaves_no_thread_and_an_exact_resume(tmp_path, toy, settings):
    with pytest.raises(TrainingInterrupted):
        train(reading(toy)(stop_at=6), settings(), with_workers(3), tmp_path / "x", resume=False, seed=3)
    assert loader_threads() == []
    resumed = train(reading(toy)(), settings(), with_workers(1), tmp_path / "x", resume=True, seed=3)
    whole = train(reading(toy)(), settings(), with_workers(0), tmp_path / "whole", resume=False, seed=3)
    assert resumed.header.fingerprint == whole.header.fingerprint


def test_batches_on_cuda_come_from_pinned_memory():
    if not torch.cuda.is_available():
        pytest.skip("needs cuda")
    device = torch.device("cuda", torch.cuda.current_device())
    with Loader(numbers, 1, device, 2) as loader:
        loader.plan(50)
        for step in range(50):
            found = loader.take(step, 0).x
            assert found.device == device
            assert torch.equal(found.cpu(), numbers(step, 0).x)


def test_what_is_pinned_is_told_from_what_is_not(monkeypatch):
    """The way to a CUDA device, without one: workers pin, and the copy does not wait."""
    pinned, copied = [], []
    monkeypatch.setattr(Numbers, "pinned", lambda self: pinned.append(threading.current_thread().name) or self)
    monkeypatch.setattr(
        Numbers, "to", lambda self, device, *, non_blocking=False: copied.append((device.type, non_blocking)) or self
    )
    monkeypatch.setattr(torch.cuda, "device", lambda device: pytest.MonkeyPatch().context())
    with Loader(numbers, 1, torch.device("cuda", 0), 1) as loader:
        loader.take(0, 0)
    assert pinned and all(name.startswith("loader") for name in pinned)
    assert copied == [("cuda", True)]
