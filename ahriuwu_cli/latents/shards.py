"""Packed shards, read by slice: each is the one that the manifest lists and holds proper values, or is refused.

Shapes: R rows of a shard, N latent tokens, C channels, A action width.

Decision: a shard is opened with the others, which compares shapes and costs nothing, and looked at whole (hash and
values) when something is first read from it, once for each change of it. That takes about a second for each gigabyte.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ahriuwu_cli.core.content import require_content
from ahriuwu_cli.core.errors import ArtifactError, DataError
from ahriuwu_cli.core.loading import reading
from ahriuwu_cli.core.names import listed_file
from ahriuwu_cli.core.remembered import recall, remember
from ahriuwu_cli.core.tensorfile import open_tensors
from ahriuwu_cli.episodes.actions import check_actions
from ahriuwu_cli.episodes.events import event_array
from ahriuwu_cli.latents.manifest import Packed

BLOCK_ARRAYS = ("action", "action_valid", "reward", "reward_valid", "terminal")
FLAGS = ("action_valid", "reward_valid", "terminal")
AGAIN = "run `ahriuwu latents pack` again"
ROWS_AT_ONCE = 4096  # whose values are looked at together

_fine: set[str] = set()  # keys of shards, by content and specs, whose values are proper


class Shards:
    """The shards of packed latents.

    Raises:
        ArtifactError: a file is missing, cut short, or has other arrays than the manifest and its specs say.
    """

    def __init__(self, folder: Path, packed: Packed) -> None:
        self._folder, self._packed = folder, packed
        self._handles = [self._open(number) for number in range(len(packed.info.shards))]
        self._looking = Lock()
        self._looked_at = [False] * len(self._handles)

    def rows(self, number: int, name: str, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` of one array of a shard, copied.

        Raises:
            ArtifactError: the shard was changed since it was packed.
            DataError: a value in it is not finite or outside its spec.
        """
        with self._looking:  # one thread at a shard; the others wait for what it says
            if not self._looked_at[number]:
                self._look_at(number)
                self._looked_at[number] = True
        return np.array(self._handles[number].get_slice(name)[start:stop])

    def _open(self, number: int) -> Any:
        packed, shard = self._packed, self._packed.info.shards[number]
        path = self._folder / shard.file
        try:
            handle = open_tensors(listed_file(self._folder, shard.file), "np")
        except ArtifactError as error:
            raise ArtifactError(error.message, hint=AGAIN) from error
        rows = (shard.num_latents,)
        wanted = dict.fromkeys((*BLOCK_ARRAYS, *map(event_array, packed.info.events)), rows) | {
            "latents": (*rows, packed.latent.num_tokens, packed.latent.dim_token),
            "action": (*rows, packed.action.dim),
        }
        with reading(path):
            found = {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
        if found != wanted:
            name = min(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
            raise ArtifactError(
                f"{path}: {name} is {found.get(name, 'missing')}; expected {wanted.get(name, 'no such array')}",
                hint=AGAIN,
            )
        return handle

    def _look_at(self, number: int) -> None:
        shard = self._packed.info.shards[number]
        path = require_content(self._folder, shard.file, shard.sha256, again=AGAIN)
        specs = f"{self._packed.action.model_dump_json()}{self._packed.info.events}"
        key = f"values:{shard.sha256}:{hashlib.sha256(specs.encode()).hexdigest()}"
        if key not in _fine and recall(key) is None:
            with reading(path):
                for start in range(0, shard.num_latents, ROWS_AT_ONCE):
                    stop = min(start + ROWS_AT_ONCE, shard.num_latents)
                    self._check_values(number, slice(start, stop), str(path))
            remember(key, "fine")
        _fine.add(key)

    def _check_values(self, number: int, rows: slice, where: str) -> None:
        """Latents, rewards and events are finite, flags are flags, known actions are within their spec."""
        handle = self._handles[number]
        for name in ("latents", "reward", *map(event_array, self._packed.info.events)):
            if not np.isfinite(handle.get_slice(name)[rows]).all():
                raise DataError(f"{where}: {name} is not finite", hint=AGAIN)
        flags = {name: handle.get_slice(name)[rows] for name in FLAGS}
        for name, values in flags.items():
            if not np.isin(values, (0, 1)).all():
                raise DataError(f"{where}: {name} holds something else than 0 and 1", hint=AGAIN)
        action = handle.get_slice("action")[rows].astype(np.float32)
        check_actions(self._packed.action, action, flags["action_valid"].astype(bool), where=where)
