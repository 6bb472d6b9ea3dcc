"""Evaluation results, where there are any: readable, finite, and of the artifacts that are here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ahriuwu_cli.core.artifact import Header, Kind, read_header
from ahriuwu_cli.doctor.counts import split_ids
from ahriuwu_cli.doctor.findings import Area, counted, first_few

ROLLOUTS: dict[str, Kind] = {"rollout": "dynamics", "rollout-agent": "agent", "rollout-imagination": "imagination"}

PLAYERS: dict[str, Kind] = {"bc": "agent", "imagination": "imagination"}
"""Which artifact is behind a name in agents.json."""
SCRATCH = Path("scratch") / "agent.safetensors"
"""The baseline's weights, below the run's folder; they are no step of the road."""
FROZEN_SHARE = 0.99
"""A learned agent that repeats its action at more of its steps than this is called frozen."""
LEVEL = 0.05
"""The p-value from which on a difference between agents may be luck."""


def examine_results(area: Area, folder: Path, headers: Mapping[Kind, Header]) -> None:
    """Check the results of both evaluations below `folder`."""
    for name, kind in ROLLOUTS.items():
        path = folder / name / "rollout.json"
        if path.exists() or kind == "dynamics":
            with area.guard(name):
                _examine_rollout(area, name, path, kind, headers)
    with area.guard("agents"):
        _examine_agents(area, folder / "agent" / "agents.json", headers)


def _examine_rollout(area: Area, name: str, path: Path, kind: Kind, headers: Mapping[Kind, Header]) -> None:
    if not path.exists():
        area.note(name, "not made yet; `ahriuwu eval rollout` makes it")
        return
    facts = json.loads(path.read_text(encoding="utf-8"))
    numbers = [value for curve in facts["curves"].values() for value in (*curve["psnr"], *curve["ssim"])]
    faults = ["curves hold values that are no numbers"] if any(math.isnan(value) for value in numbers) else []
    if "episodes" in headers:
        strange = sorted(set(facts["heldout_episodes"]) - set(split_ids(headers["episodes"])["heldout"]))
        if strange:  # Pitfall 7
            faults.append(f"it was judged on episodes that are not held out: {first_few(strange)}")
    above = facts["dream_above_persistence_db"]
    text = f"dream {facts['curves']['dream']['psnr_mean']:.2f} dB, {above:+.2f} dB over persistence"
    if not faults and kind in headers and headers[kind].fingerprint != facts["fingerprint"]:
        area.note(name, f"{text}; of {kind} {facts['fingerprint']}, but here is {headers[kind].fingerprint}: stale")
    elif not faults and above <= 0:
        area.note(name, f"{text}: the dream is no better than a still picture yet")
    else:
        area.judge(name, faults, text, "run `ahriuwu eval rollout` again")


def _examine_agents(area: Area, path: Path, headers: Mapping[Kind, Header]) -> None:
    if not path.exists():
        area.note("agents", "not made yet; `ahriuwu eval agent` makes it")
        return
    facts = json.loads(path.read_text(encoding="utf-8"))
    agents = cast("dict[str, dict[str, Any]]", facts["agents"])
    faults = [
        f"returns of {name} are not finite" for name, agent in agents.items() if not _all_finite(agent["returns"])
    ]
    if "episodes" in headers:
        recorded = {entry["seed"] for entry in headers["episodes"].info["episodes"]}
        known = sorted(recorded & set(facts["environment"]["seeds"]))
        if known:
            faults.append(
                f"episodes played that are in the recording: seeds {first_few([str(seed) for seed in known])}"
            )
    means = ", ".join(f"{name} {agent['mean']:.2f}" for name, agent in agents.items())
    text = f"mean returns of {counted(facts['episodes'], 'episode')}: {means}"
    played: dict[str, str] = facts.get("fingerprints", {})
    here = {name: headers[kind].fingerprint for name, kind in PLAYERS.items() if kind in headers}
    scratch = path.parent.parent.parent / SCRATCH
    if scratch.exists():
        here["scratch"] = read_header(scratch, "agent").fingerprint
    stale = [
        f"{name} {played[name]}, but here is {fingerprint}"
        for name, fingerprint in here.items()
        if played.get(name, fingerprint) != fingerprint
    ]
    if stale and not faults:
        area.note("agents", f"{text}; of {', '.join(stale)}: stale")
    else:
        area.judge("agents", faults, text, "run `ahriuwu eval agent` again")
    _examine_actions(area, {name: entry for name, entry in facts.get("actions", {}).items() if name in played})
    for entry in facts["comparisons"]:
        if (entry["agent"], entry["baseline"]) == ("imagination", "bc"):
            _examine_gain(area, entry)


def _examine_actions(area: Area, actions: Mapping[str, Mapping[str, Any]]) -> None:
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


def _examine_gain(area: Area, entry: Mapping[str, Any]) -> None:
    """Pitfall 35: imagination training that did not help, or not surely."""
    text = f"imagination minus bc: {entry['difference']:+.2f}, p = {entry['p_value']:.2g}"
    if entry["difference"] > 0 and entry["p_value"] < LEVEL:
        area.ok("gain", text)
    else:
        area.note("gain", f"{text}: not shown to be better")


def _all_finite(values: Sequence[float]) -> bool:
    return all(math.isfinite(value) for value in values)
