"""What a training runs on: stored with its state, compared when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ArtifactError


def surroundings(runtime: Runtime) -> dict[str, Any]:
    """Device, precision, threads (those of a CPU) and the torch that computes."""
    device = runtime.device.type
    return {
        "device": device,
        "precision": runtime.precision,
        "threads": torch.get_num_threads() if device == "cpu" else None,
        "torch": torch.__version__,
    }


def compare_surroundings(path: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """One line that says how a resumed run may differ from an unbroken one; None where it cannot.

    Decision: another precision is refused. It is a setting, it changes every product from here on, and it can be set
    back. Another device, thread count or torch is told and taken: a training must be able to move to another machine,
    where these may not be had, and they change how sums are rounded, not what is computed.

    Raises:
        ArtifactError: another precision.
    """
    if saved.get("precision", now["precision"]) != now["precision"]:
        raise ArtifactError(
            f"{path} was trained in {saved['precision']}; this run computes in {now['precision']}",
            hint=f"resume with --set run.precision={saved['precision']}, or start this stage anew with --overwrite",
        )
    changed = [
        f"{name} {now[name]} (was {saved[name]})"
        for name in ("device", "threads", "torch")
        if saved.get(name) is not None and now[name] is not None and saved[name] != now[name]
    ]
    return f"resumed with {', '.join(changed)}: not the very bits of a run without a break" if changed else None
