"""Tokenizers that are not trained here: their weights are files of the user's; the artifact records their hashes."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ahriuwu_cli.core.artifact import Header, canonical, read_header, write_weights
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ArtifactError, DataError, InputError
from ahriuwu_cli.core.lock import exclusive
from ahriuwu_cli.core.training.files import RunFiles
from ahriuwu_cli.core.training.loop import TrainResult
from ahriuwu_cli.core.training.state import differences
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.tokenizer.config import TokenizerSection
from ahriuwu_cli.tokenizer.protocol import Tokenizer, to_pixels

CHECKED_FRAMES = 17
"""Frames of a recorded episode that the files are tried on."""
SHOWN_DIGITS = 16
"""Of a sha256 in a message."""


class FrozenTokenizer(Tokenizer):
    """A tokenizer with nothing to train; `state_dict` holds nothing of what lies in its files."""

    @abstractmethod
    def files(self) -> dict[str, str]:
        """SHA-256 of each file, by its name."""

    @abstractmethod
    def check(self, pixels: Tensor) -> None:
        """Try the files on pixels (1, T, 3, H, W) in [-1, 1].

        Raises:
            ArtifactError: they do not do what the config says they do.
        """


def is_frozen(header: Header) -> bool:
    """True for the artifact of a frozen tokenizer."""
    return "files" in header.info


def require_files(path: Path, header: Header, tokenizer: FrozenTokenizer) -> None:
    """Refuse files that are not those the artifact at `path` was made for, naming both hashes.

    Raises:
        ArtifactError: a file was changed.
    """
    recorded: Mapping[str, str] = header.info.get("files", {})
    for name, found in tokenizer.files().items():
        wanted = recorded.get(name, "none")
        if found != wanted:
            raise ArtifactError(
                f"{path} was made for {name} with sha256 {wanted[:SHOWN_DIGITS]}..., "
                f"but the file there now has {found[:SHOWN_DIGITS]}...",
                hint="put the earlier file back, or run `ahriuwu tokenizer train --overwrite` and all that follows",
            )


def adopt_tokenizer(
    section: TokenizerSection,
    tokenizer: FrozenTokenizer,
    episodes: Path,
    folder: Path,
    runtime: Runtime,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> TrainResult:
    """Check a frozen tokenizer's files on a training episode and write its artifact; nothing is trained.

    Args:
        section: the `[tokenizer]` section.
        tokenizer: built from it for the frames of `episodes`.
        episodes: an episode store.
        folder: where the artifact goes.
        runtime: device; the files bring their own precision.
        resume: give back what is there already, when it was made of the same.
        overwrite: replace an earlier artifact.

    Returns:
        A result of 0 steps, with the PSNR of the frames that were tried (not when resumed: nothing is tried then).

    Raises:
        InputError: there is an artifact and neither flag is given, or there is none to resume, or both are given.
        ArtifactError: the files do not do what the section says, or what is resumed was made of something else.
        DataError: there is no training episode.
    """
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other", hint="give one of them")
    started, files, store = time.monotonic(), RunFiles(folder, "tokenizer"), EpisodeStore.open(episodes)
    config, parents = section.model_dump(), {"episodes": store.header.fingerprint}
    if resume:
        header = _adopted(files.weights, {"config": config, "parents": parents})
        require_files(files.weights, header, tokenizer)
        return TrainResult(header, 0, 0.0, {})
    ids = store.ids("train")
    if not ids:
        raise DataError(
            f"{episodes} has no training episode", hint="record episodes with `ahriuwu data record`, or import more"
        )
    reader = store.frames(ids[0])
    frames = torch.from_numpy(reader.read(0, min(CHECKED_FRAMES, len(reader))))
    metrics = _try(tokenizer, to_pixels(frames.to(runtime.device))[None])
    with exclusive(folder):
        earlier = files.claim(overwrite=overwrite)
        header = write_weights(
            files.weights,
            "tokenizer",
            {},
            config=config,
            specs={"frame": store.frame_spec.model_dump(), "latent": tokenizer.latent_spec.model_dump()},
            parents=parents,
            info={"files": tokenizer.files(), "steps": 0, "finished": True, "untrained": []},
        )
        for path in earlier:
            if path != files.weights:
                path.unlink(missing_ok=True)
    return TrainResult(header, 0, time.monotonic() - started, metrics)


def _adopted(path: Path, now: dict[str, Any]) -> Header:
    """Header of the artifact at `path`, when its config and parents are those of `now`."""
    if not path.is_file():
        raise InputError(
            f"nothing to resume: {path} does not exist", hint="run the same command without --resume to make it"
        )
    header = read_header(path, "tokenizer")
    saved = {"config": header.config, "parents": header.parents}
    found = list(differences(saved, json.loads(canonical(now))))
    if found:
        raise ArtifactError(
            f"{path} was made with another configuration: {'; '.join(found[:3])}",
            hint="set these back, or make it anew with --overwrite",
        )
    return header


@torch.no_grad()
def _try(tokenizer: FrozenTokenizer, pixels: Tensor) -> dict[str, float]:
    """Check the files on pixels (1, T, 3, H, W); PSNR (dB) of what they make of them."""
    tokenizer.check(pixels)
    guess = tokenizer.decode(tokenizer.encode(pixels))[:, : pixels.shape[1]].clamp(-1, 1)
    error = (guess - pixels).square().mean().clamp_min(1e-10)
    return {"psnr": round(float(10 * (4 / error).log10()), 3)}  # the pixel range is 2 wide: peak^2 = 4
