"""What an agent does, in one line: the most frequent first, what is unknown said so, much told in short."""

from __future__ import annotations

import numpy as np

from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.episodes.tally import ActionTally
from ahriuwu_cli.evaluation.behaviour import describe

MOVE = ActionComponent(name="move", type="categorical", num_classes=3, labels=("stay", "left", "right"))


def told(spec: ActionSpec, *episodes: list[list[float]]) -> str:
    counts = ActionTally(spec)
    for actions in episodes:
        counts.add(np.array(actions, np.float32).reshape(len(actions), spec.dim))
    return describe("bc", counts.facts())


def test_the_most_frequent_choice_comes_first() -> None:
    text = told(ActionSpec(components=(MOVE,)), [[1]] * 9, [[2]] * 9)
    assert text == "actions of bc: left 50 %, right 50 %, stay 0 %; as at the step before: 100 %"


def test_single_steps_say_nothing_of_repeats() -> None:
    assert "as at the step before: unknown" in told(ActionSpec(components=(MOVE,)), [[0]])


def test_many_choices_and_components_are_told_in_short() -> None:
    choices = ActionComponent(name="button", type="categorical", num_classes=9)
    parts = (choices, *(MOVE.model_copy(update={"name": f"move_{n}"}) for n in range(5)))
    text = told(ActionSpec(components=parts), [[8, 0, 0, 0, 0, 0]] * 2)
    assert text.startswith("actions of bc: button 8 100 %, 0 0 %, 1 0 %, 2 0 %, 3 0 %, 4 0 %, 3 others; move_0 stay")
    assert "and 2 more components" in text
