"""The latents of one episode, in a file of their own, written and read a few rows at a time.

Shapes: K latents of an episode (one for every `stride` frames), k of a piece, N latent tokens, C channels per token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ahriuwu_cli.core.artifact import RowsHash, canonical
from ahriuwu_cli.core.errors import ArtifactError, DataError
from ahriuwu_cli.core.files import write_atomically
from ahriuwu_cli.core.loading import reading
from ahriuwu_cli.core.tensorfile import TensorFileWriter, open_tensors

LATENTS = "latents"
MADE_FROM = "made_from"
"""Key of a file's metadata: tokenizer, episode and dtype its latents were made from, and their hash."""
DTYPES = {"float16": torch.float16, "float32": torch.float32}
ROWS = 4096
"""Latents that are read together."""
FINITE_HINT = 'look at the tokenizer (`ahriuwu doctor`); where its latents are beyond 65,504, latents.dtype = "float32"'
UNKNOWN = "0" * 64


def write_latents(
    path: Path, pieces: Iterable[Tensor], shape: tuple[int, int, int], source: Mapping[str, str], episode: str
) -> None:
    """Write latents (K, N, C) that come in pieces (k, N, C), as the type that `source` names.

    Args:
        path: of the file.
        pieces: in order; K rows in all.
        shape: K, N, C.
        source: what they are made from: tokenizer, episode, dtype.
        episode: its id, for messages.

    Raises:
        DataError: a latent is not finite in its type (pitfall 15); nothing is written then.
        StorageError: it cannot be written.
    """
    dtype = DTYPES[source["dtype"]]

    def save(temporary: Path) -> None:
        digest, row = RowsHash(LATENTS, dtype, shape), 0
        with temporary.open("r+b") as stream:
            layout = {LATENTS: (np.dtype(source["dtype"]), shape)}
            writer = TensorFileWriter(stream, layout, _origin(source, UNKNOWN))
            for piece in pieces:
                rows = piece.to(dtype)
                if not torch.isfinite(rows).all():
                    raise DataError(f"the latents of episode {episode} are not finite as {dtype}", hint=FINITE_HINT)
                array = rows.numpy()
                writer.put(LATENTS, row, array)
                digest.add(array)
                row += len(array)
            assert row == shape[0], "every frame has its latent"
            writer.say(_origin(source, digest.hexdigest()))

    write_atomically(path, save)


class LatentFile:
    """The latents of a file, read by rows.

    Raises:
        ArtifactError: it is missing, damaged, or holds no latents.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = open_tensors(path, "np")
        with reading(path):
            self._rows = self._handle.get_slice(LATENTS)
            self.shape = tuple(self._rows.get_shape())
            if len(self.shape) != 3:
                raise ArtifactError(
                    f"{path} has latents {self.shape}; expected three dimensions", hint="build it again"
                )

    def __len__(self) -> int:
        return int(self.shape[0])

    def origin(self) -> str | None:
        """What it says that it was made from, with the hash of its latents; None for an older file."""
        return (self._handle.metadata() or {}).get(MADE_FROM)

    def pieces(self) -> Iterator[np.ndarray]:
        """Latents (k, N, C) in order, up to ROWS at a time."""
        for start in range(0, len(self), ROWS):
            with reading(self._path):
                yield np.array(self._rows[start : min(start + ROWS, len(self))])

    def content(self) -> str:
        """The hash of its latents, computed anew."""
        digest: RowsHash | None = None
        for piece in self.pieces():
            if digest is None:
                digest = RowsHash(LATENTS, torch.from_numpy(piece).dtype, self.shape)
            digest.add(piece)
        return UNKNOWN if digest is None else digest.hexdigest()


def is_made_from(path: Path, source: Mapping[str, str]) -> bool:
    """Whether a file is there, whole, and of this tokenizer, episode and type (pitfall 20)."""
    if not path.is_file():
        return False
    try:
        file = LatentFile(path)
        wanted: str = _origin(source, file.content())[MADE_FROM]
        return file.origin() == wanted
    except ArtifactError:
        return False  # damaged: it is made again


def _origin(source: Mapping[str, str], content: str) -> dict[str, str]:
    # one entry: several would be written in any order
    return {MADE_FROM: canonical({**source, "content": content})}
