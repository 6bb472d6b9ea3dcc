"""A census in words and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ahriuwu_cli.core.report import Table

SHOWN = 24  # choices, switches or numbers of a component in the table; of more, the most frequent
NAMED_IDS = 5
QUANTILES = ("min", "p5", "p25", "median", "p75", "p95", "max", "mean")


def as_tables(facts: Mapping[str, Any]) -> list[Table]:
    """What is spread how; how often each action is taken; how often each reward came."""
    spread = [("steps of an episode", facts["lengths"]), ("reward of a step", facts["rewards"])]
    spread.append(("brightness of a frame", facts["brightness"]))
    shares: list[list[str]] = []
    for name, part in facts["actions"].items():
        if part["type"] == "continuous":
            columns = list(zip(part["names"], part["quantiles"], strict=False))[:SHOWN]
            spread += [(name if len(part["names"]) == 1 else f"{name} {place}", values) for place, values in columns]
        else:
            shares += [[name, choice, share] for choice, share in _most(choices(part))]
    rewards = [
        [_span(entry), str(entry["count"]), percent(entry["count"] / facts["rewards"]["count"])]
        for entry in facts["rewards"]["histogram"]
        if entry["count"]
    ]
    return [
        Table(("", *QUANTILES), [[name, *(number(values[key]) for key in QUANTILES)] for name, values in spread]),
        *([Table(("action", "", "share of labelled steps"), shares)] if shares else []),
        *([Table(("reward", "steps", "share"), rewards)] if rewards else []),
    ]


def in_words(facts: Mapping[str, Any]) -> list[str]:
    """Times, labels, ends, odd episodes: a line each."""
    labelled, outliers = facts["labelled"], facts["outliers"]
    rate = facts["steps_per_second"]
    lines = [
        f"{facts['hours']:.3g} hours of play, {number(rate)} steps per second by the times of the frames",
        f"{labelled['steps']} of {labelled['of']} steps have a known action ({percent(labelled['share'])})",
        f"{facts['ends']['terminal']} episodes ended, {facts['ends']['truncated']} were cut",
    ]
    odd = {name: ids for name, ids in outliers.items() if name != "frames_looked_at" and ids}
    found = "; ".join(f"{name}: {_ids(ids)}" for name, ids in odd.items()) or "none"
    lines.append(f"odd episodes: {found} ({outliers['frames_looked_at']} frames were looked at)")
    if facts["unreadable"]:
        first = next(iter(facts["unreadable"].values()))
        lines.append(f"{len(facts['unreadable'])} episodes cannot be read and are not counted here: {first}")
    return lines


def choices(part: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    """Names and shares of the choices of a categorical component, or of the switches of a binary one."""
    if part["type"] == "categorical":
        return list(part["shares"].items())
    return list(zip(part["names"], part["on"], strict=True))


def most_frequent(named: Sequence[tuple[str, float | None]], count: int) -> list[tuple[str, float | None]]:
    """All of them, in their order; of more than `count` the most frequent, the first of them first."""
    if len(named) <= count:
        return list(named)
    return sorted(named, key=lambda entry: -(entry[1] or 0.0))[:count]


def _most(named: Sequence[tuple[str, float | None]]) -> list[tuple[str, str]]:
    shown = most_frequent(named, SHOWN)
    rows = [(name, percent(share)) for name, share in shown]
    if len(shown) < len(named):
        left = sum(share or 0.0 for _, share in named) - sum(share or 0.0 for _, share in shown)
        rows.append((f"{len(named) - len(shown)} others", percent(max(0.0, left))))
    return rows


def _ids(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - NAMED_IDS} more" if len(ids) > NAMED_IDS else ""
    return f"{len(ids)} ({', '.join(ids[:NAMED_IDS])}{more})"


def _span(entry: Mapping[str, Any]) -> str:
    low, high = number(entry["low"]), number(entry["high"])
    return low if entry["low"] == entry["high"] else f"{low} .. {high}"


def number(value: float | None) -> str:
    """With four digits, or a mark for none."""
    return "-" if value is None else f"{value:.4g}"


def percent(share: float | None) -> str:
    """With a decimal, or a mark for none."""
    return "-" if share is None else f"{100 * share:.1f} %"
