"""Safetensors files: written atomically, opened within bounds."""

from __future__ import annotations

import errno
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ahriuwu_cli.core.bounds import MAX_HEADER_BYTES, damaged, require_file
from ahriuwu_cli.core.files import write_atomically

LENGTH_BYTES = 8  # of the number that a safetensors file begins with: the size of its header


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata_text: dict[str, str]) -> None:
    """Write tensors and metadata as one safetensors file, atomically.

    Raises:
        StorageError: the system does not let it be written.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def save(temporary: Path) -> None:
        try:
            save_file(plain, str(temporary), metadata=metadata_text)
        except SafetensorError as error:  # tells what the system said as text
            code = re.search(r"os error (\d+)", str(error))
            raise OSError(int(code[1]) if code else errno.EIO, str(error)) from error

    write_atomically(path, save)


class TensorFileWriter:
    """Fills the arrays of a safetensors file whose sizes are known, a few rows at a time, in any order.

    Args:
        stream: an empty file, open for writing.
        layout: type and shape of every array.
        metadata_text: as in `write_tensors`.
    """

    def __init__(
        self, stream: IO[bytes], layout: Mapping[str, tuple[Any, tuple[int, ...]]], metadata_text: Mapping[str, str]
    ) -> None:
        self._stream = stream
        self._places: dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]] = {}
        header: dict[str, Any] = {"__metadata__": dict(metadata_text)} if metadata_text else {}
        end = 0
        for name in sorted(layout, key=lambda name: (-np.dtype(layout[name][0]).itemsize, name)):
            dtype, shape = np.dtype(layout[name][0]), tuple(map(int, layout[name][1]))
            start, end = end, end + dtype.itemsize * math.prod(shape)
            header[name] = {"dtype": STORED_TYPES[dtype.name], "shape": list(shape), "data_offsets": [start, end]}
            self._places[name] = start, dtype, shape
        self._header = header
        text = self._text()
        stream.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        self._begin = LENGTH_BYTES + len(text)
        stream.truncate(self._begin + end)

    def say(self, metadata_text: Mapping[str, str]) -> None:
        """Other metadata than those at the beginning, of the same length: what is only known at the end."""
        self._header["__metadata__"] = dict(metadata_text)
        text = self._text()
        assert len(text) == self._begin - LENGTH_BYTES, "there is room for what was announced"
        self._stream.seek(LENGTH_BYTES)
        self._stream.write(text)

    def _text(self) -> bytes:
        text = json.dumps(self._header, separators=(",", ":")).encode()
        return text + b" " * (-len(text) % 8)

    def put(self, name: str, row: int, rows: np.ndarray) -> None:
        """Write `rows` of one array from row number `row` on."""
        start, dtype, shape = self._places[name]
        assert rows.dtype == dtype and rows.shape[1:] == shape[1:] and row + len(rows) <= shape[0]
        self._stream.seek(self._begin + start + row * dtype.itemsize * math.prod(shape[1:]))
        self._stream.write(np.ascontiguousarray(rows).data.cast("B") if rows.size else b"")


STORED_TYPES = {
    "bool": "BOOL", "uint8": "U8", "int32": "I32", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip
"""What a safetensors header calls them."""


def open_tensors(path: Path, framework: str) -> Any:
    """An open safetensors file (`safe_open`), to be used as a context or kept.

    Raises:
        ArtifactError: no plain file, cut short, damaged, or with a header beyond all measure.
    """
    size = require_file(path)
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        if LENGTH_BYTES + length > size:
            raise damaged(path, f"it has {size} bytes, fewer than its header says")
        if length > MAX_HEADER_BYTES:
            raise damaged(path, f"its header has {length:,} bytes; expected at most {MAX_HEADER_BYTES:,}")
        return safe_open(str(path), framework=framework)
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, str(error)) from error


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file.

    Raises:
        ArtifactError: see `open_tensors`.
    """
    with open_tensors(path, "pt") as handle:
        return dict(handle.metadata() or {})


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, on the CPU."""
    return dict(_read(path, "pt"))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a safetensors file as NumPy."""
    return dict(_read(path, "np"))


def _read(path: Path, framework: str) -> dict[str, Any]:
    with open_tensors(path, framework) as handle:
        try:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise damaged(path, str(error)) from error  # a type that the framework has not
