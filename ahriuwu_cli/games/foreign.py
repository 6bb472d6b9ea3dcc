"""The boundary to other people's code: an environment, its module or its expert fails here, under its own name.

While such code runs, what it prints goes to stderr (Python's prints and those of C libraries): stdout is for data.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any, TextIO

import ahriuwu_cli
from ahriuwu_cli.core.errors import AhriuwuError, ForeignError

HINT = "this is not ahriuwu's code: mend that line, or ask the environment's authors"
PASSED = (AhriuwuError, KeyboardInterrupt, GeneratorExit, MemoryError)
"""What goes through the boundary as it is."""


class Foreign:
    """`with Foreign("CartPole-v1", "step"):` around every call of code that is not ours.

    Whatever goes wrong inside becomes one error that says whose fault it is and where; a stop (Ctrl-C, SIGTERM) stays
    one, and `sys.exit` is a failure like any other, not a way to end our command. An exception of our own code, with
    no line of theirs on the stack, stays what it is.

    Args:
        who: what the code is called in messages: the environment's id.
        doing: the call, as in "failed in ...".
        hint: what to do about a failure.

    Raises:
        ForeignError: when left by an exception.
    """

    def __init__(self, who: str, doing: str, hint: str = HINT) -> None:
        self._who, self._doing, self._hint = who, doing, hint

    def __enter__(self) -> None:
        _STDOUT.divert()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        _STDOUT.restore()
        if error is None or isinstance(error, PASSED) or not _crosses(error):
            return
        place = place_of(error)
        where = f" ({place})" if place else ""
        message = f"{self._who} failed in {self._doing}: {_described(error)}{where}"
        raise ForeignError(message, hint=self._hint, place=place) from error


def _described(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r})"
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception that cannot say what it is
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# ---------------------------------------------------------------- whose line it was


def place_of(error: BaseException) -> str:
    """File, line and function of theirs at which an error was raised; empty where none is on the stack.

    Files of the user's own come before installed packages; Python's, Gymnasium's and our own are never named.
    """
    stacks = [list(_frames(link)) for link in _chain(error)]
    stacks[0] = stacks[0][1:]  # the `with` itself
    for rank in (0, 1):
        for stack in stacks:
            found = [frame for frame in stack if _rank(frame[0]) == rank]
            if found:
                file, line, function = found[-1]
                return f"{_shown(file)}, line {line}" + (f", in {function}" if function else "")
    return ""


def _crosses(error: BaseException) -> bool:
    """False for an error of our own code: raised by a line of ours, with none of theirs on the stack."""
    frames = list(_frames(error))[1:]  # the first one is the `with` itself
    return isinstance(error, SystemExit) or not frames or not _is_own(frames[-1][0]) or bool(place_of(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those it was raised from: Gymnasium raises anew what an environment's constructor raised."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _frames(error: BaseException) -> Iterator[tuple[str, int, str]]:
    trace: TracebackType | None = error.__traceback__
    for frame, line in walk_tb(trace):
        yield frame.f_code.co_filename, line, frame.f_code.co_name
    if isinstance(error, SyntaxError) and error.filename:
        yield error.filename, error.lineno or 0, ""


def _rank(file: str) -> int | None:
    """0 for a file of the user's own, 1 for an installed package, None for what is not the environment's."""
    if file.startswith("<") or _is_own(file):
        return None
    places = _places()
    for folder in places["installed"]:
        if file.startswith(folder):
            package = Path(file).relative_to(folder).parts[0]
            return None if package in ("gymnasium", "numpy", "torch") else 1
    return None if file.startswith(places["python"]) else 0


def _is_own(file: str) -> bool:
    return file.startswith(_places()["own"])


@cache
def _places() -> dict[str, tuple[str, ...]]:
    paths = sysconfig.get_paths()
    return {
        "own": (str(Path(ahriuwu_cli.__file__).parent) + os.sep,),
        "installed": tuple({paths["purelib"] + os.sep, paths["platlib"] + os.sep}),
        "python": tuple({paths["stdlib"] + os.sep, paths["platstdlib"] + os.sep}),
    }


def _shown(file: str) -> str:
    """A file as it is named from here."""
    with suppress(OSError, ValueError):
        return str(Path(file).relative_to(Path.cwd()))
    return file


# ---------------------------------------------------------------- what it prints


class _Stdout:
    """Turns stdout to stderr, for Python and for the process, while at least one boundary is open."""

    def __init__(self) -> None:
        self._depth = 0
        self._python: TextIO | None = None
        self._process: int | None = None

    def divert(self) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        self._python, self._process = sys.stdout, None
        _flush(self._python)
        with suppress(OSError):  # closed by whoever started us
            self._process = os.dup(1)
            os.dup2(2, 1)
        sys.stdout = sys.stderr

    def restore(self) -> None:
        self._depth -= 1
        if self._depth:
            return
        _flush(sys.stdout)
        _flush(self._python)  # foreign code may have kept it from before
        _flush_libraries()
        if self._process is not None:
            os.dup2(self._process, 1)
            os.close(self._process)
        sys.stdout = self._python  # type: ignore[assignment]


_STDOUT = _Stdout()


def _flush(stream: TextIO | None) -> None:
    if stream is not None:
        with suppress(OSError, ValueError):  # closed, or nobody reads it
            stream.flush()


def _flush_libraries() -> None:
    library = _libc()
    if library is not None:
        library.fflush(None)


@cache
def _libc() -> Any:
    with suppress(OSError, TypeError, AttributeError):
        library = ctypes.CDLL(None)
        library.fflush.restype = ctypes.c_int
        return library
    return None
