"""Whether a file is the one that a manifest lists: its hash, computed once for each file and change, at first use."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from ahriuwu_cli.core.bounds import damaged
from ahriuwu_cli.core.errors import ArtifactError
from ahriuwu_cli.core.names import listed_file
from ahriuwu_cli.core.remembered import SETTLED_NS, file_key, recall, remember
from ahriuwu_cli.core.tensorfile import metadata_of

_hashes: dict[str, str] = {}


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def content_hash(path: Path) -> str:
    """`hash_file`, remembered for as long as the file stays as it is, by other processes too (remembered.py).

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        changed = path.stat().st_mtime_ns
        key = file_key("sha256", path)
        known = _hashes.get(key) or recall(key)
        if known is not None:
            _hashes[key] = known
            return known
        computed = hash_file(path)
    except OSError as error:
        raise damaged(path, str(error)) from error
    if time.time_ns() - changed > SETTLED_NS:
        _hashes[key] = computed
        remember(key, computed)
    return computed


def require_content(folder: Path, name: str, sha256: str, *, again: str) -> Path:
    """The file of that name in a folder, when it is the one that the folder's manifest lists.

    Args:
        folder: an artifact.
        name: of a file in it, as its manifest says.
        sha256: of the file, as its manifest says.
        again: what to do when it is another: what makes it again.

    Raises:
        ArtifactError: it is missing or was changed.
    """
    path = folder / name
    if not path.exists():
        raise ArtifactError(f"{path} is missing; the manifest lists it", hint=f"restore the file, or {again}")
    path = listed_file(folder, name)
    found = content_hash(path)
    if found != sha256:
        metadata_of(path)  # says so when the file is cut short
        raise ArtifactError(
            f"{path} was changed since: its sha256 is {found[:12]}..., the manifest lists {sha256[:12]}...",
            hint=f"restore the file, or {again}",
        )
    return path
