"""Errors a user can cause and mend: one line that says what is wrong, one hint that says what to do."""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CHECK = 3
EXIT_INTERRUPTED = 130


class AhriuwuError(Exception):
    """A mistake that the command line shows as `error: ...` and `hint: ...`, never as a traceback.

    Args:
        message: what was found and what was expected, in one line.
        hint: what to do about it, in one line.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class ConfigError(AhriuwuError):
    """A run config, preset or `--set` override that cannot be used."""

    exit_code = EXIT_USAGE


class InputError(AhriuwuError):
    """A path, name or flag on the command line that cannot be used."""

    exit_code = EXIT_USAGE


class BusyError(AhriuwuError):
    """A folder that another process is writing to."""

    exit_code = EXIT_FAILED


class DeviceError(AhriuwuError):
    """A device, precision or memory need that this machine cannot meet."""

    exit_code = EXIT_USAGE


class ArtifactError(AhriuwuError):
    """A file on disk that is damaged, of another kind, or made by other parents."""

    exit_code = EXIT_CHECK


class DataError(AhriuwuError):
    """Recorded values that break their own declaration (an action outside its range, say)."""

    exit_code = EXIT_CHECK


class ForeignError(AhriuwuError):
    """Other people's code (an environment, its module, its expert) that failed or does not keep to its interface.

    Args:
        message: whose code, in what, and what happened.
        hint: what to do about it.
        place: file and line of theirs; empty where none of their lines was running.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str, place: str = "") -> None:
        super().__init__(message, hint=hint)
        self.place = place


class StorageError(AhriuwuError):
    """A file that the system does not let us write: disk full, read-only, something in its place."""

    exit_code = EXIT_FAILED


class PlayError(AhriuwuError):
    """An agent that could not play to the end; what was played is kept."""

    exit_code = EXIT_FAILED


class TrainingError(AhriuwuError):
    """A training run that cannot go on (too many non-finite losses, say)."""

    exit_code = EXIT_FAILED


class TrainingInterrupted(AhriuwuError):
    """A training run that was asked to stop; its state is saved."""

    exit_code = EXIT_INTERRUPTED
