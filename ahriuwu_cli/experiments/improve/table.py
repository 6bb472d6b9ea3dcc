"""The table of an improvement, from whatever results there are: returns round by round, and what each gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ahriuwu_cli.core.report import Report
from ahriuwu_cli.experiments.improve.plan import Plan

COLUMNS = ("round", "episodes", "recorded", "bc", "imagination", "minus imagination before", "minus bc of round 0")


def make_table(plan: Plan, data: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any] | None]) -> Report:
    """One row for each round that has something to show.

    Args:
        plan: what was asked for.
        data: by round, what it was trained on; empty where it is not complete.
        results: by round, its returns; None where it has not played.
    """
    entries = [_entry(number, *found) for number, found in enumerate(zip(data, results, strict=True)) if found[0]]
    missing = [number for number, result in enumerate(results) if result is None]
    settings, config = plan.settings, plan.rounds[0].run.config
    facts = {
        "name": config.run.name,
        "env": config.data.env,
        "evaluated_episodes": settings.evaluate,
        "confidence": config.eval.confidence,
        "temperature": {"recording": settings.temperature, "evaluation": config.eval.temperature},
        "rounds": entries,
        "missing": missing,
    }
    notes = [
        f"episodes: in the store, and of these new in the round; recorded: their mean return, by the policy of the "
        f"round before at temperature {settings.temperature:g}; round 0 is the base run's recording",
        f"bc, imagination: mean return of {settings.evaluate} paired episodes in the real game with its "
        f"{config.eval.confidence:.0%} interval; differences with theirs and the p-value of a paired permutation "
        "test, not corrected for their number",
    ]
    if missing:
        notes.append(f"missing: {', '.join(f'round {number}' for number in missing)}")
    return Report(f"improve {config.run.name}", COLUMNS, [_row(entry) for entry in entries], facts, notes)


def _entry(number: int, data: Mapping[str, Any], result: Mapping[str, Any] | None) -> dict[str, Any]:
    """One round as JSON."""
    agents, over = (result["agents"], result["over"]) if result else ({}, {})
    return {
        "round": number,
        "episodes": data["asked"]["episodes"],
        "recorded": {"episodes": data["recorded"], "mean_return": data["mean_return"]},
        "bc": agents.get(f"bc-{number}"),
        "imagination": agents.get(f"imagination-{number}"),
        "over_imagination_before": over.get(f"imagination-{number - 1}"),
        "over_first_bc": over.get("bc-0"),
    }


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    recorded = entry["recorded"]
    return (
        str(entry["round"]),
        f"{entry['episodes']} ({recorded['episodes']} new)",
        f"{recorded['mean_return']:.2f}",
        _return(entry["bc"]),
        _return(entry["imagination"]),
        _difference(entry["over_imagination_before"]),
        _difference(entry["over_first_bc"]),
    )


def _return(agent: Mapping[str, Any] | None) -> str:
    return "" if agent is None else f"{agent['mean']:.2f}{_range(agent, '')}"


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    return f"{found['difference']:+.2f}{_range(found, '+')}, p = {found['p_value']:.2g}"


def _range(found: Mapping[str, Any], sign: str) -> str:
    """The interval; nothing where one episode gives none."""
    return "" if found["low"] is None else f" ({found['low']:{sign}.2f} to {found['high']:{sign}.2f})"
