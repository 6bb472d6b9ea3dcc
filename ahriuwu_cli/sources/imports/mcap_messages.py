"""Messages of MCAP files that hold JSON, in the order of their log times; faults of the file in words."""

from __future__ import annotations

import re
import struct
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.sources.imports.fields import Entry, parsed, plain_size
from ahriuwu_cli.sources.imports.protocol import RecordingError

MAGIC = b"\x89MCAP"
LARGEST_RECORD = 1 << 28
"""Bytes of a record, a chunk of messages say; recorders write one of them every MiB."""
NANO = 1e-9
DAMAGED = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, EOFError, struct.error),
    *(MemoryError, RuntimeError, AssertionError, OverflowError),
)
"""What mcap and the decompressors raise over damaged bytes, beside errors of their own."""
TOPICS = {
    "screen": "ScreenCaptured",
    "keyboard": "KeyboardEvent",
    "keyboard/state": "KeyboardState",
    "mouse": "MouseEvent",
    "mouse/raw": "RawMouseEvent",
}
"""What is said on a topic whose schema is not named."""


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        kind: last part of its schema's name: KeyboardEvent, say.
        time: when it was logged, in seconds.
        entry: what it says; its row is its number in the file from 1.
    """

    kind: str
    time: float
    entry: Entry


def mcap() -> Any:
    """The module mcap.reader.

    Raises:
        InputError: it is not installed.
    """
    try:
        import mcap.reader as library
    except ImportError as error:
        raise InputError(
            "MCAP files need the package mcap, which is not installed", hint="pip install 'ahriuwu[import]'"
        ) from error
    return library


def messages(path: Path, name: str, kinds: Container[str]) -> Iterator[Message]:
    """The messages of some kinds.

    Raises:
        RecordingError: the file is damaged or cut short, or a message is no JSON object.
        InputError: mcap is not installed.
    """
    library = mcap()
    from mcap.exceptions import McapError
    from zstandard import ZstdError

    plain_size(path, name)
    row = 0
    try:
        with path.open("rb") as stream:
            reader = library.SeekingReader(stream, validate_crcs=True, record_size_limit=LARGEST_RECORD)
            for schema, channel, message in reader.iter_messages():
                row += 1
                kind = TOPICS.get(channel.topic, "") if schema is None else re.split(r"[/.]", schema.name)[-1]
                if kind in kinds:
                    if channel.message_encoding != "json":
                        encoding = ascii(channel.message_encoding)[:40]
                        raise RecordingError(name, f"{kind} is written as {encoding}; expected 'json'", row=row)
                    yield Message(kind, message.log_time * NANO, Entry(parsed(message.data, name, row), name, row))
    except (McapError, ZstdError, *DAMAGED) as error:
        raise RecordingError(name, _reason(error), row=row + 1) from error


def _reason(error: Exception) -> str:
    said = str(error).splitlines()
    return f"the MCAP file is damaged or cut short: {type(error).__name__} {said[0][:150] if said else ''}".rstrip()
