"""The device check: every refusal has a reason and a hint, and the memory estimate holds against real bytes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ahriuwu_cli.core import device as subject
from ahriuwu_cli.core.device import (
    Runtime,
    apply_threads,
    available_memory,
    estimate_step_memory,
    has_native_bf16,
    require_memory,
    resolve_runtime,
    saved_bytes,
)
from ahriuwu_cli.core.errors import DeviceError
from ahriuwu_cli.core.training.config import RunSection, TrainSettings

CPU = torch.device("cpu")
PLAIN = TrainSettings(steps=1, batch_size=1, learning_rate=1e-3)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def bf16(monkeypatch):
    def set_support(value: bool) -> None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: value, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)

    return set_support


def test_auto_without_a_gpu_is_the_cpu(no_gpu, bf16):
    bf16(True)
    assert resolve_runtime(RunSection()) == Runtime(CPU, "bf16")
    bf16(False)
    assert resolve_runtime(RunSection()) == Runtime(CPU, "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_precision_that_is_asked_for_is_given(no_gpu, bf16, precision):
    bf16(True)
    assert resolve_runtime(RunSection(device="cpu", precision=precision)) == Runtime(CPU, precision)


def test_bf16_without_hardware_is_refused(no_gpu, bf16):
    bf16(False)
    with pytest.raises(DeviceError, match="this CPU has no bf16 matrix products") as caught:
        resolve_runtime(RunSection(device="cpu", precision="bf16"))
    assert "run.precision=fp32" in caught.value.hint
    assert caught.value.exit_code == 2


def test_fp16_on_the_cpu_is_refused(no_gpu):
    with pytest.raises(DeviceError, match="fp16 is not supported on the CPU") as caught:
        resolve_runtime(RunSection(device="cpu", precision="fp16"))
    assert "run.precision=auto" in caught.value.hint


def test_cuda_on_a_cpu_build_names_the_build(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(DeviceError, match="is a CPU build") as caught:
        resolve_runtime(RunSection(device="cuda"))
    assert "CUDA build of torch" in caught.value.hint


def test_cuda_without_a_driver_points_at_the_driver(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(DeviceError, match="sees no usable GPU") as caught:
        resolve_runtime(RunSection(device="cuda"))
    assert "nvidia-smi" in caught.value.hint


def test_mps_elsewhere_than_on_a_mac(no_gpu, monkeypatch):
    monkeypatch.setattr(subject.sys, "platform", "linux")
    with pytest.raises(DeviceError, match=r"this machine \(linux\) has no Apple GPU") as caught:
        resolve_runtime(RunSection(device="mps"))
    assert "run.device=auto" in caught.value.hint


def test_a_gpu_that_does_not_compute_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

    def fail(*args, **kwargs):
        raise RuntimeError("no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(DeviceError, match="cuda:0 does not compute: no kernel image is available") as caught:
        resolve_runtime(RunSection(device="auto"))
    assert "run.device=cpu" in caught.value.hint


def test_old_cuda_cards_have_no_bf16(monkeypatch):
    card = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "T4")
    assert not has_native_bf16(card)
    assert subject._resolve_precision("auto", card) == "fp32"
    assert subject._resolve_precision("fp16", card) == "fp16"
    with pytest.raises(DeviceError, match=r"T4 \(compute capability 7.5\) has no bf16"):
        subject._resolve_precision("bf16", card)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_gives_the_precision(precision, dtype):
    """Pitfall 26: dtype comes from the runtime alone."""
    layer = nn.Linear(2, 2)
    with Runtime(CPU, precision).autocast():
        assert layer(torch.ones(1, 2)).dtype == dtype
    assert layer(torch.ones(1, 2)).dtype == torch.float32


def test_threads_are_applied():
    before = torch.get_num_threads()
    try:
        apply_threads(RunSection(threads=3))
        assert torch.get_num_threads() == 3
        apply_threads(RunSection(threads=0))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


# ---------------------------------------------------------------- memory


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


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_serving_changes_no_output(precision: str) -> None:
    """Weights converted once give what autocast gives by converting them in every pass."""
    runtime = Runtime(torch.device("cpu"), precision)
    module = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 3)).requires_grad_(False)
    x = torch.randn(5, 4)
    with runtime.autocast():
        before = module(x)
    assert runtime.serve(module) is module
    assert module[0].weight.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    with runtime.autocast():
        assert torch.equal(module(x), before)
