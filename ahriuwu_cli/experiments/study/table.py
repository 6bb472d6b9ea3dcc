"""The table of a study and its verdicts in words, from what results.json holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ahriuwu_cli.core.report import Report
from ahriuwu_cli.evaluation.ladder import LABELS


def make_table(results: Mapping[str, Any]) -> Report:
    """One row for each agent; notes are the verdicts, the cost, and what is missing."""
    seeds: Sequence[Mapping[str, Any]] = results["seeds"]
    level = f"{100 * results['confidence']:g} %"
    columns = ["agent", "mean return", f"{level} interval", *(f"seed {entry['seed']}" for entry in seeds), "CPU min"]
    order = [*(name for name in results["agents"] if name != "expert"), *({"expert"} & set(results["agents"]))]
    rows, notes = [], []
    if seeds:
        rows = [_row(name, results) for name in order]
        notes = [
            *verdicts(results),
            f"{results['episodes']} paired episodes of each of {_counted(seeds, 'training seed')}, other episodes for "
            f"each; intervals ({level}) and two-sided p-values are over episodes, the columns of the seeds show how "
            "much trainings differ",
            _cost(results),
        ]
    if results["missing"]:
        notes.append(f"missing: {', '.join(results['missing'])}")
    return Report(f"study {results['name']}: {results['game']}", columns, rows, dict(results), notes)


def _row(name: str, results: Mapping[str, Any]) -> list[str]:
    agent = results["pooled"]["agents"][name]
    minutes = [entry["cpu_minutes"].get(name) for entry in results["seeds"]]
    known = [value for value in minutes if value is not None]
    return [
        LABELS[name],
        f"{agent['mean']:.2f}",
        _interval(agent),
        *(f"{mean:.2f}" for mean in agent["per_seed"]),
        f"{fmean(known):.1f}" if known else "",
    ]


def _cost(results: Mapping[str, Any]) -> str:
    """What the world took, whose cost every agent but scratch and the built-in ones stands on."""
    text = "CPU min is the processor time of the agent's own training, mean over seeds"
    worlds = [entry["cpu_minutes"] for entry in results["seeds"]] if results["whole_roads"] else []
    if results["world_cpu_minutes"] is not None:
        worlds = [results["world_cpu_minutes"]]
    parts = []
    for kind in ("tokenizer", "dynamics"):
        minutes = [world[kind] for world in worlds if world.get(kind) is not None]
        if minutes:
            parts.append(f"{kind} {fmean(minutes):.1f}")
    shared = "of each seed" if results["whole_roads"] else "that all seeds share"
    return f"{text}; before it, for the world {shared}: {', '.join(parts)}" if parts else text


# ---------------------------------------------------------------- verdicts


def verdicts(results: Mapping[str, Any]) -> list[str]:
    """What the numbers say, in words: one line each."""
    found = results["verdicts"]
    lines = [
        *_compared("imagination minus WM+BC", "imagination returns {} times what WM+BC does", found["imagination"]),
        *_way(found["covered"]),
        *_compared("WM+BC minus BC from scratch", "WM+BC returns {} times what BC from scratch does", found["bc"]),
    ]
    ladder = found["ladder"]
    if ladder["holds"] is not None:
        values = " ".join(
            f"{sign}{LABELS[name]} {mean:.2f}"
            for sign, (name, mean) in zip(("", "< ", "<= ", "< "), ladder["means"].items(), strict=True)
        )
        lines.append(f"the order {values}: {'holds' if ladder['holds'] else 'does not hold'}")
    return lines


def _compared(difference: str, times: str, entry: Mapping[str, Any] | None) -> list[str]:
    if entry is None:
        return []
    lines = [
        f"{difference}: {entry['difference']:+.2f} ({_interval(entry, '+')}), p = {entry['p_value']:.2g} over "
        f"{entry['n']} paired episodes; by seed {', '.join(f'{value:+.2f}' for value in entry['per_seed'])}"
    ]
    if entry["ratio"] is not None:
        ends = {"low": entry["ratio_low"], "high": entry["ratio_high"]}
        lines.append(times.format(f"{entry['ratio']:.2f} ({_interval(ends)})"))
    return lines


def _way(covered: Mapping[str, Any] | None) -> list[str]:
    if covered is None:
        return []
    to = f"the {covered['of']} ({covered['target']:.2f})"
    if covered["share"] is None:
        return [f"imagination: no share of the way, since {to} is not above WM+BC"]
    return [f"imagination covers {covered['share']:.2f} ({_interval(covered)}) of the way from WM+BC to {to}"]


def _interval(entry: Mapping[str, Any], sign: str = "") -> str:
    if entry["low"] is None or entry["high"] is None:
        return "interval unknown"
    return f"{entry['low']:{sign}.2f} to {entry['high']:{sign}.2f}"


def _counted(values: Sequence[Any], noun: str) -> str:
    return f"{len(values)} {noun}{'' if len(values) == 1 else 's'}"
