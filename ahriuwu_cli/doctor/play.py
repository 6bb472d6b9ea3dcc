"""Pitfalls 35, 36 and 40: what the returns in the real game say of each agent, by their intervals.

Decision: not shown to be better than a player that looks at nothing is a problem, for then nothing shows that anything
was learned. Not shown to be better than another learned agent is a note: that is a result, and may be a true one. Only
to be worse is a problem. All of it holds for one training; other seeds may differ, which a study tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ahriuwu_cli.doctor.evidence import MIN_EPISODES
from ahriuwu_cli.doctor.findings import Area, counted

FROZEN_SHARE = 0.99
"""A learned agent that repeats its action at more of its steps than this is called frozen."""
BLIND = ("random", "repeat-last")
"""Players that look at nothing."""


class Agent(NamedTuple):
    """Whom an agent is compared with, and what makes it better."""

    rivals: tuple[str, ...]
    change: str


AGENTS = {
    "scratch": Agent(
        BLIND,
        "what has not learned is easily beaten: change agent.train.learning_rate or agent.train.steps",
    ),
    "bc": Agent(
        (*BLIND, "scratch"),
        "change agent.train.learning_rate or agent.train.steps, imitate less of the poor play "
        "(agent.relevant_reach, agent.relevant_fraction), or record a better player (data.policy, data.noise)",
    ),
    "imagination": Agent(
        (*BLIND, "scratch", "bc"),
        "look at the dream and at the reward and continue heads first; then imagine.train.steps, "
        "imagine.train.learning_rate, imagine.beta, imagine.guard.cut",
    ),
}
"""The learned agents, by their names in agents.json."""


def judge_play(area: Area, facts: Mapping[str, Any]) -> None:
    """Judge every learned agent that played against those it should be better than."""
    learned: Mapping[str, str] = facts.get("fingerprints", {})
    actions: Mapping[str, Mapping[str, Any]] = facts.get("actions", {})
    _judge_actions(area, {name: entry for name, entry in actions.items() if name in learned})
    for name, agent in AGENTS.items():
        entries = [
            entry for entry in facts["comparisons"] if entry["agent"] == name and entry["baseline"] in agent.rivals
        ]
        if entries:
            _judge_agent(area, name, agent, entries, paired=bool(facts.get("paired", True)))


def _judge_actions(area: Area, actions: Mapping[str, Mapping[str, Any]]) -> None:
    """Pitfalls 16 and 17: learned agents that do nothing but repeat their action."""
    shares = {name: entry["repeated"] for name, entry in actions.items() if entry["repeated"] is not None}
    if not shares:
        return
    text = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    frozen = [name for name, share in shares.items() if share > FROZEN_SHARE]
    if frozen:
        area.note("actions", f"steps that repeat the action before: {text}; {', '.join(frozen)} may be frozen")
    else:
        area.ok("actions", f"steps that repeat the action before: {text}")


def _judge_agent(area: Area, name: str, agent: Agent, entries: Sequence[Mapping[str, Any]], *, paired: bool) -> None:
    """One finding: every difference with its interval, and those that are not shown to be gains."""
    episodes = min(int(entry["n"]) for entry in entries)
    kind = "paired episode" if paired else "episode"
    over = f"over {counted(episodes, kind)} of this one training"
    text = f"{'; '.join(_difference(entry) for entry in entries)}; {over}"
    unshown = [entry for entry in entries if entry["low"] is None or entry["low"] <= 0]
    if not unshown:
        area.ok(name, text)
        return
    worse = [entry["baseline"] for entry in unshown if entry["high"] is not None and entry["high"] < 0]
    other = [entry["baseline"] for entry in unshown if entry["baseline"] not in worse]
    said = [f"worse than {' and '.join(worse)}"] * bool(worse)
    said += [f"not shown to be better than {' or '.join(other)}"] * bool(other)
    text = f"{' and '.join(said)}: {text}"
    if episodes < MIN_EPISODES:
        area.note(name, text, f"raise eval.episodes: fewer than {MIN_EPISODES} show little; {agent.change}")
    elif name != "scratch" and (worse or any(entry["baseline"] in BLIND for entry in unshown)):
        area.problem(name, text, agent.change)
    else:
        area.note(name, text, agent.change)


def _difference(entry: Mapping[str, Any]) -> str:
    if entry["low"] is None or entry["high"] is None:
        interval = "interval unknown"
    else:
        interval = f"{entry['low']:+.2f} to {entry['high']:+.2f}"
    return f"minus {entry['baseline']} {entry['difference']:+.2f} ({interval})"
