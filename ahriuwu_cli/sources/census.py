"""What all episodes of a store hold, in figures: times, actions, rewards, and episodes that look odd.

Shapes: T steps, F = T + 1 frames of an episode, A = ActionSpec.dim.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ahriuwu_cli.core.errors import ArtifactError, DataError
from ahriuwu_cli.core.pictures.tiles import evenly_spaced
from ahriuwu_cli.core.progress import tracked
from ahriuwu_cli.episodes.episode import Tracks
from ahriuwu_cli.episodes.labels import column_names
from ahriuwu_cli.episodes.manifest import EpisodeRecord
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.episodes.tally import ActionTally
from ahriuwu_cli.sources.distribution import Distribution
from ahriuwu_cli.sources.looks import Looks

LOOKED_AT = 8
"""Frames of an episode that are looked at, evenly spread."""
SHORT = 0.1
"""Of the median length: a shorter episode is very short."""
COLUMNS = 64
"""Of a continuous component, so many numbers have their quantiles told."""
ODD = ("still", "black", "over-bright", "very short")


class Census:
    """Counts over the episodes of a store; memory holds the tracks of one of them, and its frames one at a time."""

    def __init__(self, store: EpisodeStore) -> None:
        self._store = store
        self._tally = ActionTally(store.action_spec)
        self._numbers = {
            part.name: [Distribution() for _ in range(min(part.dim, COLUMNS))]
            for part in store.action_spec.components
            if part.type == "continuous"
        }
        self._rewards, self._brightness, self._lengths = Distribution(), Distribution(), Distribution()
        self._seconds = 0.0
        self._steps = self._labelled = self._terminals = self._truncations = self._looked_at = 0
        self._odd: dict[str, list[str]] = {name: [] for name in ODD}
        self._unreadable: dict[str, str] = {}

    def take_all(self) -> None:
        """Go through all episodes; of one that cannot be read, why is noted."""
        records = self._store.episodes
        self._lengths.add(np.array([record.num_steps for record in records]))
        [median] = self._lengths.quantiles([0.5])
        for record in tracked("data info", records, "episodes"):
            try:
                known = self._store.tracks(record.id)
                looks = self._look(record)
            except (ArtifactError, DataError) as error:
                self._unreadable[record.id] = error.message
                continue
            self._take(known)
            faults = looks.faults()
            if median is not None and record.num_steps < SHORT * median:
                faults.append("very short")
            for name in faults:
                self._odd[name].append(record.id)
            self._looked_at += looks.count
            self._brightness.add(np.array(looks.brightness))

    def _look(self, record: EpisodeRecord) -> Looks:
        looks, reader = Looks(), self._store.frames(record.id)
        for place in evenly_spaced(len(reader), LOOKED_AT):
            looks.take(reader.read(place, place + 1))
        return looks

    def _take(self, known: Tracks) -> None:
        self._steps += known.num_steps
        self._labelled += int(known.action_valid.sum())
        self._terminals += int(known.terminals.sum())
        self._truncations += int(known.truncations.sum())
        self._seconds += float(known.timestamps[-1] - known.timestamps[0])
        self._tally.add(known.actions, known.action_valid)
        self._rewards.add(known.rewards)
        for name, columns in self._numbers.items():
            values = known.actions[known.action_valid, self._store.action_spec.slices()[name]]  # (steps, D)
            for column, numbers in enumerate(columns):
                numbers.add(values[:, column])

    def facts(self) -> dict[str, Any]:
        """Ready for JSON; shares and rates are null where there is nothing to divide by.

        `hours`, `steps_per_second` by the times of the frames; `labelled`: steps with a known action; `lengths` and
        `rewards` as in `Distribution.facts` with their `histogram`; `actions`: the facts of the tally, switches with
        their `names` and numbers with their `quantiles`; `outliers`: ids by what is odd; `unreadable`: why, by id.
        """
        actions = self._tally.facts()["components"]
        for part in self._store.action_spec.components:
            if part.type != "categorical":
                actions[part.name]["names"] = column_names(part)
            if part.type == "continuous":
                actions[part.name]["quantiles"] = [numbers.facts() for numbers in self._numbers[part.name]]
        return {
            "hours": self._seconds / 3600,
            "steps_per_second": self._steps / self._seconds if self._seconds else None,
            "labelled": {
                "steps": self._labelled,
                "of": self._steps,
                "share": self._labelled / self._steps if self._steps else None,
            },
            "lengths": self._lengths.facts() | {"histogram": self._lengths.histogram()},
            "rewards": self._rewards.facts() | {"histogram": self._rewards.histogram()},
            "actions": actions,
            "ends": {"terminal": self._terminals, "truncated": self._truncations},
            "brightness": self._brightness.facts(),
            "outliers": {"frames_looked_at": self._looked_at, **self._odd},
            "unreadable": self._unreadable,
        }
