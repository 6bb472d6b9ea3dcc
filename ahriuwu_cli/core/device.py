"""The one place where device and precision come from: checked before any data is touched."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import nn

from ahriuwu_cli.core.errors import DeviceError
from ahriuwu_cli.core.heap import keep_freed_memory
from ahriuwu_cli.core.training.config import RunSection

Precision = Literal["fp32", "bf16", "fp16"]

M = TypeVar("M", bound=nn.Module)
AUTOCAST_DTYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Runtime:
    """Where tensors live, which type matrix products run in (weights stay float32), and whether to compile.

    `loader_workers` threads read the batches of a training ahead (see core/training/loader.py).
    """

    device: torch.device
    precision: Precision
    compile: bool = False
    loader_workers: int = 0

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
    if device.type == "cpu":
        keep_freed_memory()
    return Runtime(device, _resolve_precision(run.precision, device), run.compile, run.loader_workers)


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


def is_out_of_memory(error: Exception) -> bool:
    """True where a device, or the system for the CPU, gave no more; torch has no class for the latter."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)
