"""The one place where device, precision and memory come from: checked before any data is touched."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from ahriuwu_cli.core.errors import DeviceError
from ahriuwu_cli.core.training.config import RunSection, TrainSettings
from ahriuwu_cli.core.training.recompute import instead_of_checkpoints, set_recompute

Precision = Literal["fp32", "bf16", "fp16"]

M = TypeVar("M", bound=nn.Module)
AUTOCAST_DTYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
GIB = 1024**3


@dataclass(frozen=True)
class Runtime:
    """Where tensors live, which type matrix products run in (weights stay float32), and whether training compiles."""

    device: torch.device
    precision: Precision
    compile: bool = False

    def autocast(self) -> AbstractContextManager[object]:
        """Context in which a forward pass runs in this precision (nothing to do for fp32)."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=AUTOCAST_DTYPES[self.precision])

    def serve(self, module: M) -> M:
        """The module with the weights of its products in this precision, so that no pass converts them.

        The outputs under `autocast` stay the same. For modules that are neither trained nor saved any more.
        """
        if self.precision != "fp32":
            for part in module.modules():
                if isinstance(part, (nn.Linear, nn.Conv2d)):
                    part.to(AUTOCAST_DTYPES[self.precision])
        return module


# ---------------------------------------------------------------- device and precision


def resolve_runtime(run: RunSection) -> Runtime:
    """Turn the `device` and `precision` of a run into a runtime that this machine can serve.

    `auto` takes cuda, then mps, then cpu; and bf16 where matrix products in it are native (see
    `has_native_bf16`), else fp32.

    Raises:
        DeviceError: the device is absent or does not answer, or cannot compute in the precision.
    """
    device = _resolve_device(run.device)
    _probe(device)
    return Runtime(device, _resolve_precision(run.precision, device), run.compile)


def apply_threads(run: RunSection) -> None:
    """Set torch's CPU threads from `run.threads`; 0 leaves torch's own choice."""
    if run.threads:
        torch.set_num_threads(run.threads)


def _resolve_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if name == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError(f"run.device is cuda, but {_why_no_cuda()}", hint=_hint_no_cuda())
        return torch.device("cuda", torch.cuda.current_device())
    if name == "mps" and not torch.backends.mps.is_available():
        reason = (
            "this torch was built without it"
            if sys.platform == "darwin" and not torch.backends.mps.is_built()
            else f"this machine ({sys.platform}) has no Apple GPU that torch can use"
        )
        raise DeviceError(
            f"run.device is mps, but {reason}",
            hint="mps needs macOS on Apple silicon; use --set run.device=auto or run.device=cpu",
        )
    return torch.device(name)


def _cuda_built() -> bool:
    return torch.version.cuda is not None or torch.version.hip is not None


def _why_no_cuda() -> str:
    if not _cuda_built():
        return f"torch {torch.__version__} is a CPU build"
    return f"torch {torch.__version__} sees no usable GPU (driver missing or too old, or none visible)"


def _hint_no_cuda() -> str:
    if not _cuda_built():
        return "install a CUDA build of torch (https://pytorch.org/get-started/locally) or use --set run.device=auto"
    return "check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or use --set run.device=auto"


def _probe(device: torch.device) -> None:
    """Compute one number there: a GPU too old for this torch build fails here, not in the first step."""
    if device.type == "cpu":
        return
    try:
        torch.ones(1, device=device).add_(1).item()
    except RuntimeError as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise DeviceError(
            f"{device} does not compute: {reason}",
            hint="install a torch build that supports this GPU, free it, or use --set run.device=cpu",
        ) from error


def has_native_bf16(device: torch.device) -> bool:
    """Tell whether bf16 matrix products run on the hardware rather than being emulated.

    CUDA: compute capability 8 or newer (or ROCm). CPU: avx512_bf16 or AMX. MPS: macOS 14 or newer.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return torch.backends.mps.is_macos_or_newer(14, 0)
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check is not None)


def _resolve_precision(name: str, device: torch.device) -> Precision:
    if name == "auto":
        return "bf16" if device.type != "mps" and has_native_bf16(device) else "fp32"
    if name == "bf16":
        if not has_native_bf16(device):
            raise DeviceError(
                f"run.precision is bf16, but {_device_name(device)} has no bf16 matrix products",
                hint="use --set run.precision=fp32",
            )
        return "bf16"
    if name == "fp16":
        if device.type == "cpu":
            raise DeviceError(
                "run.precision is fp16, but training in fp16 is not supported on the CPU",
                hint="use --set run.precision=auto (bf16 where the CPU has it, else fp32)",
            )
        return "fp16"
    return "fp32"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor})"
    return "this CPU" if device.type == "cpu" else "this macOS version"


# ---------------------------------------------------------------- memory


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
