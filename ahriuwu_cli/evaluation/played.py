"""The episodes an agent has played so far, on disk while it plays: what one crash must not lose (pitfall 42)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ahriuwu_cli.core.files import write_json
from ahriuwu_cli.core.specs import ActionSpec
from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.tally import ActionTally
from ahriuwu_cli.evaluation.seal import seal_fault, sealed

SAVE_SECONDS = 1.0
"""How old what is on disk may be, so that short episodes are not slowed by it."""


class Played:
    """Return, length and action counts of an agent's finished episodes.

    What is in the file is taken over when it answers the same question and is as it was written; else the agent
    starts again.

    Args:
        path: the file (JSON).
        question: what the episodes depend on: game, agent, temperature, seeds.
        count: N, episodes to play.
        spec: the game's actions.
    """

    def __init__(self, path: Path, question: Mapping[str, Any], count: int, spec: ActionSpec) -> None:
        self._path = path
        self._question = json.loads(json.dumps(question))
        self._count = count
        self._tally = ActionTally(spec)
        self._episodes: dict[int, tuple[float, int]] = {}
        self.cpu_seconds = 0.0
        self._saved = time.monotonic()
        self._read()
        self.before = frozenset(self._episodes)

    @property
    def missing(self) -> list[int]:
        """Episodes still to be played, in order."""
        return [index for index in range(self._count) if index not in self._episodes]

    def add(self, index: int, episode: Episode) -> None:
        """Take in a finished episode; it is on disk within a second of play, and after `save`."""
        self._episodes[index] = episode.total_reward, episode.num_steps
        self._tally.add(episode.actions)
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write what there is, atomically."""
        self._saved = time.monotonic()
        facts = {
            "question": self._question,
            "episodes": {str(index): list(self._episodes[index]) for index in sorted(self._episodes)},
            "actions": self._tally.state(),
            "cpu_seconds": self.cpu_seconds,
        }
        write_json(self._path, sealed(facts))

    def returns(self) -> NDArray[np.float64]:
        """(N,) once all are played."""
        return np.array([self._episodes[index][0] for index in range(self._count)])

    def lengths(self) -> NDArray[np.int64]:
        """(N,) steps, once all are played."""
        return np.array([self._episodes[index][1] for index in range(self._count)], np.int64)

    def actions(self) -> dict[str, Any]:
        """Facts on the actions so far; see `ActionTally.facts`."""
        return self._tally.facts()

    def _read(self) -> None:
        try:
            facts = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if not isinstance(facts, dict) or seal_fault(facts) or facts.get("question") != self._question:
            return
        self._episodes = {int(index): (float(total), int(steps)) for index, (total, steps) in facts["episodes"].items()}
        self._tally.restore(facts["actions"])
        self.cpu_seconds = float(facts["cpu_seconds"])
