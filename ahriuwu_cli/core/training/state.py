"""Training state on disk: weights, optimiser, generators, stage and step in one safetensors file, no pickle.

Tensor names: `module/<name>` (the module's state dict), `optimizer/<name>/<slot>` (moments and
step counts of a trained parameter), `average/<name>` (its average, when there is one), `rng/<generator>`,
`stage/<name>`, `kept/<name>` (the best result so far, with `keep = "best"`), `means/pairs` (running sum and count of
each metric). The header's `info` is a `StateInfo`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from ahriuwu_cli.core.artifact import Header, canonical, read_weights, write_weights
from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import ArtifactError
from ahriuwu_cli.core.loading import load_strictly, reading
from ahriuwu_cli.core.training.budget import Stopwatch
from ahriuwu_cli.core.training.course import Course
from ahriuwu_cli.core.training.generators import generator_states, restore_generators
from ahriuwu_cli.core.training.heldout import Evaluation
from ahriuwu_cli.core.training.optimizer import SLOTS
from ahriuwu_cli.core.training.session import Session
from ahriuwu_cli.core.training.stage import StageState
from ahriuwu_cli.core.training.surroundings import compare_surroundings, surroundings
from ahriuwu_cli.core.training.trend import Curve

# what may change at a resume
FREE_SETTINGS = frozenset({"steps", "log_every", "checkpoint_every", "heldout_every", "max_bad_steps", "recompute"})


class StateInfo(Section):
    """What a state's header says beside config, specs and parents; `scaler`, `stage` and `python_rng` are JSON text.

    `batches` are drawn by the step; in states of earlier versions a generator went on from batch to batch.
    `seconds` of training are counted only under a budget: without one equal trainings have equal states.
    """

    of: str
    step: int = Field(ge=0)
    bad_steps: int = Field(ge=0)
    bad_in_a_row: int = Field(default=0, ge=0)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    course: Course = Field(default_factory=Course)
    curves: dict[str, Curve] = Field(default_factory=dict)
    seconds: float = Field(default=0.0, ge=0)
    averaged_steps: int = Field(ge=0)
    seed: int
    batches: Literal["generator", "step"] = "generator"
    settings: dict[str, Any]
    python_rng: str
    scaler: str
    stage: str
    means: list[str] = Field(default_factory=list)
    watch: dict[str, list[int]] | None = None
    surroundings: dict[str, Any] = Field(default_factory=dict)


# ---------------------------------------------------------------- writing


def save_state(path: Path, session: Session) -> Header:
    """Write the whole state of a training run, atomically."""
    fields = session.stage.describe()
    stage = session.stage.state()
    tensors = {f"module/{name}": tensor for name, tensor in session.stage.module.state_dict().items()}
    for name, parameter in session.parameters.items():
        for slot, value in session.optimizer.slots(parameter).items():
            tensors[f"optimizer/{name}/{slot}"] = value
    if session.average is not None:
        tensors |= {f"average/{name}": tensor for name, tensor in session.average.tensors.items()}
    generators, python_state = generator_states(session.runtime)
    tensors |= {f"rng/{name}": tensor for name, tensor in generators.items()}
    tensors |= {f"stage/{name}": tensor for name, tensor in stage.tensors.items()}
    tensors |= {f"kept/{name}": tensor for name, tensor in (session.kept or {}).items()}
    names, pairs = session.means.state()
    tensors["means/pairs"] = pairs
    info = StateInfo(
        of=session.stage.kind,
        step=session.step,
        bad_steps=session.bad_steps,
        bad_in_a_row=session.bad_in_a_row,
        evaluation=session.evaluation,
        course=session.course,
        curves=session.curves,
        seconds=session.stopwatch.seconds if session.budget.minutes else 0.0,
        averaged_steps=0 if session.average is None else session.average.updates,
        seed=session.seed,
        batches="step",
        settings=session.settings.model_dump(mode="json"),
        python_rng=python_state,
        scaler=json.dumps(None if session.scaler is None else session.scaler.state_dict()),
        stage=json.dumps(stage.values, allow_nan=False),
        means=names,
        watch=session.watch.state(),
        surroundings=surroundings(session.runtime),
    )
    return write_weights(
        path,
        "state",
        tensors,
        config=fields.config,
        specs=fields.specs,
        parents=fields.parents,
        info=info.model_dump(mode="json"),
    )


# ---------------------------------------------------------------- reading


def load_state(path: Path, session: Session) -> str | None:
    """Put a saved state back into a fresh session, bit for bit; nothing changes when it does not fit.

    Returns:
        A line that says how what follows may differ from a run without a break (see surroundings.py), or None.

    Raises:
        InputError: the file is missing.
        ArtifactError: damaged, of another stage, or made with another config, specs, parents, seed or precision.
    """
    header, tensors = read_weights(path, "state")
    with reading(path):
        info = StateInfo.model_validate(header.info)
        _check(path, header, info, session)
        difference = compare_surroundings(path, info.surroundings, surroundings(session.runtime))
        parts = {
            prefix: _part(tensors, prefix) for prefix in ("module", "optimizer", "average", "rng", "stage", "kept")
        }
        slots = _optimizer_slots(session, parts["optimizer"], path)
        load_strictly(session.stage.module, parts["module"], path)
        for name, values in slots.items():
            session.optimizer.load_slots(session.parameters[name], values)
        if session.average is not None:
            session.average.load(parts["average"], info.averaged_steps)
        scaler = json.loads(info.scaler)
        if session.scaler is not None and scaler:
            session.scaler.load_state_dict(scaler)
        session.stage.load_state(StageState(parts["stage"], json.loads(info.stage)))
        if "means/pairs" in tensors:  # not in states of earlier versions
            session.means.load_state(info.means, tensors["means/pairs"])
        if info.watch is not None:
            session.watch.load_state(info.watch)
        session.step, session.bad_steps, session.bad_in_a_row = info.step, info.bad_steps, info.bad_in_a_row
        session.evaluation, session.kept = info.evaluation, parts["kept"] or None
        session.curves = info.curves
        session.course = info.course.under(session.budget.minutes)
        session.stopwatch = Stopwatch(session.budget.clock, info.seconds, info.step)
        restore_generators(session.runtime, parts["rng"], info.python_rng)
    return difference


def _check(path: Path, header: Header, info: StateInfo, session: Session) -> None:
    stage, fields = session.stage, session.stage.describe()
    if info.of != stage.kind:
        raise ArtifactError(
            f"{path} is the state of a {info.of} training; expected {stage.kind}",
            hint="give the folder of the stage that is being resumed",
        )
    if info.batches != "step":
        raise ArtifactError(
            f"{path} was written by an earlier version, which drew its batches in another way",
            hint="go on with that version, or start this stage anew with --overwrite",
        )
    saved = {
        "config": header.config,
        "specs": header.specs,
        "parents": header.parents,
        "train": info.settings,
        "seed": info.seed,
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


def _optimizer_slots(session: Session, saved: Mapping[str, Tensor], path: Path) -> dict[str, dict[str, Tensor]]:
    """The saved moments of each parameter by name, when they are those of this stage's tensors."""
    slots: dict[str, dict[str, Tensor]] = {}
    for key, tensor in saved.items():
        name, _, slot = key.rpartition("/")
        parameter = session.parameters.get(name)
        if parameter is None or slot not in SLOTS or (slot != "step" and tensor.shape != parameter.shape):
            raise ArtifactError(
                f"{path} has optimiser moments for {name}, which this stage does not train",
                hint="the state was written by another version of this program; start anew with --overwrite",
            )
        slots.setdefault(name, {})[slot] = tensor
    return slots
