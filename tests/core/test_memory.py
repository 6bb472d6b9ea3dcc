"""The memory check: the estimate holds against real bytes, and what does not fit is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ahriuwu_cli.core import memory as subject
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import DeviceError
from ahriuwu_cli.core.memory import available_memory, estimate_step_memory, require_memory, saved_bytes
from ahriuwu_cli.core.training.config import TrainSettings

CPU = torch.device("cpu")
PLAIN = TrainSettings(steps=1, batch_size=1, learning_rate=1e-3)


class Block(nn.Module):
    """Pre-norm attention and MLP on (B, T, D) = (4, 48, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.up, self.down = nn.Linear(32, 128), nn.Linear(128, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm1(x)).reshape(4, 48, 3, 4, 8).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D/H)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(4, 48, 32))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 32), Block(), Block(), nn.Linear(32, 12))


def loss_in(precision):
    def loss(module: nn.Module) -> torch.Tensor:
        x = torch.randn(4, 48, 12)
        with Runtime(CPU, precision).autocast():
            guess = module(x)
        return (guess.float() - x).square().mean()

    return loss


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_estimate_agrees_with_real_bytes(precision):
    """The estimate without computing is within 20 % of what a real step on the CPU keeps."""
    estimate = estimate_step_memory(build, loss_in(precision), PLAIN, Runtime(CPU, precision))
    module = build()
    weights = sum(parameter.nbytes for parameter in module.parameters())
    saved = saved_bytes(module, loss_in(precision))
    assert saved > weights / 4  # activations are a part worth counting here
    assert estimate - 4 * weights == pytest.approx(saved, rel=0.2)

    optimizer = torch.optim.AdamW(module.parameters())
    loss_in(precision)(module).backward()
    optimizer.step()
    kept = [parameter.grad for parameter in module.parameters()]
    kept += [slot for state in optimizer.state.values() for slot in state.values() if slot.ndim]
    assert sum(tensor.nbytes for tensor in kept) == 3 * weights


def test_saved_bytes_against_a_count_by_hand():
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))

    def loss(module: nn.Module) -> torch.Tensor:
        y = module(torch.randn(10, 4))
        return (y * y).mean()

    # x for the first weight's gradient, the hidden rows for the second's, y once for both factors; no weights
    assert saved_bytes(module, loss) == 3 * 10 * 4 * 4


def test_the_estimate_allocates_nothing_and_draws_nothing():
    before = torch.get_rng_state()
    needed = estimate_step_memory(
        lambda: nn.Linear(200_000, 100_000),
        lambda module: module(torch.randn(8, 200_000)).square().mean(),
        PLAIN,
        Runtime(CPU, "fp32"),
    )
    assert needed > 4 * 4 * 200_000 * 100_000  # 320 GB
    assert torch.equal(before, torch.get_rng_state())


def test_the_estimate_grows_with_the_batch_and_not_with_frozen_weights():
    def loss(rows):
        return lambda module: module(torch.randn(rows, 64)).square().mean()

    def estimate(module, rows):
        return estimate_step_memory(module, loss(rows), PLAIN, Runtime(CPU, "fp32"))

    def frozen():
        return nn.Linear(64, 64).requires_grad_(False)

    def half_frozen():
        return nn.Sequential(frozen(), nn.Linear(64, 64))

    def trained():
        return nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))

    assert estimate(trained, 4000) > 3 * estimate(trained, 1000)
    difference = estimate(trained, 8) - estimate(half_frozen, 8)
    assert difference >= 3 * 4 * (64 * 64 + 64)


def test_too_little_memory_is_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr(subject, "available_memory", lambda device: 2 * 1024**3)
    runtime = Runtime(CPU, "fp32")
    require_memory(runtime, 1024**3, "one step")
    with pytest.raises(DeviceError, match=r"one step needs about 3\.0 GiB on cpu, which has 2\.0 GiB free") as caught:
        require_memory(runtime, 3 * 1024**3, "one step")
    assert "batch_size" in caught.value.hint


def test_unknown_memory_lets_through(monkeypatch):
    monkeypatch.setattr(subject, "available_memory", lambda device: None)
    require_memory(Runtime(CPU, "fp32"), 2**60, "one step")


def test_free_memory_is_a_plausible_number():
    found = available_memory(CPU)
    assert found is not None
    assert 2**24 < found < 2**50


def test_free_memory_respects_a_containers_limit(monkeypatch, tmp_path):
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text("MemTotal:       16000 kB\nMemAvailable:    8000 kB\n")
    places = {"/proc/meminfo": meminfo, "/sys/fs/cgroup/memory.max": limit}
    monkeypatch.setattr(subject, "Path", lambda name: places[name])
    assert subject._linux_memory() == 8000 * 1024
    limit.write_text("max\n")
    assert subject._linux_memory() == 8000 * 1024
    limit.write_text("1000000\n")
    assert subject._linux_memory() == 1_000_000
