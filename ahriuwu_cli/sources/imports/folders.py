"""What lies in the folders of a source: recordings beside each other, pictures in their order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.sources.imports.protocol import RecordingError

PICTURES = {".png", ".jpg", ".jpeg"}
NUMBER = re.compile(r"(\d+)")
LAST_NUMBER = re.compile(r"\d+$")


def natural(path: Path) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts names with numbers in them as people count: frame 2 before frame 10."""
    parts = NUMBER.split(path.name)
    return tuple((1, int(part), part) if part.isdecimal() and part.isascii() else (0, 0, part) for part in parts)


def inside(folder: Path) -> list[Path]:
    """Everything in a folder but what is hidden, in natural order.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=natural)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from error


def pictures_of(folder: Path) -> list[Path]:
    """PNG and JPEG files in a folder, in natural order; empty where there is no such folder."""
    if not folder.is_dir():
        return []
    return [path for path in inside(folder) if path.suffix.lower() in PICTURES]


def has_pictures(folder: Path, fewest: int) -> bool:
    """Whether so many PNG or JPEG files, or more, are in a folder; it is looked through no further than that."""
    try:
        found = (path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.name[0] != ".")
        return len(list(islice(found, fewest))) == fewest
    except OSError:  # no folder, or one that nobody may read
        return False


def folders_of(source: Path, is_recording: Callable[[Path], bool], depth: int = 1) -> Iterator[Path]:
    """`source` itself where it is a recording, else the folders in it that are, down to `depth` levels."""
    if is_recording(source):
        yield source
    elif depth and source.is_dir():
        for path in inside(source):
            if path.is_dir():
                yield from folders_of(path, is_recording, depth - 1)


def counted_from_zero(pictures: list[Path], name: str) -> list[Path]:
    """Pictures whose names end in 0, 1, 2 ..., each once, in that order.

    Raises:
        RecordingError: one is missing, there twice, or without a number.
    """
    found: dict[int, Path] = {}
    for path in pictures:
        match = LAST_NUMBER.search(path.stem)
        if match is None:
            raise RecordingError(name, f"{ascii(path.name)[:80]} has no number at its end; expected frames by number")
        if int(match[0]) in found:
            raise RecordingError(name, f"frame {int(match[0])} is there twice", row=int(match[0]))
        found[int(match[0])] = path
    for number in range(len(found)):
        if number not in found:
            raise RecordingError(
                name, f"the picture of frame {number} is missing; expected all from 0 to {max(found)}", row=number
            )
    return [found[number] for number in range(len(found))]


def named_path(root: Path, name: str, named_in: str) -> Path:
    """The path in a source that one of its files names.

    Args:
        root: folder of the source.
        name: relative path, with `/`.
        named_in: the file that names it, for messages.

    Raises:
        RecordingError: it leads out of the folder, as it is written or through a link.
    """
    parts = name.replace("\\", "/").split("/")
    if not name or "\0" in name or ".." in parts or parts[0] == "" or ":" in parts[0]:
        raise RecordingError(named_in, f"names {ascii(name)[:80]}; expected a path inside the folder")
    path = root.joinpath(*parts)
    try:
        fine = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name that no system has
        fine = False
    if not fine:
        raise RecordingError(
            named_in,
            f"names {ascii(name)[:80]}, a link that leads out of the folder",
            hint="copy the folder with what its links point to (cp -rL)",
        )
    return path
