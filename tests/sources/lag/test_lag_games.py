"""The lag of play of whole games, at full effort: what was put in is found; actions of another episode are not told."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.lag.measure import FULL, in_words, measure
from ahriuwu_cli.sources.record import record

GAMES = {
    "bricks": {"env": "ahriuwu/Bricks-v0", "policy": "noisy-expert", "noise": 0.3},
    "breakout": {"env": "MinAtar/Breakout-v1", "policy": "noisy-expert", "noise": 0.3},
    "freeway": {
        "env": "ALE/Freeway-v5", "policy": "random", "height": 64, "width": 64, "max_episode_steps": 600, "episodes": 12
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("played")

    @cache
    def make(game: str) -> EpisodeStore:
        if game == "breakout":
            pytest.importorskip("minatar")
        if game == "freeway":
            pytest.importorskip("ale_py")
        record(folder / game, DataSection(**({"episodes": 200} | GAMES[game])), 0)  # type: ignore[arg-type]
        return EpisodeStore.open(folder / game)

    return make


def retold(store: EpisodeStore, folder: Path, shift: int | None) -> EpisodeStore:
    """The same play with every action noted `shift` steps late; None: with those of the episode before."""
    episodes = [store.read(record.id) for record in store.episodes]
    told = EpisodeStore.create(folder, store.action_spec, store.frame_spec, store.env, store.env_options)
    changed = []
    for number, episode in enumerate(episodes):
        source = episode if shift is not None else episodes[number - 1]
        places = np.arange(episode.num_steps) - (shift or 0)
        known = (places >= 0) & (places < source.num_steps)
        actions = np.where(known[:, None], source.actions[places.clip(0, source.num_steps - 1)], 0)
        changed.append(replace(episode, actions=actions.astype(np.float32), action_valid=known))
    told.append(changed)
    return told


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0, 3, -2, None])
@pytest.mark.parametrize("game", GAMES)
def test_games(played, tmp_path: Path, game: str, shift: int | None) -> None:
    found = measure(retold(played(game), tmp_path / "told", shift), FULL, 0, lambda _: None)
    assert found.verdict.shift == shift, in_words(found)
