"""The one training loop of all stages: loss, step, watch, log, save; resumable bit for bit on the CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from ahriuwu_cli.core.artifact import Header, read_header, write_weights
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import InputError, TrainingError, TrainingInterrupted
from ahriuwu_cli.core.training.config import TrainSettings
from ahriuwu_cli.core.training.files import RunFiles
from ahriuwu_cli.core.training.interrupt import StopRequest
from ahriuwu_cli.core.training.recompute import learning_parts
from ahriuwu_cli.core.training.schedule import learning_rate
from ahriuwu_cli.core.training.sinks import Sinks, last_metrics
from ahriuwu_cli.core.training.stage import ArtifactFields, Stage, StageState, moved, seed_everything
from ahriuwu_cli.core.training.state import Session, load_state, save_state
from ahriuwu_cli.core.training.step import take_step
from ahriuwu_cli.core.training.watch import Watch

__all__ = ["ArtifactFields", "Stage", "StageState", "TrainResult", "moved", "seed_everything", "train"]


@dataclass(frozen=True)
class TrainResult:
    """What a finished training run leaves behind.

    `seconds` of training include those before a resume; `metrics` are the averages of the last log
    point (NaN where nothing was measured).
    """

    header: Header
    steps: int
    seconds: float
    metrics: dict[str, float]


def train(
    stage: Stage,
    settings: TrainSettings,
    runtime: Runtime,
    folder: Path,
    *,
    resume: bool,
    seed: int,
    overwrite: bool = False,
) -> TrainResult:
    """Train a stage to `settings.steps` and write its artifact.

    Writes into `folder`: `<kind>.safetensors` (the artifact), `<kind>.state.safetensors` (for
    `resume`), `metrics.jsonl`, and `tensorboard/` when TensorBoard is installed. A fresh run seeds
    the global generators; a resumed one restores them, and on the CPU ends with the very bits of a
    run without a break (compiled code apart). Resuming a finished run returns its result and writes nothing.

    Args:
        stage: what is trained; its module is on `runtime.device`.
        settings: optimiser, schedule and bookkeeping.
        runtime: device, precision, and whether to compile.
        folder: the stage's folder, made when absent.
        resume: go on from the saved state.
        seed: seed of a fresh run.
        overwrite: let a fresh run replace an earlier one.

    Raises:
        InputError: nothing to resume, or a fresh run without `overwrite` where there is one already.
        ArtifactError: the saved state is damaged or was made with another configuration.
        DeviceError: the device ran out of memory.
        TrainingError: too many non-finite steps, or a checkpoint could not be written.
        TrainingInterrupted: Ctrl-C or SIGTERM; everything is saved.
    """
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other", hint="give one of them")
    files = RunFiles(folder, stage.kind)
    session = Session(stage, settings, runtime, seed)
    if resume:
        files.require_state()
        load_state(files.state, session)
        finished = _finished(files, session)
        if finished is not None:
            return finished
    else:
        files.claim(overwrite=overwrite)
        seed_everything(seed)
    stage.module.train()
    with (
        StopRequest() as stop,
        Sinks(stage.kind, files.metrics, files.tensorboard, session.step, settings.steps) as sinks,
    ):
        _prepare(session, sinks)
        metrics = _run(session, files, sinks, stop)
        if session.step < settings.steps:
            _save(files, session)
            raise TrainingInterrupted(
                f"stopped at step {session.step} of {settings.steps}; saved to {folder}",
                hint="run the same command with --resume to go on",
            )
        header = _save(files, session)
        untrained = header.info["untrained"]
        if untrained:
            sinks.warn(session.step, f"{len(untrained)} declared tensors never learned: {', '.join(untrained[:5])}")
        return TrainResult(header, session.step, sinks.seconds, metrics or last_metrics(files.metrics)[1])


def _finished(files: RunFiles, session: Session) -> TrainResult | None:
    """Return the result when nothing is left to do and the artifact is of the last step."""
    if session.step < session.settings.steps or not files.weights.is_file():
        return None
    header = read_header(files.weights, files.kind)
    if not header.info["finished"] or header.info["steps"] != session.step:
        return None
    seconds, metrics = last_metrics(files.metrics)
    return TrainResult(header, session.step, seconds, metrics)


def _prepare(session: Session, sinks: Sinks) -> None:
    """Compile when asked to, and warn of settings that this stage has no use for."""
    if session.settings.recompute and not learning_parts(session.stage.module):
        sinks.warn(session.step, "train.recompute has no effect: nothing that learns here can be computed again")
    if session.runtime.compile:
        session.compile(lambda text: sinks.warn(session.step, text))


def _run(session: Session, files: RunFiles, sinks: Sinks, stop: StopRequest) -> dict[str, float]:
    """Step until the end or a stop request; returns the metrics of the last log point."""
    settings, watch = session.settings, Watch(session.settings)
    metrics: dict[str, float] = {}
    leaving = session.step >= settings.steps
    while not leaving:
        rate = learning_rate(session.step, settings)
        outcome = take_step(session, rate)
        session.step += 1
        if outcome.fault is not None:
            session.bad_steps += 1
            sinks.warn(session.step, watch.bad_step(session.step, session.bad_steps, outcome.fault))
        else:
            for metrics_of_part in outcome.metrics:
                sinks.add(metrics_of_part)
            if math.isfinite(outcome.norm):  # an fp16 overflow has no norm to speak of
                sinks.warn(session.step, watch.gradient(outcome.norm))
        sinks.update(session.step)

        too_bad = session.bad_steps > settings.max_bad_steps and outcome.fault is not None
        leaving = stop.requested or too_bad or session.step == settings.steps
        checkpoint = session.step % settings.checkpoint_every == 0
        # averages are closed at checkpoints too, so that a resumed run logs what an unbroken one does
        if leaving or checkpoint or session.step % settings.log_every == 0:
            metrics = sinks.log(session.step, rate, session.bad_steps)
            sinks.warn(session.step, watch.metrics(session.step, metrics))
        if too_bad:
            _give_up(files, session, outcome.fault)
        if checkpoint and not leaving:
            _save_state(files, session)
    return metrics


def _give_up(files: RunFiles, session: Session, fault: str | None) -> None:
    """Save the last good weights and end the run."""
    _save(files, session)
    raise TrainingError(
        f"training stopped at step {session.step}: {session.bad_steps} steps were not finite, more than "
        f"max_bad_steps = {session.settings.max_bad_steps} (last: {fault}); the last good state is saved",
        hint="lower learning_rate or look at the data, then start anew with --overwrite; "
        "a higher max_bad_steps lets --resume go on",
    )


def _save(files: RunFiles, session: Session) -> Header:
    """Write the state and the artifact of this very step; with an average of the weights the artifact holds that."""
    _save_state(files, session)
    fields, module, average = session.stage.describe(), session.stage.module, session.average
    info = {
        **fields.info,
        "steps": session.step,
        "finished": session.step >= session.settings.steps,
        "untrained": session.untrained(),
        "averaged": average is not None,
    }
    try:
        return write_weights(
            files.weights,
            files.kind,
            module.state_dict() if average is None else average.state_dict(module),
            config=fields.config,
            specs=fields.specs,
            parents=fields.parents,
            info=info,
        )
    except (OSError, SafetensorError) as error:
        raise _unwritable(files.weights, error) from error


def _save_state(files: RunFiles, session: Session) -> None:
    try:
        save_state(files.state, session)
    except (OSError, SafetensorError) as error:
        raise _unwritable(files.state, error) from error


def _unwritable(path: Path, error: Exception) -> TrainingError:
    reason = " ".join(str(error).split())
    return TrainingError(
        f"could not write {path}: {reason}; the file written before it is intact",
        hint="make room on the disk or allow writing there, then run the same command with --resume",
    )
