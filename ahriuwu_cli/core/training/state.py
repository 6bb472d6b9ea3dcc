"""Training state on disk: weights, optimiser, generators, stage and step in one safetensors file, no pickle.

Tensor names: `module/<name>` (the module's state dict), `optimizer/<name>/<slot>` (AdamW moments and
step counts of a trained parameter), `rng/<generator>`, `stage/<name>`. The header's `info` has the
numbers: step, bad_steps, seed, settings, and as JSON text the loss scaler and the stage's values.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ahriuwu_cli.core.artifact import Header, canonical, load_strictly, read_weights, write_weights
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ArtifactError
from ahriuwu_cli.core.training.config import TrainSettings
from ahriuwu_cli.core.training.stage import Stage, StageState

FREE_SETTINGS = frozenset({"steps", "log_every", "checkpoint_every", "max_bad_steps"})  # may change at a resume
SLOTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps for each parameter


@dataclass
class Session:
    """The live objects of one training run; `step` counts finished steps, skipped ones included."""

    stage: Stage
    settings: TrainSettings
    runtime: Runtime
    seed: int
    step: int = 0
    bad_steps: int = 0
    parameters: dict[str, nn.Parameter] = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)
    scaler: torch.amp.GradScaler | None = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = dict(self.stage.trained())
        everything = {id(parameter) for parameter in self.stage.module.parameters()}
        declared = {id(parameter) for parameter in self.parameters.values()}
        assert declared, "a stage trains at least one parameter"
        assert declared <= everything, "trained() returns parameters of the stage's module"
        for parameter in self.stage.module.parameters():
            parameter.requires_grad_(id(parameter) in declared)
        self.optimizer = make_optimizer(self.parameters, self.settings)
        self.scaler = torch.amp.GradScaler(self.runtime.device.type) if self.runtime.precision == "fp16" else None

    def untrained(self) -> list[str]:
        """List the declared tensors that never received a non-zero gradient, sorted.

        AdamW's moments are the record: they are absent or zero exactly for such a tensor.
        """
        return sorted(
            name
            for name, parameter in self.parameters.items()
            if not any(slot.any() for slot in _moments(self.optimizer, parameter))
        )


def make_optimizer(parameters: Mapping[str, nn.Parameter], settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW with weight decay on tensors of two or more dimensions only."""
    matrices = [parameter for parameter in parameters.values() if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters.values() if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate)


def _moments(optimizer: torch.optim.AdamW, parameter: nn.Parameter) -> Iterator[Tensor]:
    slots = optimizer.state.get(parameter, {})
    return (slots[name] for name in SLOTS[1:] if name in slots)


# ---------------------------------------------------------------- writing


def save_state(path: Path, session: Session) -> Header:
    """Write the whole state of a training run, atomically."""
    fields = session.stage.describe()
    stage = session.stage.state()
    tensors = {f"module/{name}": tensor for name, tensor in session.stage.module.state_dict().items()}
    for name, parameter in session.parameters.items():
        for slot, value in session.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{slot}"] = value
    tensors |= {f"rng/{name}": tensor for name, tensor in _generators(session.runtime).items()}
    tensors |= {f"stage/{name}": tensor for name, tensor in stage.tensors.items()}
    info = {
        "of": session.stage.kind,
        "step": session.step,
        "bad_steps": session.bad_steps,
        "seed": session.seed,
        "settings": session.settings.model_dump(mode="json"),
        "python_rng": json.dumps(random.getstate()),
        "scaler": json.dumps(None if session.scaler is None else session.scaler.state_dict()),
        "stage": json.dumps(stage.values, allow_nan=False),
    }
    return write_weights(
        path, "state", tensors, config=fields.config, specs=fields.specs, parents=fields.parents, info=info
    )


def _generators(runtime: Runtime) -> dict[str, Tensor]:
    """States of the global generators that live in tensors."""
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
    return states


# ---------------------------------------------------------------- reading


def load_state(path: Path, session: Session) -> None:
    """Put a saved state back into a fresh session, bit for bit; nothing changes when it does not fit.

    Raises:
        InputError: the file is missing.
        ArtifactError: damaged, of another stage, or made with another config, specs, parents or seed.
    """
    header, tensors = read_weights(path, "state")
    _check(path, header, session)
    parts = {prefix: _part(tensors, prefix) for prefix in ("module", "optimizer", "rng", "stage")}
    load_strictly(session.stage.module, parts["module"], path)
    _load_optimizer(session, parts["optimizer"], path)
    scaler = json.loads(header.info["scaler"])
    if session.scaler is not None and scaler:
        session.scaler.load_state_dict(scaler)
    session.stage.load_state(StageState(parts["stage"], json.loads(header.info["stage"])))
    session.step, session.bad_steps = header.info["step"], header.info["bad_steps"]
    _restore_generators(session.runtime, parts["rng"], header.info["python_rng"])


def _check(path: Path, header: Header, session: Session) -> None:
    stage, fields = session.stage, session.stage.describe()
    if header.info.get("of") != stage.kind:
        raise ArtifactError(
            f"{path} is the state of a {header.info.get('of')} training; expected {stage.kind}",
            hint="give the folder of the stage that is being resumed",
        )
    saved = {
        "config": header.config,
        "specs": header.specs,
        "parents": header.parents,
        "train": header.info["settings"],
        "seed": header.info["seed"],
    }
    now = {
        "config": fields.config,
        "specs": fields.specs,
        "parents": fields.parents,
        "train": session.settings.model_dump(mode="json"),
        "seed": session.seed,
    }
    found = list(differences(saved, json.loads(canonical(now))))
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ArtifactError(
            f"{path} cannot be resumed with another configuration: {'; '.join(found[:3])}{more}",
            hint="set these back to resume, or start this stage anew with --overwrite",
        )


def differences(saved: Any, now: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Leaves in which two nested dicts differ, as `a.b: 1 in the saved state, 2 now`.

    Step counts and cadences of training settings (tables named `train`) are free to change.
    """
    if path[-2:-1] == ("train",) and path[-1] in FREE_SETTINGS:
        return
    if isinstance(saved, dict) and isinstance(now, dict):
        for name in sorted(saved.keys() | now.keys()):
            yield from differences(saved.get(name, "nothing"), now.get(name, "nothing"), (*path, name))
    elif saved != now:
        yield f"{'.'.join(path)}: {saved} in the saved state, {now} now"


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _load_optimizer(session: Session, saved: Mapping[str, Tensor], path: Path) -> None:
    slots: dict[str, dict[str, Tensor]] = {}
    for key, tensor in saved.items():
        name, _, slot = key.rpartition("/")
        slots.setdefault(name, {})[slot] = tensor
    strangers = sorted(slots.keys() - session.parameters.keys())
    if strangers:
        raise ArtifactError(
            f"{path} has optimiser moments for {strangers[0]}, which this stage does not train",
            hint="the state was written by another version of this program; start anew with --overwrite",
        )
    for name, values in slots.items():
        parameter = session.parameters[name]
        # the step count stays on the CPU, as AdamW keeps it
        session.optimizer.state[parameter] = {
            slot: value if slot == "step" else value.to(parameter.device) for slot, value in values.items()
        }


def _restore_generators(runtime: Runtime, states: Mapping[str, Tensor], python_state: str) -> None:
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
