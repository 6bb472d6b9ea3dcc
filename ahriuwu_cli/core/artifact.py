"""Artifacts: safetensors files and manifest folders that say what they are, written atomically, read strictly.

Every artifact carries a header: kind, format version, the config that made it, the specs a later
stage needs, the fingerprints of its parents and the software that wrote it. The fingerprint is a
content hash over header and tensors (dates and software versions left out), so equal content has an
equal fingerprint on every machine.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import AhriuwuError, ArtifactError, InputError
from ahriuwu_cli.core.files import write_atomically, write_text
from ahriuwu_cli.core.provenance import Provenance, provenance

FORMAT_VERSION = 1
METADATA_KEY = "ahriuwu"
MANIFEST_NAME = "manifest.json"
GROWN_FROM = "grown_from"
"""Key of `Header.info`, no part of the fingerprint: earlier fingerprints of the same data (see core/lineage.py)."""

Kind = Literal["episodes", "tokenizer", "latents", "packed", "dynamics", "agent", "imagination", "state"]

MADE_BY: dict[str, str] = {
    "episodes": "ahriuwu data record",
    "tokenizer": "ahriuwu tokenizer train",
    "latents": "ahriuwu latents build",
    "packed": "ahriuwu latents pack",
    "dynamics": "ahriuwu dynamics train",
    "agent": "ahriuwu agent finetune",
    "imagination": "ahriuwu imagine train",
    "state": "a training command, beside its weights",
}


class Header(Section):
    """What an artifact says of itself.

    `config` is the resolved config section, `specs` what later stages need (action, frame, latent
    specs as dicts), `parents` maps a parent's kind to its fingerprint, `info` holds further facts
    of this kind (step counts, episode lists).
    """

    kind: Kind
    format_version: int = FORMAT_VERSION
    fingerprint: str
    config: dict[str, Any] = Field(default_factory=dict)
    specs: dict[str, Any] = Field(default_factory=dict)
    parents: dict[str, str] = Field(default_factory=dict)
    info: dict[str, Any] = Field(default_factory=dict)
    provenance: Provenance


# ---------------------------------------------------------------- fingerprints


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal content gives equal text, before writing and after reading.

    Raises:
        ValueError: a number is not finite (JSON cannot hold it, so it would not be read back).
    """
    plain = json.loads(json.dumps(value, allow_nan=False))  # keys become text before they are sorted
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def hash_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of the tensors in name order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint_of(
    kind: str, config: dict[str, Any], specs: dict[str, Any], parents: dict[str, str], info: dict[str, Any], body: str
) -> str:
    """Fingerprint (16 hex digits) of a header, its `grown_from` left out, and the hash of what it describes."""
    info = {name: value for name, value in info.items() if name != GROWN_FROM}
    text = canonical([kind, FORMAT_VERSION, config, specs, parents, info, body])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ---------------------------------------------------------------- writing


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata_text: dict[str, str]) -> None:
    """Write tensors and metadata as one safetensors file, atomically."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def save(temporary: Path) -> None:
        try:
            save_file(plain, str(temporary), metadata=metadata_text)
        except SafetensorError as error:  # tells what the system said as text
            code = re.search(r"os error (\d+)", str(error))
            raise OSError(int(code[1]) if code else errno.EIO, str(error)) from error

    write_atomically(path, save)


def write_weights(
    path: Path,
    kind: Kind,
    tensors: Mapping[str, torch.Tensor],
    *,
    config: dict[str, Any],
    specs: dict[str, Any],
    parents: dict[str, str],
    info: dict[str, Any] | None = None,
) -> Header:
    """Write weights with their embedded header; returns the header with its fingerprint."""
    info = info or {}
    fingerprint = fingerprint_of(kind, config, specs, parents, info, hash_tensors(tensors))
    header = Header(
        kind=kind,
        fingerprint=fingerprint,
        config=config,
        specs=specs,
        parents=parents,
        info=info,
        provenance=provenance(),
    )
    write_tensors(path, tensors, {METADATA_KEY: header.model_dump_json()})
    return header


def write_manifest(
    folder: Path,
    kind: Kind,
    *,
    config: dict[str, Any],
    specs: dict[str, Any],
    parents: dict[str, str],
    info: dict[str, Any],
) -> Header:
    """Write a folder's manifest; `info` must name its files with their hashes."""
    header = Header(
        kind=kind,
        fingerprint=fingerprint_of(kind, config, specs, parents, info, ""),
        config=config,
        specs=specs,
        parents=parents,
        info=info,
        provenance=provenance(),
    )
    write_text(folder / MANIFEST_NAME, header.model_dump_json(indent=1) + "\n")
    return header


