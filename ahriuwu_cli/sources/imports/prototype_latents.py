"""Kind `prototype-latents`: what the first prototype's tokenizers made of its frames; told apart, and not imported.

Latents are no recordings: episodes have frames, which the tokenizer, its decoder and every evaluation here need, and
nobody can make frames of latents without the tokenizer that made them (see prototype_checkpoint.py for why that one
does not come over). What they were made of does: the frames and actions of kind `prototype`.

Layouts: `<video>/latent_000000.npy` ... (C, 16, 16), and packed `<id>.npz` or `<id>.pt` with `latents` (N, C, 16, 16)
and `frame_indices` (N,).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.sources.imports.archive import UNREADABLE, Archive
from ahriuwu_cli.sources.imports.folders import folders_of, inside
from ahriuwu_cli.sources.imports.protocol import RecordingError, Source
from ahriuwu_cli.sources.imports.torch_files import mentions

LATENTS, NUMBERS = "latents", "frame_indices"


class PrototypeLatentsImporter:
    """See Importer. It tells what there is, and refuses."""

    KIND = "prototype-latents"
    SAYS = "latents of the first prototype: refused in words, since frames cannot be made of them"
    EXTRA: str | None = None

    def detect(self, source: Path) -> str | None:
        """See Importer."""
        with suppress(InputError, OSError):
            return _seen(source)
        return None

    def open_source(self, source: Path, options: Mapping[str, Any]) -> Source:
        """See Importer.

        Raises:
            InputError: always.
        """
        del options
        seen = _seen(source)
        if seen is None:
            raise InputError(
                f"{source} has no latents of the first prototype",
                hint="they are <video>/latent_000000.npy ..., or <id>.npz and <id>.pt with latents and frame_indices",
            )
        raise InputError(
            f"{source} has {seen}: latents are no episodes, and without their tokenizer no frames can be made of them",
            hint="import their frames (`ahriuwu data import prototype FOLDER`), then run `ahriuwu latents build`",
        )


def _seen(source: Path) -> str | None:
    """What latents there are, in words; None where there are none."""
    packed = [path for path in ([source] if source.is_file() else inside(source)) if _is_packed(path)]
    if packed:
        return f"latents of {len(packed)} videos, packed{_shape_packed(packed[0])}"
    first = next(folders_of(source, _has_files), None)
    if first is None:
        return None
    videos = sum(1 for _ in folders_of(source, _has_files))
    return f"latents of {videos} videos, a file for each frame{_shape(first)}"


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and (folder / "latent_000000.npy").is_file()


def _is_packed(path: Path) -> bool:
    if path.suffix == ".npz" and path.is_file():
        with suppress(RecordingError):
            return {LATENTS, NUMBERS} <= set(Archive(path, path.name).names())
    return path.suffix == ".pt" and mentions(path, LATENTS, NUMBERS)


def _shape(folder: Path) -> str:
    with suppress(*UNREADABLE):
        shape = np.load(folder / "latent_000000.npy", mmap_mode="r", allow_pickle=False).shape
        return f" of {'x'.join(map(str, shape))}"
    return ""


def _shape_packed(path: Path) -> str:
    with suppress(RecordingError):
        if path.suffix == ".npz":
            shape = Archive(path, path.name).shape(LATENTS)
            return f" ({path.name}: {'x'.join(map(str, shape))})"
    return ""
