"""Evaluation results, where there are any: readable, unedited, finite, and of the artifacts that are here.

What they say of the dream and of the agents is judged in dreams.py and play.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ahriuwu_cli.core.artifact import Header, Kind, read_header
from ahriuwu_cli.core.bounds import MAX_MANIFEST_BYTES, damaged, read_bounded
from ahriuwu_cli.doctor.checks import Subject
from ahriuwu_cli.doctor.counts import split_ids
from ahriuwu_cli.doctor.dreams import judge_dream, judge_worlds
from ahriuwu_cli.doctor.findings import Area, counted, first_few
from ahriuwu_cli.doctor.play import judge_play
from ahriuwu_cli.evaluation.seal import SEAL, seal_fault

ROLLOUTS: dict[str, Kind] = {"rollout": "dynamics", "rollout-agent": "agent", "rollout-imagination": "imagination"}

PLAYERS: dict[str, Kind] = {"bc": "agent", "imagination": "imagination"}
"""Which artifact is behind a name in agents.json."""
ROUNDING = 1e-6
"""What a mean may be off by for having been computed in another order, as share of its size."""


def read_results(path: Path) -> dict[str, Any]:
    """The facts that an evaluation wrote.

    Raises:
        ArtifactError: no plain file, not JSON, or no object.
    """
    try:
        facts = json.loads(read_bounded(path, MAX_MANIFEST_BYTES))
    except ValueError as error:
        raise damaged(path, f"it is not JSON: {error}") from error
    if not isinstance(facts, dict):
        raise damaged(path, "it holds no results")
    return facts


def examine_rollouts(area: Area, subject: Subject) -> None:
    """Check the results of `eval rollout`, of every world model that was judged."""
    sound: dict[str, dict[str, Any]] = {}
    for name, kind in ROLLOUTS.items():
        path = subject.path / name / "rollout.json"
        if path.exists():
            with area.guard(name, "run `ahriuwu eval rollout` again"):
                facts = read_results(path)
                if _is_sound(area, name, facts, kind, subject.headers):
                    sound[kind] = facts
                    judge_dream(area, name, kind, facts, subject.headers.get(kind))
        elif kind == "dynamics":
            area.note(name, "not made yet; `ahriuwu eval rollout` makes it")
    if {"dynamics", "agent"} <= sound.keys():
        judge_worlds(area, sound["dynamics"], sound["agent"])


def _is_sound(area: Area, name: str, facts: dict[str, Any], kind: Kind, headers: Mapping[Kind, Header]) -> bool:
    """True for results as they were written, of the world model that is here now."""
    curves = cast("dict[str, dict[str, Any]]", facts["curves"])
    numbers = [value for curve in curves.values() for value in (*curve["psnr"], *curve["ssim"])]
    faults = ["curves hold values that are no numbers"] if any(math.isnan(value) for value in numbers) else []
    faults += _edited(facts, {source: (curve["psnr_mean"], curve["psnr"]) for source, curve in curves.items()})
    if "episodes" in headers:
        strange = sorted(set(facts["heldout_episodes"]) - set(split_ids(headers["episodes"])["heldout"]))
        if strange:  # Pitfall 7
            faults.append(f"it was judged on episodes that are not held out: {first_few(strange)}")
    above = facts["dream_above_persistence_db"]
    text = f"dream {curves['dream']['psnr_mean']:.2f} dB, {above:+.2f} dB over persistence"
    if not faults and kind in headers and headers[kind].fingerprint != facts["fingerprint"]:
        area.note(name, f"{text}; of {kind} {facts['fingerprint']}, but here is {headers[kind].fingerprint}: stale")
        return False
    area.judge(name, faults, text)
    return not faults


def examine_agents(area: Area, subject: Subject) -> None:
    """Check the results of `eval agent`."""
    path, headers = subject.path / "agent" / "agents.json", subject.headers
    if not path.exists():
        if _has_game(subject):
            area.note("agents", "not made yet; `ahriuwu eval agent` makes it")
        return
    facts = read_results(path)
    agents = cast("dict[str, dict[str, Any]]", facts["agents"])
    faults = [
        f"returns of {name} are not finite" for name, agent in agents.items() if not _all_finite(agent["returns"])
    ]
    faults += _edited(facts, {name: (agent["mean"], agent["returns"]) for name, agent in agents.items()})
    if "episodes" in headers:
        recorded = {entry["seed"] for entry in headers["episodes"].info["episodes"]}
        known = sorted(recorded & set(facts["environment"]["seeds"]))
        if known:
            faults.append(
                f"episodes played that are in the recording: seeds {first_few([str(seed) for seed in known])}"
            )
    means = ", ".join(f"{name} {agent['mean']:.2f}" for name, agent in agents.items())
    text = f"mean returns of {counted(facts['episodes'], 'episode')}: {means}"
    stale = _stale(facts, subject)
    if stale and not faults:
        area.note("agents", f"{text}; of {', '.join(stale)}: stale", "run `ahriuwu eval agent` again")
    else:
        area.judge("agents", faults, text)
    if not faults:
        judge_play(area, facts)


def examine_offline(area: Area, subject: Subject) -> None:
    """Check the results of `eval offline`; where there is no game, they should be there."""
    path = subject.path / "offline" / "offline.json"
    if not path.exists():
        if not _has_game(subject):
            area.note("offline", "not made yet; `ahriuwu eval offline` makes it")
        return
    facts = read_results(path)
    fault, agents = seal_fault(facts), cast("dict[str, dict[str, Any]]", facts["agents"])
    known = {name: agent["nats_per_step"]["mean"] for name, agent in agents.items() if agent["nats_per_step"]}
    likely = ", ".join(f"{name} {nats:.3f}" for name, nats in known.items()) or "no action is known"
    text = f"-ln p of {counted(facts['steps'], 'held-out action')}: {likely}"
    faults = [fault] if fault else []
    if "episodes" in subject.headers:
        strange = sorted(set(facts["heldout_episodes"]) - set(split_ids(subject.headers["episodes"])["heldout"]))
        if strange:  # Pitfall 7
            faults.append(f"it was judged on episodes that are not held out: {first_few(strange)}")
    stale = _stale(facts, subject)
    if stale and not faults:
        area.note("offline", f"{text}; of {', '.join(stale)}: stale", "run `ahriuwu eval offline` again")
    else:
        area.judge("offline", faults, text)


def _has_game(subject: Subject) -> bool:
    """Whether the episodes are of a game that can be played, or would be if they were there."""
    if "episodes" in subject.headers:
        return bool(subject.headers["episodes"].info.get("env"))
    return subject.config is None or bool(subject.config.data.env)


def _stale(facts: Mapping[str, Any], subject: Subject) -> list[str]:
    """In words: agents that are no longer those which played."""
    here = {name: subject.headers[kind].fingerprint for name, kind in PLAYERS.items() if kind in subject.headers}
    played: dict[str, str] = facts.get("fingerprints", {})
    if subject.run.scratch.exists():
        here["scratch"] = read_header(subject.run.scratch, "agent").fingerprint
    return [
        f"{name} {played[name]}, but here is {fingerprint}"
        for name, fingerprint in here.items()
        if played.get(name, fingerprint) != fingerprint
    ]


def _edited(facts: Mapping[str, Any], means: Mapping[str, tuple[float, Sequence[float]]]) -> list[str]:
    """In words: the seal does not fit, or, in results from before there were seals, a mean is none of its values."""
    if SEAL in facts:
        fault = seal_fault(facts)
        return [fault] if fault else []
    wrong = [
        name
        for name, (mean, values) in means.items()
        if _all_finite([mean, *values]) and abs(mean - sum(values) / len(values)) > ROUNDING * max(1.0, abs(mean))
    ]
    return [f"the mean of {first_few(wrong)} is not that of the values beside it: they were edited"] if wrong else []


def _all_finite(values: Sequence[float]) -> bool:
    return all(math.isfinite(value) for value in values)
