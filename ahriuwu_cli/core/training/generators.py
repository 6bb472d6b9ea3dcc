"""The global random generators of torch (all kinds of device), NumPy and Python: their states, and back."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ahriuwu_cli.core.device import Runtime


def generator_states(runtime: Runtime) -> tuple[dict[str, Tensor], str]:
    """States of torch's and NumPy's generators as tensors, that of Python's as JSON text."""
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    states = {
        "cpu": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy_rest": torch.tensor([position, has_gauss, gauss], dtype=torch.float64),
    }
    if runtime.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(runtime.device)
    if runtime.device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states, json.dumps(random.getstate())


def restore_generators(runtime: Runtime, states: Mapping[str, Tensor], python_state: str) -> None:
    """Put back what `generator_states` gave, as far as the runtime's device has such a generator."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and runtime.device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], runtime.device)
    if "mps" in states and runtime.device.type == "mps":
        torch.mps.set_rng_state(states["mps"])
    position, has_gauss, gauss = states["numpy_rest"].tolist()
    keys = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), gauss))
    version, internal, gauss_next = json.loads(python_state)
    random.setstate((version, tuple(internal), gauss_next))
