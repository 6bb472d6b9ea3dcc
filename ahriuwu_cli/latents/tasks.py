"""Tasks and where the reward of each comes from: the recorded reward, or an event ([D4] Sec. 3.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.episodes.events import EVENT_NAME, event_array

REWARD = "reward"
EVENT_PREFIX = "event:"
SOURCE = re.compile(rf"{REWARD}|{EVENT_PREFIX}{EVENT_NAME.pattern}")


@dataclass(frozen=True)
class Task:
    """One task of an agent.

    Attributes:
        name: what it is called.
        array: the packed array that holds its reward.
        recorded_as: the store's task (by index) whose episodes it applies to; None: it applies to all.
    """

    name: str
    array: str
    recorded_as: int | None

    def applies(self, recorded_task: int) -> bool:
        """True when an episode recorded under that task of the store (by index) tells of this task's reward."""
        return self.recorded_as is None or self.recorded_as == recorded_task


def assign_tasks(sources: Mapping[str, str], recorded: Sequence[str], events: Sequence[str]) -> tuple[Task, ...]:
    """The tasks that `sources` names, in its order.

    Args:
        sources: name to `reward` or `event:NAME`; empty: the tasks of the episode store, each from its reward.
        recorded: tasks of the episode store.
        events: events of the episode store.

    Raises:
        ConfigError: a task from the reward that no episode was recorded under, or an event that no episode has.
    """
    return tuple(
        _assign(name, source, recorded, events) for name, source in (sources or dict.fromkeys(recorded, REWARD)).items()
    )


def _assign(name: str, source: str, recorded: Sequence[str], events: Sequence[str]) -> Task:
    if source == REWARD:
        if name not in recorded:
            raise ConfigError(
                f'agent.tasks: task "{name}" takes the reward, but the episodes were recorded under '
                f"{', '.join(recorded)}",
                hint="name the task as data.task was when recording, or give it an event",
            )
        return Task(name, REWARD, recorded.index(name))
    event = source.removeprefix(EVENT_PREFIX)
    if event not in events:
        has = f"the events {', '.join(events)}" if events else "no events"
        raise ConfigError(
            f'agent.tasks: task "{name}" takes the event "{event}"; the packed episodes have {has}',
            hint='an environment gives events in info["events"] while it is recorded',
        )
    return Task(name, event_array(event), None)
