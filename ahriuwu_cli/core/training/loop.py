"""The one training loop of all stages: loss, step, watch, log, save; resumable bit for bit on the CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ahriuwu_cli.core.artifact import Header, read_weights
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import InputError, TrainingError, TrainingInterrupted
from ahriuwu_cli.core.lock import exclusive
from ahriuwu_cli.core.training.budget import UNLIMITED, Budget, Stopwatch
from ahriuwu_cli.core.training.checkpoint import Checkpoints
from ahriuwu_cli.core.training.config import TrainSettings
from ahriuwu_cli.core.training.course import Reason
from ahriuwu_cli.core.training.files import RunFiles
from ahriuwu_cli.core.training.heldout import is_judged, measure
from ahriuwu_cli.core.training.interrupt import StopRequest
from ahriuwu_cli.core.training.recompute import learning_parts
from ahriuwu_cli.core.training.schedule import learning_rate
from ahriuwu_cli.core.training.session import Session
from ahriuwu_cli.core.training.sinks import Sinks, last_metrics
from ahriuwu_cli.core.training.stage import (
    ArtifactFields,
    HeldoutStage,
    OpeningStage,
    Stage,
    StageState,
    moved,
    seed_everything,
)
from ahriuwu_cli.core.training.state import load_state
from ahriuwu_cli.core.training.step import take_step

__all__ = ["ArtifactFields", "Stage", "StageState", "TrainResult", "moved", "seed_everything", "train"]

LAST_BAD = 10  # skipped steps in a row at the end that make a run a failure


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

    @property
    def stopped(self) -> Reason:
        """What ended the training."""
        reason: Reason = self.header.info.get("stopped", "steps")
        return reason


def train(
    stage: Stage,
    settings: TrainSettings,
    runtime: Runtime,
    folder: Path,
    *,
    resume: bool,
    seed: int,
    overwrite: bool = False,
    budget: Budget = UNLIMITED,
) -> TrainResult:
    """Train a stage to `settings.steps`, until `settings.patience` or the budget is at its end, and write its artifact.

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
        budget: time after which training ends; a resumed one that ended for it goes on when there is more.

    Raises:
        BusyError: another process is writing to the folder.
        InputError: nothing to resume, or a fresh run without `overwrite` where there is one already.
        ArtifactError: the saved state is damaged or was made with another configuration.
        DeviceError: the device ran out of memory.
        TrainingError: too many non-finite steps, all or the last LAST_BAD of them, or a checkpoint could not be
            written.
        TrainingInterrupted: Ctrl-C or SIGTERM; everything is saved.
    """
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other", hint="give one of them")
    with exclusive(folder):
        return _train(stage, settings, runtime, folder, resume=resume, seed=seed, overwrite=overwrite, budget=budget)


def _train(
    stage: Stage,
    settings: TrainSettings,
    runtime: Runtime,
    folder: Path,
    *,
    resume: bool,
    seed: int,
    overwrite: bool,
    budget: Budget,
) -> TrainResult:
    files = RunFiles(folder, stage.kind)
    session = Session(stage, settings, runtime, seed, budget)
    earlier: list[Path] = []
    difference = None
    if resume:
        files.require_state()
        difference = load_state(files.state, session)
        finished = _finished(files, session)
        if finished is not None:
            return finished
        if not session.stopwatch.before:  # a state counts time only under a budget
            session.stopwatch = Stopwatch(budget.clock, last_metrics(files.metrics)[0], session.step)
    else:
        earlier = files.claim(overwrite=overwrite)
        seed_everything(seed)
    stage.module.train()
    with (
        StopRequest() as stop,
        Sinks(
            stage.kind, files.metrics, files.tensorboard, session.step, session.total, session.stopwatch, session.means
        ) as sinks,
        session.loader,
    ):
        saved = Checkpoints(files, session, earlier, sinks.settle)
        sinks.warn(session.step, difference, keep=False)
        _prepare(session, sinks)
        metrics = _run(session, saved, sinks, stop)
        if session.step < session.total:
            saved.save(finished=False)
            raise TrainingInterrupted(
                f"stopped at step {session.step} of {session.total}; saved to {folder}",
                hint="run the same command with --resume to go on",
            )
        header = _complete(saved, session)
        untrained = header.info["untrained"]
        if untrained:
            sinks.warn(session.step, f"{len(untrained)} declared tensors never learned: {', '.join(untrained[:5])}")
        return TrainResult(header, session.step, session.stopwatch.seconds, metrics or last_metrics(files.metrics)[1])


def _finished(files: RunFiles, session: Session) -> TrainResult | None:
    """Return the result when nothing is left to do and the artifact is that of this very state."""
    if session.step < session.total or not files.weights.is_file():
        return None
    header, tensors = read_weights(files.weights, files.kind)
    of_this = (header.info.get("finished"), header.info.get("steps")) == (True, session.step)
    result = session.result()
    if not of_this or tensors.keys() != result.keys() or moved(tensors, result):
        return None
    seconds, metrics = last_metrics(files.metrics)
    return TrainResult(header, session.step, seconds, metrics)


def _prepare(session: Session, sinks: Sinks) -> None:
    """Say what the data is like and which settings have no effect; tell the stage the plan; compile if asked to."""
    settings, stage, minutes = session.settings, session.stage, session.budget.minutes
    if minutes:
        used = session.stopwatch.before / 60
        sinks.say(f"may take {minutes:g} minutes (run.minutes){f', {used:.3g} are used' if session.step else ''}")
    if isinstance(stage, OpeningStage) and not session.step:
        opening = stage.opening()
        for line in opening.lines:
            sinks.say(line)
        for text in opening.warnings:
            sinks.warn(session.step, text)
    if settings.heldout_every and isinstance(stage, HeldoutStage) and stage.goal is None:
        idle = "; train.patience and train.keep have no effect" if settings.patience or settings.keep == "best" else ""
        sinks.warn(session.step, f"nothing is held out that this stage could be judged on{idle}", keep=False)
    if settings.recompute and not learning_parts(stage.module):
        text = "train.recompute has no effect: nothing that learns here can be computed again"
        sinks.warn(session.step, text, keep=session.step == 0)
    if settings.optimizer == "muon" and not session.optimizer.uses_muon:
        text = "train.optimizer = muon has no effect: no transformer learns here"
        sinks.warn(session.step, text, keep=session.step == 0)
    session.tell_plan()
    if session.runtime.compile:
        session.compile(lambda text: sinks.warn(session.step, text))


def _run(session: Session, saved: Checkpoints, sinks: Sinks, stop: StopRequest) -> dict[str, float]:
    """Step until the end or a stop request; returns the metrics of the last log point."""
    settings, watch = session.settings, session.watch
    metrics: dict[str, float] = {}
    judged = settings.heldout_every > 0 and is_judged(session.stage)
    leaving = session.step >= session.total
    while not leaving:
        rate = learning_rate(session.step, settings, session.total)
        outcome = take_step(session, rate)
        session.step += 1
        if outcome.fault is not None:
            session.bad_steps += 1
            session.bad_in_a_row += 1
            sinks.warn(session.step, watch.bad_step(session.step, session.bad_steps, outcome.fault))
        else:
            session.bad_in_a_row = 0
            for metrics_of_part in outcome.metrics:
                sinks.add(metrics_of_part)
            if math.isfinite(outcome.norm):  # an fp16 overflow has no norm to speak of
                sinks.warn(session.step, watch.gradient(outcome.norm))
        sinks.update(session.step)

        if session.keep_time():
            _move_end(session, sinks)
        too_bad = session.bad_steps > settings.max_bad_steps and outcome.fault is not None
        # a request to stop is no log point: sums are saved, so that a resumed run logs what an unbroken one does
        ending = too_bad or session.step == session.total
        if judged and (ending or session.step % settings.heldout_every == 0) and session.judge(measure(session)):
            _move_end(session, sinks)
            ending = too_bad or session.step == session.total
        leaving = stop.requested or ending
        checkpoint = session.step % settings.checkpoint_every == 0
        measured = session.measured()
        if ending or checkpoint or measured or session.step % settings.log_every == 0:
            metrics = sinks.log(session.step, rate, session.bad_steps, measured)
            session.follow(metrics)
            sinks.warn(session.step, watch.metrics(session.step, metrics))
        if too_bad:
            _give_up(saved, session, outcome.fault)
        if checkpoint and not leaving:
            saved.save_state()
    return metrics


def _move_end(session: Session, sinks: Sinks) -> None:
    """Let the stage and the user know that training ends earlier."""
    session.tell_plan()
    if session.course.cause == "minutes":
        why = f"of its {session.budget.minutes:g} minutes (run.minutes) {session.stopwatch.seconds / 60:.3g} are used"
        why += f" at step {session.step}"
    else:
        why = f"no progress in {session.settings.patience} held-out measurements up to step {session.step}"
    sinks.plan(session.total, f"{why}: ends at step {session.total}, not {session.settings.steps}")


def _give_up(saved: Checkpoints, session: Session, fault: str | None) -> None:
    """Save the last good weights and end the run."""
    _require_good_steps(session, fault)
    saved.save(finished=False)
    raise TrainingError(
        f"training stopped at step {session.step}: {session.bad_steps} steps were not finite, more than "
        f"max_bad_steps = {session.settings.max_bad_steps} (last: {fault}); the last good state is saved",
        hint="lower learning_rate or look at the data, then start anew with --overwrite; "
        "a higher max_bad_steps lets --resume go on",
    )


def _require_good_steps(session: Session, fault: str | None) -> None:
    """Raise TrainingError when no step was good: there is nothing to save."""
    if session.bad_steps >= session.step > 0:
        raise TrainingError(
            f"none of {session.step} steps was finite (last: {fault or 'before the resume'}); nothing was learned, "
            "no weights were written",
            hint="lower learning_rate or look at the data (`ahriuwu doctor`), then start anew with --overwrite",
        )


def _complete(saved: Checkpoints, session: Session) -> Header:
    """Save the result; TrainingError where the last steps show that training had broken down.

    Decision: LAST_BAD skipped steps in a row at the end, or nothing but skipped steps, are no finished training. The
    weights are those of before, but what the settings asked for was not done.
    """
    _require_good_steps(session, None)
    broken = session.bad_in_a_row >= LAST_BAD
    header = saved.save(finished=not broken)
    if broken:
        raise TrainingError(
            f"the last {session.bad_in_a_row} of {session.step} steps were not finite; the last good state is saved, "
            "not as finished",
            hint="lower learning_rate or look at the data, then start anew with --overwrite",
        )
    return header
