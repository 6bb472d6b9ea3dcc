"""The lag that a store was imported with, and another one written into a run.toml for the next import."""

from __future__ import annotations

import math
from pathlib import Path

from ahriuwu_cli.core.config import read_toml
from ahriuwu_cli.core.errors import ConfigError, InputError
from ahriuwu_cli.core.files import write_atomically
from ahriuwu_cli.core.toml import with_value
from ahriuwu_cli.episodes.store import EpisodeStore

KEY = ("data", "source", "lag")


def imported_lag(store: EpisodeStore) -> float | None:
    """`data.source.lag` that a store was imported with; None where it was not imported."""
    if not any(record.origin for record in store.episodes):
        return None
    return float(store.header.config["data"]["source"]["lag"])


def require_changeable(store: EpisodeStore, config: Path) -> None:
    """Say before any work what would be in the way of writing.

    Raises:
        InputError: the store was not imported, or `config` is not there.
        ConfigError: `config` is no TOML, or has the lag in a place where it cannot be changed.
    """
    if imported_lag(store) is None:
        raise InputError(
            f"{store.folder} was not imported: data.source.lag says nothing of it",
            hint="leave out --apply; correct what recorded it",
        )
    read_toml(config)
    _changed(config, 0.0)


def apply_lag(store: EpisodeStore, config: Path, lag: float) -> list[str]:
    """Set `data.source.lag` in a run.toml, all else as it is; what is to be told.

    Raises:
        InputError, ConfigError: see `require_changeable`.
        StorageError: it cannot be written.
    """
    before = imported_lag(store)
    assert before is not None
    content = _changed(config, lag).encode()
    write_atomically(config.resolve(), lambda temporary: temporary.write_bytes(content))
    notes = [f"data.source.lag = {lag:g} is in {config} now; the store was imported with {before:g}"]
    if not math.isclose(lag, before, abs_tol=1e-6):
        kind = store.header.config["data"]["source"]["kind"]
        notes.append(
            f"next: `ahriuwu data import {kind} --config {config} --out DIR` into another folder, or remove "
            f"{store.folder} and import anew; what is in the store stays as it was imported"
        )
    return notes


def _changed(config: Path, lag: float) -> str:
    try:
        return with_value(config.read_bytes().decode("utf-8"), KEY, lag)
    except ValueError as error:
        raise ConfigError(
            f"{config}: {'.'.join(KEY)} cannot be set: {error}",
            hint="write it there yourself, under [data.source]; `ahriuwu data lag` without --apply says the number",
        ) from error
