"""Whether an artifact was made from what lies in the run: parents compared by fingerprint, grown ones accepted."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import cast

from ahriuwu_cli.core.artifact import MANIFEST_NAME, Header, Kind, read_header
from ahriuwu_cli.core.lineage import is_parent, require_parent
from ahriuwu_cli.pipeline.config import Run


def require_chain(run: Run, path: Path, kind: Kind) -> None:
    """Refuse an artifact whose parents in the run are neither those it was made from nor have grown from them.

    A parent that is not there is let through: a stage can run where only what it reads was copied to.

    Raises:
        InputError: `path` is missing.
        ArtifactError: it is of another kind or damaged, or a parent differs; both fingerprints are named.
    """
    header = read_header(path, kind)
    for place, found in _parents(run, header):
        require_parent(path, header, place, found)


def is_current(run: Run, path: Path, kind: Kind, *, same: Container[str] = ()) -> bool:
    """True when the artifact is there and every parent in the run is the one it was made from, or has grown from it.

    Args:
        run: where the parents lie.
        path: the artifact.
        kind: of the artifact.
        same: kinds of parents that must not have grown since.

    Raises:
        ArtifactError: it, or a parent, is of another kind or damaged.
    """
    if not _present(path):
        return False
    header = read_header(path, kind)
    return all(
        header.parents[found.kind] == found.fingerprint if found.kind in same else is_parent(header, found)
        for _, found in _parents(run, header)
    )


def examples_of(kind: Kind) -> Kind:
    """What a training of this kind draws its examples from."""
    return "episodes" if kind == "tokenizer" else "packed"


def _parents(run: Run, header: Header) -> Iterator[tuple[Path, Header]]:
    """The parents that lie in the run now, each with its path."""
    for kind in cast("dict[Kind, str]", header.parents):
        place: Path = getattr(run, kind)
        if _present(place):
            yield place, read_header(place, kind)


def _present(path: Path) -> bool:
    return (path / MANIFEST_NAME).is_file() if path.is_dir() else path.is_file()
