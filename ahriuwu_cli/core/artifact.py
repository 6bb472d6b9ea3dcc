"""Artifacts: safetensors files and manifest folders that say what they are, written atomically, read strictly.

Every artifact carries a header: kind, format version, the config that made it, the specs a later
stage needs, the fingerprints of its parents and the software that wrote it. The fingerprint is a
content hash over header and tensors (dates and software versions left out), so equal content has an
equal fingerprint on every machine.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import ahriuwu_cli
from ahriuwu_cli.core.bounds import MAX_MANIFEST_BYTES, damaged, parse_object, read_bounded
from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import ArtifactError, InputError
from ahriuwu_cli.core.files import write_text
from ahriuwu_cli.core.loading import require_finite
from ahriuwu_cli.core.names import Fingerprint
from ahriuwu_cli.core.provenance import Provenance, provenance
from ahriuwu_cli.core.remembered import SETTLED_NS, file_key, recall, remember
from ahriuwu_cli.core.specs import ActionSpec, FrameSpec, LatentSpec
from ahriuwu_cli.core.tensorfile import metadata_of, read_tensors, write_tensors

FORMAT_VERSION = 1
METADATA_KEY = "ahriuwu"
MANIFEST_NAME = "manifest.json"
MEASURED = ("means/", "stage/")
"""Beginnings of the names of what a state has measured while training: it may be unknown, NaN; weights may not."""
UPGRADE = "upgrade ahriuwu to the version that wrote it, or make the artifact again"
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
IMPORTED = "ahriuwu data import"
"""Makes episodes too, of recordings."""


def makers(kind: str) -> str:
    """The command that makes artifacts of a kind, or both of them, as it is written in a hint."""
    return f"`{MADE_BY[kind]}`" + f" or `{IMPORTED}`" * (kind == "episodes")


SPECS: dict[str, type[Section]] = {"action": ActionSpec, "frame": FrameSpec, "latent": LatentSpec}
"""What `Header.specs` may hold by these names."""


class _KnownInfo(BaseModel):
    """Types of the facts in `Header.info` that are read by name; which of them there are depends on the kind."""

    model_config = ConfigDict(strict=True)

    steps: int = 0
    step: int = 0
    seed: int = 0
    finished: bool = False
    stopped: str = "steps"
    minutes: float = 0.0
    kept_step: int = 0
    averaged: bool = False
    from_scratch: bool = False
    untrained: list[str] = []
    relevant: dict[str, float] = {}
    trend: dict[str, dict[str, float]] = {}
    heldout: dict[str, float] | list[str] = {}
    heldout_episodes: list[str] = []
    files: dict[str, str] = {}
    grown_from: list[Fingerprint] = []


class Header(Section):
    """What an artifact says of itself.

    `config` is the resolved config section, `specs` what later stages need (action, frame, latent
    specs as dicts), `parents` maps a parent's kind to its fingerprint, `info` holds further facts
    of this kind (step counts, episode lists).
    """

    kind: Kind
    format_version: int = FORMAT_VERSION
    fingerprint: Fingerprint
    config: dict[str, Any] = Field(default_factory=dict)
    specs: dict[str, Any] = Field(default_factory=dict)
    parents: dict[str, Fingerprint] = Field(default_factory=dict)
    info: dict[str, Any] = Field(default_factory=dict)
    provenance: Provenance

    @model_validator(mode="after")
    def _of_known_types(self) -> Header:
        strangers = self.parents.keys() - set(get_args(Kind))
        if strangers:
            raise ValueError(f"made from {min(strangers)!r}; expected kinds of artifacts")
        _KnownInfo.model_validate(self.info)
        for name, spec in SPECS.items():
            if name in self.specs:
                spec.model_validate(self.specs[name])
        return self


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


class RowsHash:
    """`hash_tensors` of one tensor that comes a few rows at a time, in order."""

    def __init__(self, name: str, dtype: torch.dtype, shape: Sequence[int]) -> None:
        self._digest = hashlib.sha256(f"{name}:{dtype}:{tuple(shape)};".encode())

    def add(self, rows: np.ndarray) -> None:
        """Take the next rows."""
        self._digest.update(np.ascontiguousarray(rows).tobytes())

    def hexdigest(self) -> str:
        """The hash, once all rows have come."""
        return self._digest.hexdigest()


def fingerprint_of(
    kind: str, config: dict[str, Any], specs: dict[str, Any], parents: dict[str, str], info: dict[str, Any], body: str
) -> str:
    """Fingerprint (16 hex digits) of a header, its `grown_from` left out, and the hash of what it describes."""
    info = {name: value for name, value in info.items() if name != GROWN_FROM}
    text = canonical([kind, FORMAT_VERSION, config, specs, parents, info, body])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ---------------------------------------------------------------- writing


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
            hint=f"make it with {makers(kinds[0])} or give its path",
        )
    text = _manifest_text(path) if path.is_dir() else _metadata_text(path)
    raw = parse_object(path, text, looked_at=path.is_dir() and _known(path) is not None)
    version = raw.get("format_version")
    if version != FORMAT_VERSION:
        raise _of_another_version(path, raw, version)
    try:
        header = Header.model_validate(raw)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            raise ArtifactError(
                f"{path} has the key {key}, which this version does not know; {_versions(raw)}", hint=UPGRADE
            ) from error
        raise damaged(path, f"{key}: {fault['msg']}" if key else fault["msg"]) from error
    if header.kind not in kinds:
        raise ArtifactError(
            f"{path} is {_article(header.kind)} artifact; expected {_article(kinds[0])} artifact",
            hint=f"give the output of {makers(kinds[0])}",
        )
    return header


def _of_another_version(path: Path, raw: dict[str, Any], version: object) -> ArtifactError:
    if type(version) is int and version > FORMAT_VERSION:
        return ArtifactError(
            f"{path} was written by a later version: its format is {version}, this program reads {FORMAT_VERSION}; "
            f"{_versions(raw)}",
            hint=UPGRADE,
        )
    return ArtifactError(
        f"{path} has format version {str(version)[:40]}; this program reads version {FORMAT_VERSION}",
        hint="use the program version that wrote it (see its provenance) or make the artifact again",
    )


def _versions(raw: dict[str, Any]) -> str:
    """Who wrote it, and who reads."""
    wrote = raw.get("provenance")
    version = wrote.get("version") if isinstance(wrote, dict) else None
    return f"written by ahriuwu {str(version or '?')[:40]}, this is {ahriuwu_cli.__version__}"


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _manifest_text(folder: Path) -> str:
    manifest = folder / MANIFEST_NAME
    if not manifest.exists():
        raise ArtifactError(
            f"{folder} has no {MANIFEST_NAME}", hint="give the folder that the command wrote, or make it again"
        )
    return read_bounded(manifest, MAX_MANIFEST_BYTES)


def _metadata_text(path: Path) -> str:
    text = metadata_of(path).get(METADATA_KEY)
    if text is None:
        raise ArtifactError(
            f"{path} is a safetensors file without ahriuwu metadata",
            hint="only files written by ahriuwu can be read here",
        )
    return text


def read_weights(path: Path, kind: Kind | tuple[Kind, ...]) -> tuple[Header, dict[str, torch.Tensor]]:
    """Header and tensors of a weights file.

    Raises:
        InputError: the file is missing.
        ArtifactError: damaged, of another kind, its content does not match its fingerprint, or a weight is no number.
    """
    header = read_header(path, kind)
    tensors = read_tensors(path)
    check_fingerprint(path, header, hash_tensors(tensors))
    require_finite(path, {name: tensor for name, tensor in tensors.items() if not name.startswith(MEASURED)})
    return header, tensors


def check_fingerprint(path: Path, header: Header, body: str) -> None:
    """Refuse an artifact whose content is not what its fingerprint was made from.

    Of a manifest that is found out once for each change of it: of ten thousand episodes it was most of opening a store.
    """
    folder = path.is_dir()
    if folder and _known(path) == header.fingerprint:
        return
    found = fingerprint_of(header.kind, header.config, header.specs, header.parents, header.info, body)
    if found != header.fingerprint:
        raise ArtifactError(
            f"{path} says fingerprint {header.fingerprint} but its content has {found}",
            hint="the file was changed after it was written; restore it or make it again",
        )
    if folder:
        _note(path, header.fingerprint)


def _known(folder: Path) -> str | None:
    """The fingerprint that the manifest of a folder, as it lies there, was found to have."""
    try:
        return recall(file_key("manifest", folder / MANIFEST_NAME))
    except OSError:
        return None


def _note(folder: Path, fingerprint: str) -> None:
    """Remember what was found; not of a manifest so new that it may change without its times showing it."""
    with suppress(OSError):
        manifest = folder / MANIFEST_NAME
        if time.time_ns() - manifest.stat().st_mtime_ns > SETTLED_NS:
            remember(file_key("manifest", manifest), fingerprint)
