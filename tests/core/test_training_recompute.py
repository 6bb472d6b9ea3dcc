"""Gradient checkpointing: measured memory, equal gradients, and that the setting reaches the module."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.memory import estimate_step_memory, saved_bytes
from ahriuwu_cli.core.training.loop import train
from ahriuwu_cli.core.training.recompute import Recomputing, set_recompute
from ahriuwu_cli.core.training.sinks import read_metrics

DEPTH, ROWS, DIM = 12, 512, 32


class Stack(Recomputing):
    """Residual blocks whose insides are four times as wide as what passes between them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Dropout(0.3), nn.Linear(4 * DIM, DIM))
            for _ in range(DEPTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.call(lambda y, block=block: y + block(y), x)
        return x


class Living(TorchDispatchMode):
    """Bytes of all tensors alive that were made inside this context, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return out

    def _see(self, storage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen[key] = weakref.ref(storage, lambda _: self._forget(key, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def _forget(self, key: int, size: int) -> None:
        del self._seen[key]
        self.now -= size


def loss(module: nn.Module) -> Tensor:
    return module(torch.ones(ROWS, DIM)).square().mean()


def peak_bytes(module: nn.Module) -> int:
    """The most that forward and backward pass held at once, gradients included, weights not."""
    module.zero_grad(set_to_none=True)
    with Living() as living:
        loss(module).backward()
    return living.peak


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_recomputation_saves_memory_in_train_and_in_eval_mode(training):
    """Pitfall 25: peak memory measured with and without; a module in eval mode is not left out."""
    stack = Stack().train(training)
    kept = peak_bytes(stack)
    set_recompute(stack, True)
    again = peak_bytes(stack)
    assert again < 0.4 * kept
    set_recompute(stack, False)
    assert peak_bytes(stack) == kept


def gradients(stack: Stack) -> list[Tensor]:
    torch.manual_seed(5)  # dropout draws the same when a block is computed again
    stack.zero_grad(set_to_none=True)
    loss(stack).backward()
    return [parameter.grad for parameter in stack.parameters()]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_gradients_are_the_same_bits(training):
    """Pitfall 25: recomputation changes what is kept and nothing else."""
    stack = Stack().train(training)
    plain = gradients(stack)
    set_recompute(stack, True)
    assert all(torch.equal(one, other) for one, other in zip(plain, gradients(stack), strict=True))
    assert all(bool(one.any()) for one in plain)


def test_nothing_is_checkpointed_without_gradients(monkeypatch):
    stack = Stack()
    set_recompute(stack, True)
    monkeypatch.setattr("ahriuwu_cli.core.training.recompute.checkpoint", None)  # calling it would fail
    with torch.no_grad():
        assert stack(torch.ones(2, DIM)).shape == (2, DIM)
    with pytest.raises(TypeError):
        stack(torch.ones(2, DIM))


# ---------------------------------------------------------------- the estimate


@pytest.mark.parametrize("recompute", [False, True])
def test_the_estimate_knows_of_recomputation(settings, cpu, recompute):
    """Pitfall 25: inputs of every block and the insides of one, against what a real step holds at its peak."""
    estimate = estimate_step_memory(Stack, loss, settings(recompute=recompute), cpu)
    stack = Stack()
    weights = sum(parameter.nbytes for parameter in stack.parameters())
    set_recompute(stack, recompute)
    peak = peak_bytes(stack)
    assert estimate - 4 * weights == saved_bytes(stack, loss)
    assert estimate - 3 * weights == pytest.approx(peak, rel=0.25)


def test_inputs_that_nothing_else_keeps_are_counted_one_by_one():
    class Sums(Recomputing):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(300):  # enough for the address of a freed storage to come again
                x = self.call(lambda y: y + 1, x) * 2  # neither sum nor product keeps a tensor
            return x

    sums = Sums()
    set_recompute(sums, True)
    assert saved_bytes(sums, lambda module: module(torch.zeros(10, requires_grad=True)).sum()) == 300 * 40


def test_inputs_of_every_block_and_the_insides_of_one_by_hand():
    class Squares(Recomputing):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                x = self.call(lambda y: y.exp().exp(), x)  # keeps both results
            return x

    def half(module: nn.Module) -> Tensor:
        return module(torch.zeros(10, requires_grad=True)).sum()

    squares = Squares()
    assert saved_bytes(squares, half) == 3 * 2 * 40
    set_recompute(squares, True)
    assert saved_bytes(squares, half) == (3 + 2) * 40
    assert not squares._keep_inputs.__name__.startswith("keep")  # measuring is over


def test_the_estimate_counts_the_average_and_the_precision(settings, cpu):
    weights = sum(parameter.nbytes for parameter in Stack().parameters())
    plain = estimate_step_memory(Stack, loss, settings(), cpu)
    assert estimate_step_memory(Stack, loss, settings(ema_decay=0.9), cpu) - plain == weights
    # whatever the device: shape-only tensors stand in for those of a GPU that may not be here
    for device in ("cpu", "cuda"):
        half = estimate_step_memory(Stack, loss, settings(), Runtime(torch.device(device), "bf16"))
        assert half - 4 * weights < 0.75 * (plain - 4 * weights)


# ---------------------------------------------------------------- in the loop


def test_the_setting_reaches_the_module_and_changes_no_bit(tmp_path, toy, settings, cpu):
    """Pitfalls 24 and 25: the flag is read, and the training is the same."""
    stages = [toy(), toy()]
    prints = [
        train(stage, settings(recompute=on), cpu, tmp_path / str(on), resume=False, seed=0).header.fingerprint
        for stage, on in zip(stages, (False, True), strict=True)
    ]
    assert [stage.module.recompute for stage in stages] == [False, True]
    assert prints[0] == prints[1]


def test_a_stage_without_blocks_says_that_the_setting_has_no_effect(tmp_path, toy, settings, cpu):
    class Plain(toy):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(4, 4)

        def loss(self, step, batch):
            return self.module(torch.ones(4)).square().sum(), {}

    train(Plain(), settings(recompute=True), cpu, tmp_path, resume=False, seed=0)
    [text] = [line["warning"] for line in read_metrics(tmp_path / "metrics.jsonl") if "warning" in line]
    assert "train.recompute has no effect" in text
