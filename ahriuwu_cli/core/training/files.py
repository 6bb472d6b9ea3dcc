"""The files of one training stage, and who may write over them."""

from __future__ import annotations

import shutil
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

    def claim(self, *, overwrite: bool) -> None:
        """Make the folder ready for a fresh run.

        Raises:
            InputError: an artifact or a state is there and `overwrite` is false, or the folder cannot be written to.
        """
        found = [path for path in (self.state, self.weights) if path.exists()]
        if found and not overwrite:
            raise InputError(
                f"{found[0]} exists; a fresh {self.kind} training would replace it",
                hint="add --resume to go on with it, or --overwrite to start anew",
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in (self.weights, self.state, self.metrics):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.folder} cannot be written to: {error.strerror}",
                hint="choose another run folder or allow writing there",
            ) from error
        shutil.rmtree(self.tensorboard, ignore_errors=True)
