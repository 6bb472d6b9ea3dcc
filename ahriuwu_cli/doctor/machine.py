"""The machine: Python, packages, devices and what they compute in, memory, disk, optional extras."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ahriuwu_cli.core.device import Precision, has_native_bf16, resolve_runtime
from ahriuwu_cli.core.errors import ConfigError, DeviceError
from ahriuwu_cli.core.memory import GIB, available_memory
from ahriuwu_cli.core.training.config import RunSection
from ahriuwu_cli.doctor.findings import Area, counted
from ahriuwu_cli.tokenizer.perceptual import load_lpips

PACKAGE = "ahriuwu"
EXTRAS = ("atari", "minigrid", "minatar", "vizdoom", "tensorboard", "tune")
MIN_FREE_DISK = GIB
"""Less than this is a problem: a checkpoint is written in full before it replaces the one before it."""

DeviceName = Literal["cpu", "cuda", "mps"]


def examine_machine(area: Area, folder: Path) -> None:
    """Check this machine; `folder` is where a run is, or would be, written."""
    with area.guard("python"):
        _python(area)
    with area.guard("packages"):
        _packages(area)
    for device in get_args(DeviceName):
        with area.guard(device):
            _device(area, device)
    with area.guard("disk"):
        _disk(area, folder)
    with area.guard("extras"):
        _extras(area)
    with area.guard("lpips"):
        _lpips(area)


# ---------------------------------------------------------------- packages


def requirements(extra: str = "") -> Iterator[Requirement]:
    """What the installed package asks for; with `extra`, only what that extra adds."""
    for requirement in map(Requirement, metadata.requires(PACKAGE) or []):
        if _applies(requirement, extra) and not (extra and _applies(requirement, "")):
            yield requirement


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def version_fault(requirement: Requirement) -> str | None:
    """What is wrong with the installed version of a package, or None."""
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{requirement.name} is {found}; expected {requirement.specifier}"
    return None


def _python(area: Area) -> None:
    found, wanted = platform.python_version(), metadata.metadata(PACKAGE)["Requires-Python"]
    text = f"{found} on {platform.system()} {platform.machine()}"
    fits = SpecifierSet(wanted).contains(found, prereleases=True)
    area.judge("python", [] if fits else [f"{text}; expected {wanted}"], text, f"use a Python {wanted}")


def _packages(area: Area) -> None:
    """One row for torch, one for all other requirements."""
    wanted = {requirement.name: requirement for requirement in requirements()}
    needed = wanted.pop("torch")
    area.judge(
        "torch",
        [fault for fault in [version_fault(needed)] if fault],
        f"{torch.__version__} (expected {needed.specifier})",
        f"pip install '{needed}'",
    )
    faults = {str(requirement): fault for requirement in wanted.values() if (fault := version_fault(requirement))}
    area.judge(
        "packages",
        list(faults.values()),
        f"{len(wanted)} others, each in its range",
        f"pip install {' '.join(repr(name) for name in faults)}",
    )


def _extras(area: Area) -> None:
    """Optional packages: never a problem when absent."""
    for extra in EXTRAS:
        needed = list(requirements(extra))
        faults = [fault for requirement in needed if (fault := version_fault(requirement))]
        if faults:
            area.note(extra, f"{'; '.join(faults)} (optional: pip install '{PACKAGE}[{extra}]')")
        else:
            area.ok(extra, ", ".join(f"{item.name} {metadata.version(item.name)}" for item in needed))


def _lpips(area: Area) -> None:
    """The perceptual loss: the package imports and its VGG weights are on this machine."""
    package = f"lpips {metadata.version('lpips')}" if find_spec("lpips") else "no package lpips"
    try:
        load_lpips("")
    except ConfigError as error:
        area.note("lpips", f"{package}; {error.message} (needed only when tokenizer.loss.lpips_weight is above 0)")
    else:
        area.ok("lpips", f"{package} with VGG weights")


# ---------------------------------------------------------------- hardware


def _device(area: Area, name: DeviceName) -> None:
    """One row per kind of device: what it is, free memory, the precisions that training can use on it."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[name]:
        area.note(name, "none that torch can use")
        return
    device = resolve_runtime(RunSection(device=name, precision="fp32")).device  # refuses one that does not compute
    served = ", ".join(precision for precision in get_args(Precision) if _serves(name, precision))
    native = "native bf16" if has_native_bf16(device) else "no native bf16"
    free = available_memory(device)
    memory = "free memory unknown" if free is None else f"{free / GIB:.1f} GiB free"
    area.ok(name, f"{_describe(device)}, {memory}, {native}; precisions {served}")


def _serves(name: DeviceName, precision: Precision) -> bool:
    try:
        resolve_runtime(RunSection(device=name, precision=precision))
    except DeviceError:
        return False
    return True


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        count = torch.cuda.device_count()
        return torch.cuda.get_device_name(device) + (f" (and {count - 1} more)" if count > 1 else "")
    if device.type == "mps":
        return "Apple GPU"
    return f"{counted(os.cpu_count() or 1, 'core')}, {counted(torch.get_num_threads(), 'torch thread')}"


def _disk(area: Area, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    text = f"{free / GIB:.1f} GiB free at {folder.absolute()}"
    faults = [] if free >= MIN_FREE_DISK else [f"{text}; expected at least {MIN_FREE_DISK / GIB:.0f} GiB"]
    area.judge("disk", faults, text, "make room, or put the run on another disk")
