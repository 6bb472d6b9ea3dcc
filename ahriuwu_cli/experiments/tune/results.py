"""results.json, table and best.toml of a search, from whatever trials there are."""

from __future__ import annotations

from typing import Any

from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.toml import parse_value
from ahriuwu_cli.evaluation.seal import sealed
from ahriuwu_cli.experiments.tune.plan import Plan
from ahriuwu_cli.experiments.tune.space import Choices, Key, Value
from ahriuwu_cli.experiments.tune.storage import Storage
from ahriuwu_cli.experiments.tune.work import read_result

UNTOLD = "not finished"


def gather(plan: Plan, storage: Storage) -> dict[str, Any]:
    """All facts of a search, sealed, ready for JSON.

    Returns:
        `name stage metric higher seed keys` (what each may be), `trials` (as many as are asked for), `rows` best first
        (`trial values value state reason heldout cpu_minutes`, `is_given` where the values are the run's own), `best`
        and `given` (numbers of trials, None for none), `missing` (how many are still to come), and the seal.
    """
    trials, own, goal = storage.trials(), plan.given(), plan.goal
    rows = []
    for trial in trials:
        result = read_result(plan, trial)
        rows.append(
            {
                "trial": trial.number,
                "values": {key.name: plain(key, trial.values[key.name]) for key in plan.keys},
                "is_given": dict(trial.values) == own,
                "state": trial.state,
                "value": trial.value,
                "reason": result.get("reason", ""),
                "heldout": result.get("heldout", {}),
                "cpu_minutes": result.get("cpu_minutes"),
            }
        )
    rows.sort(key=lambda row: _place(row, higher=goal.higher))
    done = [row for row in rows if row["state"] == "done"]
    return sealed(
        {
            "name": plan.config.run.name,
            "stage": plan.settings.stage,
            "metric": goal.name,
            "higher": goal.higher,
            "seed": plan.settings.seed,
            "keys": {key.name: key.space.model_dump(mode="json") for key in plan.keys},
            "trials": plan.settings.trials,
            "rows": rows,
            "best": done[0]["trial"] if done else None,
            "given": next((row["trial"] for row in done if row["is_given"]), None),
            "missing": max(0, plan.settings.trials - sum(row["state"] != "open" for row in rows)),
        }
    )


def _place(row: dict[str, Any], *, higher: bool) -> tuple[int, float, int]:
    """The best first, then what failed, then what is not finished."""
    value = row["value"] or 0.0
    return ("done", "failed", "open").index(row["state"]), -value if higher else value, row["trial"]


def plain(key: Key, value: Value) -> Any:
    """What the search has handed out as the config has it."""
    return parse_value(str(value)) if isinstance(key.space, Choices) else value


def make_table(results: dict[str, Any]) -> Report:
    """One row for each trial, the best first, then those that failed and those that are not finished."""
    keys = list(results["keys"])
    columns = ("trial", *keys, results["metric"], "CPU min", "state")
    rows = [_row(row, keys) for row in results["rows"]]
    done = sum(row["state"] == "done" for row in results["rows"])
    failed = sum(row["state"] == "failed" for row in results["rows"])
    notes = [
        f"{done} trials done, {failed} failed, {results['missing']} of {results['trials']} to come; "
        f"training seed {results['seed']}; of {results['metric']} {'more' if results['higher'] else 'less'} is better",
        "one seed and held-out episodes that were looked at: a setting that is best here is a guess, which other seeds "
        "and the real game have to bear out",
    ]
    return Report(f"tune {results['name']}: {results['stage']}", columns, rows, results, notes)


def _row(row: dict[str, Any], keys: list[str]) -> tuple[str, ...]:
    value, minutes = row["value"], row["cpu_minutes"]
    state = UNTOLD if row["state"] == "open" else row["state"]
    state += f": {row['reason']}" if row["reason"] else ""
    return (
        str(row["trial"]),
        *(_shown(row["values"][key]) for key in keys),
        "" if value is None else f"{value:.5g}",
        "" if minutes is None else f"{minutes:.2f}",
        f"{state}, run.toml's own" if row["is_given"] else state,
    )


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def best_lines(plan: Plan, results: dict[str, Any], storage: Storage) -> str:
    """The best trial as `key = value` lines for run.toml; empty while there is none."""
    best = next((row for row in results["rows"] if row["trial"] == results["best"]), None)
    if best is None:
        return ""
    trial = next(trial for trial in storage.trials() if trial.number == best["trial"])
    given = next((row for row in results["rows"] if row["trial"] == results["given"]), None)
    beside = f", with run.toml's own values {given['value']:.5g}" if given else ""
    lines = [
        f"# Trial {best['trial']} of `ahriuwu tune --config {plan.path}`.",
        f"# {results['metric']} is {best['value']:.5g}{beside}.",
        "# Change these in run.toml, or give each to a command as --set KEY=VALUE.",
        *(override.replace("=", " = ", 1) for override in plan.overrides(trial.values)),
    ]
    return "\n".join(lines) + "\n"
