"""Files that are whole or not there: written beside their place, synced, renamed over it. Imports no torch."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.errors import StorageError

TEMPORARY_SUFFIX = ".ahriuwu-tmp"
"""Ends the names of files and folders that nobody reads; only a kill leaves one behind."""
ROOM = "make room on the disk"
OPEN = "allow writing there, or choose another folder"
CLEAR = "move what is in the way, or choose another folder"
REFUSALS = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "raise the limit on file sizes (`ulimit -f`), or choose another disk",
    errno.EROFS: OPEN,
    errno.EACCES: OPEN,
    errno.EPERM: OPEN,
    errno.EEXIST: CLEAR,
    errno.ENOTDIR: CLEAR,
    errno.EISDIR: CLEAR,
    errno.ENOTEMPTY: CLEAR,
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EIO: "look at the disk: it reports a fault",
    errno.ENOMEM: "close other programs",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
}
"""What the system may refuse for reasons that are not ours, and what helps."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, fsync it and rename it over `path`.

    A crash or a full disk leaves the previous file as it was and no temporary file behind
    (a kill may leave one, which nothing reads and `remove_leftovers` removes).

    Raises:
        StorageError: the system does not let it be written.
    """
    try:
        _write(path, write)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        raise refused(path, error) from error


def refused(path: Path, error: OSError) -> StorageError:
    """What to say where the system refuses to write `path`: its own words, what is kept, what helps."""
    reason = os.strerror(error.errno or 0)
    kept = "what was there before is unchanged" if path.is_file() else "nothing was written there"
    return StorageError(
        f"could not write {path}: {reason}; {kept}", hint=REFUSALS.get(error.errno or 0, "check the path")
    )


@contextmanager
def keeping(what: str) -> Iterator[None]:
    """Let the hint of a StorageError end with what is kept, or how to go on."""
    try:
        yield
    except StorageError as error:
        error.hint = f"{error.hint}; {what}"
        raise


def temporary_name(path: Path) -> Path:
    """A name beside `path` for what may become it: a dotfile that nothing reads (see `remove_leftovers`)."""
    return path.with_name(f".{path.name}.{os.getpid()}_new{TEMPORARY_SUFFIX}")


def _write(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("r+b") as stream:  # Windows syncs only what is open for writing
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder beside `folder`, to be filled: it is moved there when all is on disk, and removed where that fails.

    `folder` is not there, or empty.

    Raises:
        StorageError: the system does not let it be written.
    """
    place = folder.absolute()
    temporary = temporary_name(place)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_dir():
                sync_folder(path)
            else:
                with path.open("r+b") as stream:  # Windows syncs only what is open for writing
                    os.fsync(stream.fileno())
        temporary.replace(place)
        sync_folder(place.parent)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        raise refused(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make new names in a folder last."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half written in `folder`; only for whoever has the folder to itself."""
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        with suppress(OSError):  # what cannot be removed harms nobody
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")
