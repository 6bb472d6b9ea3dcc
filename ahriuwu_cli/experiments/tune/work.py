"""The work behind a search: what all trials share, then one trial after the other, each by one process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from ahriuwu_cli.core.artifact import Kind, read_header
from ahriuwu_cli.core.device import resolve_runtime
from ahriuwu_cli.core.errors import (
    AhriuwuError,
    BusyError,
    ConfigError,
    DataError,
    DeviceError,
    StorageError,
    TrainingError,
)
from ahriuwu_cli.core.files import write_json
from ahriuwu_cli.core.lock import exclusive, in_turn
from ahriuwu_cli.experiments.plans import (
    CADENCES,
    Training,
    agent_training,
    data_is_there,
    data_minutes,
    dynamics_training,
    prepare_data,
    prepare_episodes,
    read_json,
    say,
    scratch_training,
    tokenizer_training,
)
from ahriuwu_cli.experiments.settings import differences, flat, in_words
from ahriuwu_cli.experiments.tune.plan import Plan, TrialRun
from ahriuwu_cli.experiments.tune.storage import Storage, Trial
from ahriuwu_cli.pipeline.config import Run
from ahriuwu_cli.pipeline.unfinished import recording_left

ROAD = ("run", "data", "tokenizer", "latents", "dynamics", "agent")
"""Sections in the order of the road: what is judged depends on its own and those before."""
FREE = ("run.name", "run.device", "run.threads", "run.loader_workers", "run.compile", "run.seed")
"""Keys that may change between calls: where it runs; trials have a seed of their own."""
SHARED: tuple[Kind, ...] = ("episodes", "packed", "dynamics")
"""What trials may share."""
RESULT_NAME = "result.json"
OF_A_TRIAL = (TrainingError, ConfigError, DataError, DeviceError, MemoryError)
"""What may be the fault of a trial's values, so that the next trial may do better."""


# ---------------------------------------------------------------- what trials share


def prepare(plan: Plan) -> tuple[Storage, Run]:
    """Make what the trials share, unless it is there, and open the storage; the run that has what is shared.

    Decision: what lies finished beside the run.toml is used, and never made again there; else the folder of the search
    gets its own.

    Raises:
        ConfigError: trials of other settings, or made from something else, are in the folder.
        DeviceError: the run's device is not there.
    """
    resolve_runtime(plan.config.run)
    with in_turn(plan.folder, lambda who: say(f"waiting: {who}")):
        storage = Storage(plan)
        base = next((run for run in plan.bases if _is_there(plan, run)), plan.bases[-1])
        _make(plan, base)
        asked = _asked(plan, base)
        before = storage.asked()
        changed = differences(before, asked)
        if before and changed:
            raise ConfigError(
                f"the trials in {plan.folder} cannot be compared with what {plan.path} asks for: {in_words(changed)}",
                hint="change it back, or begin a new search with another --dir",
            )
        if not before:
            storage.note(asked)
    return storage, base


def _shared(plan: Plan) -> frozenset[str]:
    """Kinds of artifacts that trials share, beside the episodes."""
    needed = {"tokenizer": (), "dynamics": ("packed",), "scratch": ("packed",), "agent": ("packed", "dynamics")}
    return frozenset(needed[plan.settings.stage]) - plan.own


def _is_there(plan: Plan, run: Run) -> bool:
    shared = _shared(plan)
    if not run.episodes.exists() or list(recording_left(run)):
        return False
    if "packed" in shared and not data_is_there(run):
        return False
    return "dynamics" not in shared or dynamics_training(run).is_done()


def _make(plan: Plan, base: Run) -> None:
    shared = _shared(plan)
    if "packed" not in shared:
        prepare_episodes(base)
        return
    prepare_data(base)
    if "dynamics" in shared:
        dynamics_training(base).finish()


def _asked(plan: Plan, base: Run) -> dict[str, Any]:
    """Everything that a trial's metric depends on but for its values, by dotted key."""
    sections = ROAD[: ROAD.index(plan.stage.section) + 1]
    config = dict(flat(plan.config.model_dump(mode="json", include=set(sections))))
    searched = tuple(f"{key.name}." for key in plan.keys)
    kinds = [kind for kind in SHARED if kind in ("episodes", *_shared(plan))]
    return {
        "tune.stage": plan.settings.stage,
        "tune.metric": plan.goal.name,
        "tune.higher": plan.goal.higher,
        "tune.seed": plan.settings.seed,
        **{f"tune.keys.{key.name}": key.space.model_dump(mode="json") for key in plan.keys},
        **{kind: read_header(getattr(base, kind), kind).fingerprint for kind in kinds},
        **{
            key: value
            for key, value in config.items()
            if key not in FREE and key.rpartition(".")[2] not in CADENCES and not f"{key}.".startswith(searched)
        },
    }


