"""What was found out about files once and need not be found out again: a small database that can be thrown away.

It lies in the user's folder of caches (`XDG_CACHE_HOME` first) as `ahriuwu/remembered.sqlite`. Where it cannot be used,
nothing is remembered and everything is found out each time. Whether what it says is still true is for the key to say:
it names the file's place on the disk, its size and its times of change.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

SETTLED_NS = 100_000_000
"""A file written more recently may change again without its times showing it: nothing is remembered of it."""
ROOM = 1_000_000
"""Entries; with more, the oldest half is forgotten."""

_lock = Lock()
_open: dict[tuple[Path, int], sqlite3.Connection | None] = {}  # by place and process: a fork must not share one
_ignored = 0


def cache_folder() -> Path:
    """The folder of caches of this user."""
    named = os.environ.get("XDG_CACHE_HOME")
    if named:
        return Path(named) / "ahriuwu"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ahriuwu"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "ahriuwu" / "Cache"
    return Path.home() / ".cache" / "ahriuwu"


def file_key(kind: str, path: Path) -> str:
    """What stays the same for as long as a file does."""
    found = path.stat()
    return f"{kind}:{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"


def recall(key: str) -> str | None:
    """What was remembered; None where nothing was, or nothing may be."""
    with _lock:
        connection = None if _ignored else _connection()
        if connection is None:
            return None
        with suppress(sqlite3.Error):
            row = connection.execute("SELECT value FROM remembered WHERE key = ?", (key,)).fetchone()
            return None if row is None else str(row[0])
        return None


def remember(key: str, value: str) -> None:
    """Keep a value for other processes; where that fails it is found out again."""
    with _lock:
        connection = _connection()
        if connection is not None:
            with suppress(sqlite3.Error), connection:
                connection.execute("INSERT OR REPLACE INTO remembered VALUES (?, ?)", (key, value))


@contextmanager
def nothing_remembered() -> Iterator[None]:
    """Find everything out anew, whatever was remembered."""
    global _ignored  # noqa: PLW0603 (one switch for the process)
    _ignored += 1
    try:
        yield
    finally:
        _ignored -= 1


def _connection() -> sqlite3.Connection | None:
    path = cache_folder() / "remembered.sqlite"
    key = path, os.getpid()
    if key not in _open:
        _open[key] = _opened(path)
    return _open[key]


def _opened(path: Path) -> sqlite3.Connection | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=1.0, check_same_thread=False)
        connection.execute("PRAGMA synchronous = OFF")  # what is lost is found out again
        connection.execute("CREATE TABLE IF NOT EXISTS remembered (key TEXT PRIMARY KEY, value TEXT)")
        (count,) = connection.execute("SELECT COUNT(*) FROM remembered").fetchone()
        if count > ROOM:
            with connection:
                connection.execute(
                    "DELETE FROM remembered WHERE rowid IN (SELECT rowid FROM remembered ORDER BY rowid LIMIT ?)",
                    (count // 2,),
                )
    except (sqlite3.Error, OSError):
        return None
    return connection
