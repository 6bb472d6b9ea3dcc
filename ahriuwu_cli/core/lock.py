"""Exclusive access to an artifact folder: one process writes into it at a time, and says who it is. Imports no torch.

The lock is a file in the folder: locked by the kernel while its holder lives, and with the holder's name as text. The
kernel's lock ends with the process, however that ends. The text is there to be told, and decides where the kernel's
lock says nothing: on a file system without locks, or on one that is shared by machines which do not see each other's.

Decision: the lock file is in the folder, not beside it, since a folder may be mounted under other names elsewhere. It
never counts as content (`contents`), and it is gone when nobody holds it.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ahriuwu_cli.core.errors import BusyError, InputError
from ahriuwu_cli.core.files import TEMPORARY_SUFFIX, remove_leftovers

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = ".ahriuwu-lock"
MOST_COMMAND = 200
"""Characters of the holder's command line that are told."""
SETTLE_SECONDS = 0.05
"""How long a holder may take to write its name."""
TURN_SECONDS = 0.1
"""How often whoever waits for a folder asks again."""
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
"""What a file system without locks answers."""

_held: set[Path] = set()  # folders this process has: a command may call stages that lock the same folder


@dataclass(frozen=True)
class Holder:
    """Who has a folder.

    Attributes:
        pid: process id.
        host: name of its machine.
        machine: the machine's own id, empty where it has none.
        boot: id of the machine's running kernel, empty where it has none.
        started: when the process began, in the kernel's ticks; empty where the kernel does not say.
        command: its command line.
        since: date and time in UTC.
    """

    pid: int
    host: str
    machine: str
    boot: str
    started: str
    command: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (`{self.command}`) since {self.since}"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Have `folder` to oneself; it is made when absent, and removed at the end if it was made and is empty.

    What a killed process left half written there is removed. A process that has the folder already may come again.

    Raises:
        BusyError: another process has it.
        InputError: the folder cannot be written to.
    """
    place = Path(os.path.realpath(folder))
    if place in _held:
        yield
        return
    made = [path for path in (place, *place.parents) if not path.exists()]
    try:
        descriptor = _acquire(place, folder)
    except OSError as error:
        blocked = error.errno in (errno.EEXIST, errno.ENOTDIR)
        raise InputError(
            f"{folder} cannot be written to: {'a file is in its place' if blocked else error.strerror}",
            hint="choose another run folder or allow writing there",
        ) from error
    _held.add(place)
    try:
        remove_leftovers(place)
        yield
    finally:
        _held.discard(place)
        _release(place / LOCK_NAME, descriptor)
        _remove_empty(made)


@contextmanager
def in_turn(folder: Path, wait: Callable[[str], None]) -> Iterator[None]:
    """As `exclusive`, but another process that has the folder is waited for; `wait` is told once who that is."""
    with ExitStack() as held:
        told = False
        while True:
            try:
                held.enter_context(exclusive(folder))
                break
            except BusyError as busy:
                if not told:
                    wait(busy.message)
                told = True
                time.sleep(TURN_SECONDS)
        yield


def is_ours(folder: Path) -> bool:
    """True while this process has the folder."""
    return Path(os.path.realpath(folder)) in _held


def contents(folder: Path) -> list[Path]:
    """What a folder holds: all but locks and what a killed process left half written."""
    return [path for path in folder.iterdir() if path.name != LOCK_NAME and not path.name.endswith(TEMPORARY_SUFFIX)]


# ---------------------------------------------------------------- the lock file


def _acquire(place: Path, folder: Path) -> int:
    """Lock the folder's lock file and write this process into it; returns its descriptor."""
    path = place / LOCK_NAME
    while True:
        place.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # whoever made the folder has just removed it
            continue
        try:
            locked = _lock(descriptor)
            holder = _read(descriptor, patient=locked is False)
            if locked is False or (holder is not None and not _is_gone(holder, locked=locked is not None)):
                raise _busy(folder, path, holder)
            if _is_file(path, descriptor):
                mine = _this_process()
                _write(descriptor, mine)
                if locked or _settled(path, descriptor, mine):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the holder before has removed this file: its next one is another


def _release(path: Path, descriptor: int) -> None:
    if fcntl is None:  # an open file cannot be removed there
        os.close(descriptor)
        path.unlink(missing_ok=True)
        return
    try:
        if _is_file(path, descriptor):  # and not one that came when somebody had removed this one
            path.unlink()
    except OSError:
        os.ftruncate(descriptor, 0)  # a file that cannot be removed names nobody
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # for a child that has the descriptor too
    os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Take the kernel's lock: True when it is ours, False when another has it, None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


def _is_file(path: Path, descriptor: int) -> bool:
    """True while the open file is the one at `path`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _settled(path: Path, descriptor: int, mine: Holder) -> bool:
    """Without a kernel's lock two may have written at once: whose name is there a moment later has it."""
    time.sleep(SETTLE_SECONDS)
    return _is_file(path, descriptor) and _read(descriptor) == mine


def _read(descriptor: int, *, patient: bool = False) -> Holder | None:
    """The holder that the file names; None when it names nobody."""
    for attempt in range(4 if patient else 1):
        if attempt:
            time.sleep(SETTLE_SECONDS)
        os.lseek(descriptor, 0, os.SEEK_SET)
        text = os.read(descriptor, 1 << 14)
        with suppress(ValueError, TypeError):
            return Holder(**json.loads(text))
    return None


def _write(descriptor: int, holder: Holder) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(asdict(holder)).encode())
    os.fsync(descriptor)


# ---------------------------------------------------------------- who holds it


def _this_process() -> Holder:
    return Holder(
        pid=os.getpid(),
        host=socket.gethostname(),
        machine=_text("/etc/machine-id"),
        boot=_text("/proc/sys/kernel/random/boot_id"),
        started=_started(os.getpid()),
        command=shlex.join(["ahriuwu", *sys.argv[1:]])[:MOST_COMMAND],
        since=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
    )


def _is_gone(holder: Holder, *, locked: bool) -> bool:
    """True when a holder that left its name has surely ended; another machine's is never presumed dead.

    Args:
        holder: as the file names it.
        locked: the kernel's lock is ours, which on the holder's own machine says that the holder has ended.
    """
    here = _this_process()
    if locked and here.boot and holder.boot == here.boot:  # also of another container on this kernel
        return True
    if (holder.host, holder.machine) != (here.host, here.machine):
        return False
    if locked or holder.boot != here.boot:
        return True
    return not _is_alive(holder)


def _is_alive(holder: Holder) -> bool:
    """True unless no process of this machine has the holder's id and start."""
    if os.name != "posix":
        return True  # asking there would end it
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return holder.started == _started(holder.pid)


def _started(pid: int) -> str:
    """Start of a process in ticks since boot: field 22 of its stat, counted from the name's closing bracket."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _busy(folder: Path, path: Path, holder: Holder | None) -> BusyError:
    if holder is None:
        who, hint = "another process", "wait until it has ended"
    elif holder.host == socket.gethostname() and _is_alive(holder):
        who, hint = str(holder), f"wait until it has ended, or stop it with `kill {holder.pid}`"
    else:
        who, hint = str(holder), f"wait until it has ended; if it runs no more, remove {path}"
    return BusyError(f"{folder} is being written to by {who}", hint=hint)


def _remove_empty(made: list[Path]) -> None:
    with suppress(OSError):
        for path in made:
            path.rmdir()
