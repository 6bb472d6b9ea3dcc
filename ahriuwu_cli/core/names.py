"""Names that manifests give to episodes and files: checked by their type, so that no path leaves its folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from ahriuwu_cli.core.bounds import require_file
from ahriuwu_cli.core.errors import ArtifactError

TENSOR_SUFFIX = ".safetensors"
VIDEO_SUFFIX = ".mp4"
LONGEST_NAME = 200
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{number}" for name in ("com", "lpt") for number in range(10))}
"""What Windows takes for a device, whatever follows the first dot."""


def plain_name(name: str) -> str:
    """`name`, when it is that of a file right inside a folder on every system.

    Raises:
        ValueError: it is empty or long, has a separator, begins or ends with a dot, or is a device.
    """
    fine = PLAIN.fullmatch(name) and len(name) <= LONGEST_NAME and not name.endswith(".")
    if not fine or name.partition(".")[0].lower() in DEVICES:
        raise ValueError(f"{name[:60]!r} is no file name; expected letters, digits, '_', '-' and '.' only")
    return name


def tensor_file_name(name: str) -> str:
    """`plain_name` of a safetensors file.

    Raises:
        ValueError: it is none.
    """
    if not plain_name(name).endswith(TENSOR_SUFFIX):
        raise ValueError(f"{name!r} is no name of a {TENSOR_SUFFIX} file")
    return name


def video_file_name(name: str) -> str:
    """`plain_name` of a video file.

    Raises:
        ValueError: it is none.
    """
    if not plain_name(name).endswith(VIDEO_SUFFIX):
        raise ValueError(f"{name!r} is no name of a {VIDEO_SUFFIX} file")
    return name


EpisodeId = Annotated[str, Field(pattern=r"^[0-9]{6,18}$")]
"""Number of an episode in its store, with six digits or more."""
TensorFileName = Annotated[str, AfterValidator(tensor_file_name)]
VideoFileName = Annotated[str, AfterValidator(video_file_name)]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def listed_file(folder: Path, name: str) -> Path:
    """The file of that name in a folder.

    Raises:
        ArtifactError: it is missing, no plain file, or a link that leads out of the folder.
    """
    path = folder / plain_name(name)
    if path.is_symlink() and path.resolve().parent != folder.resolve():
        raise ArtifactError(
            f"{path} is a link to {path.resolve()}, outside its folder", hint="put the file itself there"
        )
    require_file(path)
    return path
