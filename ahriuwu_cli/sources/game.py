"""Which game a store was recorded from: whoever appends to it, or plays what was learned from it, plays that game."""

from __future__ import annotations

from typing import Any

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.loading import reading
from ahriuwu_cli.episodes.config import GAME_KEYS, DataSection
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.games.environment import GameEnv

SINCE = {"fit", "masks"}
"""Keys that a store made before there were any does not have: it was made with their defaults."""


def settled_game(data: DataSection, env: GameEnv) -> DataSection:
    """The settings with what was left to the environment as it is: which picture, and how many a second."""
    return data.model_copy(update={"frame_from": env.frame_from, "fps": env.frame_spec.fps})


def recorded_settings(store: EpisodeStore) -> DataSection | None:
    """The `[data]` settings that a store was begun with; None for one that no environment was recorded into.

    Raises:
        ArtifactError: they are no such settings.
    """
    settings = store.header.config.get("data")
    with reading(store.folder):
        return DataSection.model_validate(settings) if settings else None


def recorded_game(store: EpisodeStore) -> dict[str, Any]:
    """By key of `[data]`, what a store says of its game (pitfall 43); keys that it says nothing of are left out."""
    settings = recorded_settings(store)
    said = {} if settings is None else {key: getattr(settings, key) for key in settings.model_fields_set | SINCE}
    frame = store.frame_spec.model_dump(include={"height", "width", "fps"})
    said |= {"env": store.env, "env_options": store.env_options} | frame
    return {key: said[key] for key in GAME_KEYS if key in said}


def differences(store: EpisodeStore, data: DataSection) -> dict[str, tuple[Any, Any]]:
    """Keys of `[data]` that say another game than the recorded one: (recorded, asked for)."""
    asked = {key: getattr(data, key) for key in GAME_KEYS}
    return {
        key: (there, asked[key])
        for key, there in recorded_game(store).items()
        if asked[key] != there and not is_open(key, asked[key])
    }


def require_same_game(store: EpisodeStore, data: DataSection, env: GameEnv) -> None:
    """Refuse to append another game than the recorded one.

    Raises:
        InputError: names the first setting or spec that differs.
    """
    pairs = [(f"data.{key}", *values) for key, values in differences(store, data).items()]
    pairs.append(("frame spec", store.frame_spec.model_dump(), env.frame_spec.model_dump()))
    pairs.append(("action spec", store.action_spec.model_dump(), env.action_spec.model_dump()))
    for what, there, wanted in pairs:
        if there != wanted:
            raise InputError(
                f"{store.folder} was recorded with {what} {there}; this recording has {wanted}",
                hint="append with the same [data] settings, or record into another run folder",
            )


def is_open(key: str, value: Any) -> bool:
    """Whether a value of `[data]` leaves it to the environment; the store says what it came to."""
    return (key, value) in (("frame_from", "auto"), ("fps", None), ("policy", "auto"))
