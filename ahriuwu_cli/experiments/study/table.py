"""The table of a study and its verdicts in words, from what results.json holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ahriuwu_cli.core.report import Report
from ahriuwu_cli.evaluation.ladder import LABELS
from ahriuwu_cli.evaluation.over_seeds import FEW

USUAL = ("random", "repeat-last", "dataset", "scratch", "bc", "imagination")
"""Who belongs into every table."""


def make_table(results: Mapping[str, Any]) -> Report:
    """One row for each agent; notes are the verdicts, the cost, and what is missing."""
    seeds: Sequence[Mapping[str, Any]] = results["seeds"]
    level = f"{100 * results['confidence']:g} %"
    columns = ["agent", "mean return", f"{level} interval", *(f"seed {entry['seed']}" for entry in seeds), "CPU min"]
    order = [*(name for name in results["agents"] if name != "expert"), *({"expert"} & set(results["agents"]))]
    rows, notes = [], []
    if seeds:
        rows = [_row(name, results) for name in order]
        notes = [*verdicts(results), _method(results, level), _origin(results), *_cost(results)]
        absent = [LABELS[name] for name in USUAL if name not in results["agents"]]
        if absent:
            notes.append(f"did not play: {', '.join(absent)}")
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


def _method(results: Mapping[str, Any], level: str) -> str:
    """How the numbers were made, in one line."""
    method = results["pooled"]["method"]
    kind = "paired" if method["paired"] else "unpaired (the environment does not obey its seed)"
    alone = (
        ""
        if results["whole_roads"]
        else "; the seeds share recordings and world model, so this is about agents on that one"
    )
    return (
        f"{results['episodes']} {kind} episodes of each of {_counted(results['seeds'], 'training seed')}, others for "
        f"each{alone}; {level} intervals: {method['interval']}; p: {method['test']}, beside it the paired t-test, "
        f"both uncorrected for {len(results['claims'])} comparisons; fewer than {method['min_seeds']} training seeds "
        "claim nothing"
    )


def _origin(results: Mapping[str, Any]) -> str:
    """Pitfall 38: where the episodes come from."""
    if results.get("stream") == "test":
        return "the episodes come from the test stream, which nothing else plays"
    return "the episodes come from the stream that `eval agent` plays too, so settings may have been tuned on them"


# ---------------------------------------------------------------- cost


def _cost(results: Mapping[str, Any]) -> list[str]:
    """What everything took, as far as it was counted."""
    worlds = [entry["cpu_minutes"] for entry in results["seeds"]] if results["whole_roads"] else []
    if results["world_cpu_minutes"] is not None:
        worlds = [results["world_cpu_minutes"]]
    world = _mean_minutes(worlds, ("tokenizer", "dynamics"))
    own = _mean_minutes([entry["cpu_minutes"] for entry in results["seeds"]], ("scratch", "bc", "imagination"))
    shared = "of each seed" if results["whole_roads"] else "that all seeds share"
    parts = [
        *([f"world {shared}: {_minutes(world)}"] if world else []),
        *([f"training of each seed: {_minutes(own)}"] if own else []),
    ]
    return [f"CPU minutes, means: {'; '.join(parts)}"] if parts else []


def _mean_minutes(costs: Sequence[Mapping[str, float | None]], names: Sequence[str]) -> dict[str, float]:
    known = {name: [value for cost in costs if (value := cost.get(name)) is not None] for name in names}
    return {name: fmean(values) for name, values in known.items() if values}


def _minutes(cost: Mapping[str, float]) -> str:
    return ", ".join(f"{LABELS.get(name, name)} {value:.1f}" for name, value in cost.items())


# ---------------------------------------------------------------- verdicts


def verdicts(results: Mapping[str, Any]) -> list[str]:
    """What the numbers say, in words: one line for each claim, one for each share of the way."""
    return [
        *(_claim(entry, results["pooled"]["method"]["min_seeds"]) for entry in results["claims"]),
        *(_way(name, entry) for name, entry in results["pooled"]["way"].items()),
    ]


def _claim(entry: Mapping[str, Any], min_seeds: int) -> str:
    agent, baseline, num_seeds = LABELS[entry["agent"]], LABELS[entry["baseline"]], entry["num_seeds"]
    word = f"{FEW} to claim ({num_seeds} of {min_seeds})" if entry["verdict"] == FEW else entry["verdict"]
    beside = "" if entry["t_p_value"] is None else f" (t-test {entry['t_p_value']:.2g})"
    text = (
        f"{agent} beside {baseline}: {word}; difference {entry['difference']:+.2f} ({_interval(entry, '+')}), "
        f"p = {entry['p_value']:.2g}{beside} over {num_seeds} training seed{'' if num_seeds == 1 else 's'}: "
        f"{', '.join(f'{value:+.2f}' for value in entry['per_seed'])}"
    )
    if entry["ratio"] is None:
        return text
    return f"{text}; {entry['ratio']:.2f} ({_interval({'low': entry['ratio_low'], 'high': entry['ratio_high']})}) times"


def _way(name: str, entry: Mapping[str, Any]) -> str:
    to = f"the {entry['of']} ({entry['target']:.2f})"
    if entry["share"] is None:
        return f"{LABELS[name]}: no share of the way, since {to} is not above the recorded player"
    return f"{LABELS[name]} goes {entry['share']:.2f} ({_interval(entry)}) of the way from the recorded player to {to}"


def _interval(entry: Mapping[str, Any], sign: str = "") -> str:
    if entry["low"] is None or entry["high"] is None:
        return "interval unknown"
    return f"{entry['low']:{sign}.2f} to {entry['high']:{sign}.2f}"


def _counted(values: Sequence[Any], noun: str) -> str:
    return f"{len(values)} {noun}{'' if len(values) == 1 else 's'}"