# ---------------------------------------------------------------- reading


def read_header(path: Path, kind: Kind | tuple[Kind, ...]) -> Header:
    """Read the header of a weights file or of a manifest folder and check its kind.

    Raises:
        InputError: nothing is there.
        ArtifactError: damaged, without header, of another kind or of another format version.
    """
    kinds = (kind,) if isinstance(kind, str) else kind
    if not path.exists():
        raise InputError(
            f"{path} does not exist; expected {_article(kinds[0])} artifact there",
            hint=f"make it with `{MADE_BY[kinds[0]]}` or give its path",
        )
    text = _manifest_text(path) if path.is_dir() else _metadata_text(path)
    try:
        raw = json.loads(text)
        version = raw.get("format_version")
    except (json.JSONDecodeError, AttributeError) as error:
        raise _damaged(path, str(error)) from error
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format version {version}; this program reads version {FORMAT_VERSION}",
            hint="use the program version that wrote it (see its provenance) or make the artifact again",
        )
    try:
        header = Header.model_validate(raw)
    except ValidationError as error:
        raise _damaged(path, error.errors()[0]["msg"]) from error
    if header.kind not in kinds:
        raise ArtifactError(
            f"{path} is {_article(header.kind)} artifact; expected {_article(kinds[0])} artifact",
            hint=f"give the output of `{MADE_BY[kinds[0]]}`",
        )
    return header


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _manifest_text(folder: Path) -> str:
    manifest = folder / MANIFEST_NAME
    if not manifest.is_file():
        raise ArtifactError(
            f"{folder} has no {MANIFEST_NAME}", hint="give the folder that the command wrote, or make it again"
        )
    try:
        return manifest.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise _damaged(manifest, str(error)) from error


def _metadata_text(path: Path) -> str:
    with _open(path, "pt") as handle:
        text: str | None = (handle.metadata() or {}).get(METADATA_KEY)
    if text is None:
        raise ArtifactError(
            f"{path} is a safetensors file without ahriuwu metadata",
            hint="only files written by ahriuwu can be read here",
        )
    return text


def _open(path: Path, framework: str) -> Any:
    try:
        return safe_open(str(path), framework=framework)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, detail: str) -> ArtifactError:
    return ArtifactError(
        f"{path} cannot be read: {detail.splitlines()[0] if detail else 'damaged'}",
        hint="the file is cut short or damaged; restore it or make it again",
    )


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, on the CPU."""
    with _open(path, "pt") as handle:
        return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a safetensors file as NumPy."""
    with _open(path, "np") as handle:
        return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)


def read_weights(path: Path, kind: Kind | tuple[Kind, ...]) -> tuple[Header, dict[str, torch.Tensor]]:
    """Header and tensors of a weights file.

    Raises:
        InputError: the file is missing.
        ArtifactError: damaged, of another kind, or its content does not match its fingerprint.
    """
    header = read_header(path, kind)
    tensors = read_tensors(path)
    check_fingerprint(path, header, hash_tensors(tensors))
    return header, tensors


def check_fingerprint(path: Path, header: Header, body: str) -> None:
    """Refuse an artifact whose content is not what its fingerprint was made from."""
    found = fingerprint_of(header.kind, header.config, header.specs, header.parents, header.info, body)
    if found != header.fingerprint:
        raise ArtifactError(
            f"{path} says fingerprint {header.fingerprint} but its content has {found}",
            hint="the file was changed after it was written; restore it or make it again",
        )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while the content of `path` is made sense of into one ArtifactError.

    What a file says is somebody's input, sealed or not: a key that is missing, a value of another type or a size that
    no model has must not come out as a fault of ours.
    """
    try:
        yield
    except AhriuwuError:
        raise
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise _senseless(path, f"{place}: {fault['msg']}" if place else fault["msg"]) from error
    except KeyError as error:
        raise _senseless(path, f"{error} is missing") from error
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        IndexError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise _senseless(path, str(error)) from error


def _senseless(path: Path, detail: str) -> ArtifactError:
    return ArtifactError(
        f"{path} does not hold what an artifact of its kind holds: {' '.join(detail.split())[:300]}",
        hint="it was changed, or written by another version of this program; make it again",
    )


def load_strictly(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load weights into a module; names and shapes must match exactly."""
    try:
        module.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise ArtifactError(
            f"{path} does not fit the model its own config describes: {detail}",
            hint="the file was written by another version of the model; make it again",
        ) from error
