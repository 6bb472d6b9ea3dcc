"""Writing the state and the artifact of a training; the first file that is whole replaces what an earlier run left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ahriuwu_cli.core.artifact import Header, write_weights
from ahriuwu_cli.core.errors import StorageError, TrainingError
from ahriuwu_cli.core.training.files import RunFiles
from ahriuwu_cli.core.training.session import Session
from ahriuwu_cli.core.training.state import save_state


class Checkpoints:
    """What one training run writes.

    Args:
        files: where.
        session: what is written.
        earlier: files of an earlier run that this one replaces (see `RunFiles.claim`).
        settle: called when the first file is whole, before the earlier ones are let go of.
    """

    def __init__(self, files: RunFiles, session: Session, earlier: Sequence[Path], settle: Callable[[], None]) -> None:
        self._files, self._session = files, session
        self._earlier, self._settle = list(earlier), settle
        self._saved_step: int | None = session.step or None  # that of the state on disk which is of this run

    def save_state(self) -> None:
        """Write what a resume needs.

        Raises:
            TrainingError: it cannot be written.
        """
        try:
            save_state(self._files.state, self._session)
        except StorageError as error:
            raise self._unwritable(error) from error
        self._saved_step = self._session.step
        self._replace()

    def save(self, *, finished: bool) -> Header:
        """Write the state and the artifact of this very step; with an average of the weights the artifact holds that.

        Raises:
            TrainingError: one of them cannot be written.
        """
        self.save_state()
        session, fields = self._session, self._session.stage.describe()
        info = {
            **fields.info,
            "steps": session.step,
            "finished": finished,
            "untrained": session.untrained(),
            "averaged": session.average is not None,
            "heldout": session.measured() if session.kept is None else session.course.kept.values,
        }
        if session.kept is not None:
            info["kept_step"] = session.course.kept.step
        if finished:
            info["stopped"] = session.course.stopped(session.settings)
            info["trend"] = session.trends()
            if info["stopped"] == "minutes":
                info["minutes"] = session.course.minutes
        try:
            return write_weights(
                self._files.weights,
                self._files.kind,
                session.result(),
                config=fields.config,
                specs=fields.specs,
                parents=fields.parents,
                info=info,
            )
        except StorageError as error:
            raise self._unwritable(error) from error

    def _replace(self) -> None:
        """The state of this run is whole: what an earlier run left is of no more use."""
        self._settle()
        for path in self._earlier:
            if path not in (self._files.state, self._files.metrics):
                path.unlink(missing_ok=True)
        self._earlier = []

    def _unwritable(self, error: StorageError) -> TrainingError:
        """What could not be written, and what is on disk now."""
        there = [path.name for path in self._earlier if path in (self._files.state, self._files.weights)]
        if there:
            kept, then = f"of the earlier run, {' and '.join(there)} as before", "run the same command again"
        elif self._saved_step is not None:
            kept, then = f"the state of step {self._saved_step} is whole", "run the same command with --resume"
        else:
            kept, then = "nothing is saved yet", "run the same command again"
        found = error.message.partition(";")[0]
        return TrainingError(f"{found}; {kept}", hint=f"{error.hint}, then {then}")
