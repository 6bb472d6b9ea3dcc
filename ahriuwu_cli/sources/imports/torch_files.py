"""Files that torch.save wrote, from outside: nothing in them is run."""

from __future__ import annotations

import pickle
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.sources.imports.archive import UNREADABLE

LOOKED_AT = 1 << 16
"""Bytes of the pickle in which names are looked for; those of the outermost keys come early."""


def mentions(path: Path, *names: str) -> bool:
    """Whether a file is one of torch.save that has these names in it. Nothing is unpickled."""
    try:
        with zipfile.ZipFile(path) as file:
            inner = next((name for name in file.namelist() if name.endswith("data.pkl")), None)
            if inner is None:
                return False
            with file.open(inner) as stream:
                content = stream.read(LOOKED_AT)
    except UNREADABLE:
        return False
    return all(name.encode() in content for name in names)


def load_plain(path: Path) -> Any:
    """What torch.save wrote: tensors (mapped, not read), numbers, text, and options of a command line.

    Raises:
        InputError: it is no such file, or it would run code.
    """
    import torch

    try:
        with torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path} holds more than tensors and plain values, and is not loaded: {reason}",
            hint="load it where it was made, and save its model_state_dict alone",
        ) from error
    except (*UNREADABLE, AttributeError, AssertionError) as error:
        said = str(error).splitlines()
        reason = said[0][:200] if said else type(error).__name__
        raise InputError(f"{path} cannot be read as a file of torch.save: {reason}", hint="restore the file") from error
