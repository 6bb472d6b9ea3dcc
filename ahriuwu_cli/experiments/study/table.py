"""The table of a study and its verdicts in words, from what results.json holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from ahriuwu_cli.core.report import Report
from ahriuwu_cli.evaluation.ladder import LABELS
from ahriuwu_cli.evaluation.over_seeds import FEW
from ahriuwu_cli.experiments.study.plan import USUAL
from ahriuwu_cli.experiments.study.search import JUDGE, UNIFORM

WORLD = {
    "episodes": "recording",
    "tokenizer": "tokenizer",
    "latents": "encoding",
    "packed": "packing",
    "dynamics": "dynamics",
}
"""What a world takes, by artifact."""
NEAR_UNIFORM = 0.95
"""A loss above this share of the uniform one is called hardly learned."""


def make_table(results: Mapping[str, Any]) -> Report:
    """One row for each agent; notes are the verdicts, the cost, and what is missing."""
    seeds: Sequence[Mapping[str, Any]] = results["seeds"]
    level = f"{100 * results['confidence']:g} %"
    columns = ["agent", "mean return", f"{level} interval", *(f"seed {entry['seed']}" for entry in seeds), "CPU min"]
    losses = _heldout(results)
    columns += ["held-out loss"] if losses else []
    order = [*(name for name in results["agents"] if name != "expert"), *({"expert"} & set(results["agents"]))]
    rows, notes = [], []
    if seeds:
        rows = [_row(name, results) + ([_loss(losses.get(name))] if losses else []) for name in order]
        notes = [*verdicts(results), _method(results, level), _origin(results), *_cost(results), *_learned(losses)]
        absent = [LABELS[name] for name in USUAL if name not in results["agents"]]
        if absent:
            notes.append(f"did not play: {', '.join(absent)}")
    notes += _search(results.get("search"))
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
        return f"the episodes come from the test stream, which nothing else plays; {_frozen(results['frozen'])}"
    return "the episodes come from the stream that `eval agent` plays too, so settings may have been tuned on them"


def _frozen(frozen: Mapping[str, Any] | None) -> str:
    if frozen is None:
        return "settings were not frozen"
    text = f"settings {frozen['fingerprint']} were frozen before the first of them"
    if frozen["changes"]:
        changed = sorted({key for change in frozen["changes"] for key in change})
        text += f", and CHANGED {len(frozen['changes'])} times since ({', '.join(changed)})"
    return text if frozen["current"] else f"{text}; those of now are others"


# ---------------------------------------------------------------- what was learned


def _heldout(results: Mapping[str, Any]) -> dict[str, tuple[float, float | None]]:
    """By agent, its held-out loss and the uniform one, means over seeds; empty where none was measured."""
    found: dict[str, tuple[float, float | None]] = {}
    for name in ("scratch", "bc", "imagination"):
        measured = [entry.get("heldout", {}).get(name) or {} for entry in results["seeds"]]
        losses, uniform = ([one[key] for one in measured if key in one] for key in (JUDGE, UNIFORM))
        if losses:
            found[name] = fmean(losses), fmean(uniform) if uniform else None
    return found


def _loss(found: tuple[float, float | None] | None) -> str:
    if found is None:
        return ""
    return f"{found[0]:.3f}" + ("" if found[1] is None else f" (uniform {found[1]:.3f})")


def _learned(losses: Mapping[str, tuple[float, float | None]]) -> list[str]:
    """Pitfall 36: an agent that cloned nothing is no baseline."""
    if not losses:
        return []
    blind = [LABELS[name] for name, (loss, uniform) in losses.items() if uniform and loss > NEAR_UNIFORM * uniform]
    text = "held-out loss: mean negative log-likelihood per action of held-out episodes, in nats"
    return [f"{text}; {', '.join(blind)} hardly learned to clone" if blind else text]


def _search(search: Mapping[str, Any] | None) -> list[str]:
    """One line for each agent whose learning rate was searched, with all tries."""
    lines: list[str] = []
    if search is None:
        return lines
    for agent, chosen in search["chosen"].items():
        tries = sorted((one for one in search["tries"] if one["agent"] == agent), key=lambda one: one["learning_rate"])
        text = ", ".join(f"{one['learning_rate']:g}: {_loss((one[JUDGE], one.get(UNIFORM)))}" for one in tries)
        edge = chosen in (tries[0]["learning_rate"], tries[-1]["learning_rate"]) and len(tries) > 1
        minutes = [one["cpu_minutes"] for one in tries if one["cpu_minutes"] is not None]
        lines.append(
            f"learning rate of {LABELS[agent]}: {chosen:g}, by held-out loss of {len(tries)} tries on seed "
            f"{search['seed']} ({text})"
            + (f"; {sum(minutes):.1f} CPU minutes" if minutes else "")
            + ("; it is at the edge of what was tried" if edge else "")
        )
    return lines


# ---------------------------------------------------------------- cost


def _cost(results: Mapping[str, Any]) -> list[str]:
    """What everything took, as far as it was counted."""
    worlds = [entry["cpu_minutes"] for entry in results["seeds"]] if results["whole_roads"] else []
    if results["world_cpu_minutes"] is not None:
        worlds = [results["world_cpu_minutes"]]
    world = _mean_minutes(worlds, WORLD)
    own = _mean_minutes([entry["cpu_minutes"] for entry in results["seeds"]], ("scratch", "bc", "imagination"))
    shared = "of each seed" if results["whole_roads"] else "that all seeds share"
    playing = _mean_minutes([entry.get("playing_cpu_minutes", {}) for entry in results["seeds"]], results["agents"])
    parts = [
        *([f"world {shared}: {_minutes(world)}"] if world else []),
        *([f"training of each seed: {_minutes(own)}"] if own else []),
        *([f"playing of each seed: {_minutes(playing)}"] if playing else []),
    ]
    return [f"CPU minutes, means: {'; '.join(parts)}"] if parts else []


def _mean_minutes(costs: Sequence[Mapping[str, float | None]], names: Iterable[str]) -> dict[str, float]:
    known = {name: [value for cost in costs if (value := cost.get(name)) is not None] for name in names}
    return {name: fmean(values) for name, values in known.items() if values}


def _minutes(cost: Mapping[str, float]) -> str:
    return ", ".join(f"{LABELS.get(name) or WORLD[name]} {value:.1f}" for name, value in cost.items())


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
