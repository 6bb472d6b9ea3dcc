"""The files of one training stage, and who may write over them."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from ahriuwu_cli.core.artifact import Kind
from ahriuwu_cli.core.errors import InputError


@dataclass(frozen=True)
class RunFiles:
    """Paths inside a stage's folder."""

    folder: Path
    kind: Kind

    @property
    def weights(self) -> Path:
        """The artifact."""
        return self.folder / f"{self.kind}.safetensors"

    @property
    def state(self) -> Path:
        """Everything a resume needs."""
        return self.folder / f"{self.kind}.state.safetensors"

    @property
    def metrics(self) -> Path:
        """Metrics and warnings, one JSON object per line."""
        return self.folder / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard events."""
        return self.folder / "tensorboard"

    def require_state(self) -> None:
        """Raise InputError when there is nothing to resume."""
        if not self.state.is_file():
            raise InputError(
                f"nothing to resume: {self.state} does not exist",
                hint="run the same command without --resume to start this stage",
            )

    def claim(self, *, overwrite: bool) -> list[Path]:
        """Make the folder ready for a fresh run.

        Decision: nothing is deleted here. A fresh run may never get as far as a file that is whole (a full disk, a
        step that does not fit), and until then what an earlier one left is all there is.

        Returns:
            The files of an earlier run, to be let go of when the first file of the fresh one is whole.

        Raises:
            InputError: an artifact or a state is there and `overwrite` is false, or the folder cannot be written to.
        """
        try:
            found = [path for path in (self.state, self.weights) if path.exists()]
            if found and not overwrite:
                raise InputError(
                    f"{found[0]} exists; a fresh {self.kind} training would replace it",
                    hint="add --resume to go on with it, or --overwrite to start anew",
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            events = [path for path in self.tensorboard.rglob("*") if path.is_file()]
        except OSError as error:
            blocked = error.errno in (errno.EEXIST, errno.ENOTDIR)
            reason = "a file is in its place" if blocked else error.strerror
            raise InputError(
                f"{self.folder} cannot be written to: {reason}",
                hint="choose another run folder or allow writing there",
            ) from error
        return found + [path for path in (self.metrics,) if path.exists()] + events
