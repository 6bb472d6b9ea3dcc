"""The device check: every refusal has a reason and a hint."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ahriuwu_cli.core import device as subject
from ahriuwu_cli.core.device import Runtime, apply_threads, has_native_bf16, resolve_runtime
from ahriuwu_cli.core.errors import DeviceError
from ahriuwu_cli.core.training.config import RunSection

CPU = torch.device("cpu")


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
    assert resolve_runtime(RunSection(loader_workers=0)) == Runtime(CPU, "bf16")
    bf16(False)
    assert resolve_runtime(RunSection(loader_workers=0)) == Runtime(CPU, "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_precision_that_is_asked_for_is_given(no_gpu, bf16, precision):
    bf16(True)
    run = RunSection(device="cpu", precision=precision, loader_workers=3)
    assert resolve_runtime(run) == Runtime(CPU, precision, loader_workers=3)


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