# ---------------------------------------------------------------- trials


def work(plan: Plan, storage: Storage, base: Run) -> None:
    """Work on trials until there is none left that no other process is at.

    Raises:
        TrainingInterrupted: Ctrl-C or SIGTERM; the trial is gone on with by whoever comes next.
    """
    while True:
        with ExitStack() as held:
            trial = _claim(plan, storage, held)
            if trial is None:
                return
            _work_on(plan, storage, base, trial)


def _claim(plan: Plan, storage: Storage, held: ExitStack) -> Trial | None:
    """A trial that was left behind, or else a new one, held for this process; None when there are no more."""
    with in_turn(plan.folder, lambda who: None):
        trials = storage.trials()
        for trial in trials:
            if trial.state == "open" and _hold(plan, trial, held):
                return trial
        if len(trials) >= plan.settings.trials:
            return None
        trial = storage.ask()
        held.enter_context(exclusive(plan.place(trial.number)))
        return trial


def _hold(plan: Plan, trial: Trial, held: ExitStack) -> bool:
    try:
        held.enter_context(exclusive(plan.place(trial.number)))
    except BusyError:
        return False
    return True


def _work_on(plan: Plan, storage: Storage, base: Run, trial: Trial) -> None:
    say(f"trial {trial.number}: {', '.join(plan.overrides(trial.values))}")
    path = plan.place(trial.number) / RESULT_NAME
    found: dict[str, float] = {}
    trainings: list[Training] = []
    reason, run, trained = "", None, False
    try:
        run = plan.trial_run(base, trial.number, trial.values)
        for training in _trainings(plan, run, f"trial {trial.number}, "):
            trainings.append(training)
            training.finish()
        judged, trained = trainings[-1], True
        found = read_header(judged.weights, judged.kind).info.get("heldout") or {}
        reason = "" if plan.goal.name in found else f"no {plan.goal.name}; measured: {', '.join(found) or 'nothing'}"
    except OF_A_TRIAL as error:
        if isinstance(error.__cause__, StorageError):
            raise
        reason = error.message if isinstance(error, AhriuwuError) else "out of memory"
    spent = [training.cpu_seconds() / 60 for training in trainings] + ([*data_minutes(run).values()] if run else [])
    minutes = sum(part for part in spent if part is not None and math.isfinite(part))
    write_json(path, {"reason": reason, "heldout": found, "cpu_minutes": minutes})
    value = None if reason else float(found[plan.goal.name])
    storage.tell(trial, value)
    say(f"trial {trial.number}: {f'failed: {reason}' if value is None else f'{plan.goal.name} {value:.4g}'}")
    if value is None and trained and _is_hopeless(plan, storage, found):
        raise ConfigError(
            f"{plan.path}: a finished trial has {reason}",
            hint="name another metric, or hold longer episodes out, and begin a new search with another --dir",
        )


def _is_hopeless(plan: Plan, storage: Storage, found: Mapping[str, float]) -> bool:
    """True when no trial would have the metric: nothing measures it, which is no fault of this trial's values."""
    may_be_unknown = not found or plan.goal.name != plan.stage.goal.name
    return may_be_unknown and not any(trial.state == "done" for trial in storage.trials())


def _trainings(plan: Plan, run: TrialRun, name: str) -> Iterator[Training]:
    """The trainings of a trial, each begun when those before are done; the last is the one that is judged."""
    stage = plan.settings.stage
    if stage == "tokenizer":
        yield tokenizer_training(run, f"{name}tokenizer")
        return
    if "packed" in run.own:
        yield tokenizer_training(run, f"{name}tokenizer")
        prepare_data(run, name)
    if "dynamics" in run.own or stage == "dynamics":
        yield dynamics_training(run, f"{name}dynamics")
    if stage == "agent":
        yield agent_training(run, f"{name}agent")
    if stage == "scratch":
        yield scratch_training(run, f"{name}scratch")


def read_result(plan: Plan, trial: Trial) -> Mapping[str, Any]:
    """`reason heldout cpu_minutes` of a trial that was told of; empty before."""
    return read_json(plan.place(trial.number) / RESULT_NAME)
