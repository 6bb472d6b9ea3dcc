"""What a training step needs of a device's memory, and what is free: compared before any data is touched."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn

from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import DeviceError
from ahriuwu_cli.core.training.config import TrainSettings
from ahriuwu_cli.core.training.recompute import instead_of_checkpoints, set_recompute

GIB = 1024**3


def saved_bytes(module: nn.Module, loss: Callable[[nn.Module], Tensor]) -> int:
    """Count the bytes that a forward pass keeps for the backward pass: storages once, weights left out.

    Of blocks that are computed again only the inputs are kept, and in the backward pass the insides of one at a time:
    the largest.
    """
    own = {tensor.untyped_storage()._cdata for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, int] = {}
    inputs: list[Tensor] = []  # of recomputed blocks, alive until the end as checkpointing keeps them
    largest = 0

    def count(tensor: Tensor, found: dict[int, int]) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage.nbytes()
        return tensor.detach()  # holds the storage alive, so its address stays unique, without a reference cycle

    def keep_inputs(block: Callable[..., Tensor], *args: object) -> Tensor:
        nonlocal largest
        inside: dict[int, int] = {}
        with _saving(lambda tensor: count(tensor, inside)):
            result = block(*args)
        inputs.extend(count(arg, kept) for arg in args if isinstance(arg, Tensor))
        largest = max(largest, sum(size for storage, size in inside.items() if storage not in kept))
        return result

    with _saving(lambda tensor: count(tensor, kept)), instead_of_checkpoints(module, keep_inputs):
        value = loss(module)
    total = sum(kept.values()) + largest
    del value
    return total


def _saving(pack: Callable[[Tensor], Tensor]) -> AbstractContextManager[object]:
    """Context in which `pack` sees every tensor that is kept for the backward pass."""
    return torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)


def estimate_step_memory(
    build: Callable[[], nn.Module],
    loss: Callable[[nn.Module], Tensor],
    settings: TrainSettings,
    runtime: Runtime,
) -> int:
    """Estimate the bytes that one training step needs, without computing or allocating anything.

    Builds the module from shape-only tensors (meta tensors that remember a device), runs the loss on
    them, and adds up parameters, buffers, gradients, the two Adam moments, the weights' average and what the
    forward pass saves for the backward pass. Short-lived buffers inside single operations are not counted.

    Args:
        build: makes the module with default devices (no data, no files).
        loss: makes a (micro-)batch of the configured size and returns the scalar loss. Must not read values
            (`.item()`).
        settings: those of the training.
        runtime: whose precision the loss is counted in, on whatever device.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    # Shape-only tensors are on the CPU, also when training will not be: autocast for the CPU gives the same sizes.
    here = Runtime(torch.device("cpu"), runtime.precision)
    with torch.random.fork_rng(devices=[]), FakeTensorMode(), here.autocast():
        module = build()
        set_recompute(module, settings.recompute)
        parameters = sum(_nbytes(parameter) for parameter in module.parameters())
        trained = sum(_nbytes(parameter) for parameter in module.parameters() if parameter.requires_grad)
        buffers = sum(_nbytes(buffer) for buffer in module.buffers())
        saved = saved_bytes(module, loss)
    copies = 4 if settings.ema_decay else 3  # gradient, two moments, average
    return parameters + buffers + copies * trained + saved


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def require_memory(runtime: Runtime, needed: int, what: str) -> None:
    """Refuse a step that cannot fit into the memory that is free now.

    Args:
        runtime: where the step would run.
        needed: bytes, from `estimate_step_memory`.
        what: the subject of the message, e.g. "one dynamics step".

    Raises:
        DeviceError: the device has less free memory (devices that do not say are let through).
    """
    available = available_memory(runtime.device)
    if available is not None and needed > available:
        raise DeviceError(
            f"{what} needs about {needed / GIB:.1f} GiB on {runtime.device}, which has {available / GIB:.1f} GiB free",
            hint="lower train.batch_size (train.accumulate makes up for it), set train.recompute = true, "
            "take a smaller model, close other programs, or use a device with more memory",
        )


def available_memory(device: torch.device) -> int | None:
    """Ask for the bytes that are free on the device now; None where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    if sys.platform == "win32":
        return _windows_memory()
    if sys.platform == "darwin":
        return _darwin_memory()
    return _linux_memory()


def _linux_memory() -> int | None:
    meminfo, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if meminfo.is_file():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        available = int(fields["MemAvailable"].split()[0]) * 1024
    elif hasattr(os, "sysconf"):
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        return None
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():  # a container's own limit
        available = min(available, int(text))
    return available


def _darwin_memory() -> int | None:
    answer = subprocess.run(["/usr/sbin/sysctl", "-n", "hw.memsize"], capture_output=True, text=True, check=False)
    return int(answer.stdout) if answer.stdout.strip().isdigit() else None


def _windows_memory() -> int | None:
    # MEMORYSTATUSEX: two 32-bit fields, then seven 64-bit ones; the second of those is the free memory in bytes.
    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            ("total", ctypes.c_uint64),
            ("available", ctypes.c_uint64),
            ("rest", ctypes.c_uint64 * 5),
        )

    status = Status(length=ctypes.sizeof(Status))
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 (absent outside Windows)
    return int(status.available) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None
