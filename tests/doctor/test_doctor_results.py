"""What the doctor says of evaluation results: stale, edited, without meaning; dreams and agents that are no good."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahriuwu_cli.core.artifact import Header, Provenance, read_header
from ahriuwu_cli.doctor.dreams import judge_dream
from ahriuwu_cli.doctor.findings import Area, Finding
from ahriuwu_cli.doctor.play import judge_play
from ahriuwu_cli.evaluation.seal import SEAL, sealed
from ahriuwu_cli.pipeline.config import Run


def rewrite_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change results as if the command had written them so; without a seal where one number is none."""
    facts = json.loads(path.read_text())
    change(facts)
    try:
        facts = sealed(facts)
    except ValueError:
        del facts[SEAL]
    path.write_text(json.dumps(facts))


def test_results_of_other_weights_are_noted(run: Run, doctor: Any) -> None:
    rewrite_json(run.evaluation / "rollout" / "rollout.json", lambda facts: facts.update(fingerprint="0" * 16))
    rewrite_json(run.evaluation / "agent" / "agents.json", lambda facts: facts["fingerprints"].update(bc="1" * 16))
    answer = doctor(run)
    assert answer.problems == []
    for check, named, kind in (("rollout", "dynamics " + "0" * 16, "dynamics"), ("agents", "bc " + "1" * 16, "agent")):
        here = read_header(getattr(run, kind), kind).fingerprint  # type: ignore[arg-type]
        assert answer.note("evaluation", check).endswith(f"of {named}, but here is {here}: stale")


def test_results_of_another_baseline_are_noted(run: Run, doctor: Any) -> None:
    """The baseline lies beside the road; its weights are looked at all the same."""
    shutil.copytree(run.agent.parent, run.scratch.parent)
    here = read_header(run.scratch, "agent").fingerprint
    results = run.evaluation / "agent" / "agents.json"
    rewrite_json(results, lambda facts: facts["fingerprints"].update(scratch=here))
    assert "stale" not in str(doctor(run).notes)
    rewrite_json(results, lambda facts: facts["fingerprints"].update(scratch="2" * 16))
    assert doctor(run).note("evaluation", "agents").endswith(f"scratch {'2' * 16}, but here is {here}: stale")


def test_frozen_agents_are_noted(run: Run, doctor: Any) -> None:
    """Pitfalls 16 and 17: an agent that takes one action for ever; a baseline that is made so is none of them."""
    results = run.evaluation / "agent" / "agents.json"

    def repeat(**shares: float) -> None:
        rewrite_json(results, lambda facts: [facts["actions"][name].update(repeated=x) for name, x in shares.items()])

    repeat(bc=0.5, imagination=0.8)
    assert json.loads(results.read_text())["actions"]["repeat-last"]["repeated"] == 1.0
    assert ("evaluation", "actions") in doctor(run).fine
    repeat(imagination=1.0)
    found = doctor(run).note("evaluation", "actions")
    assert found == "steps that repeat the action before: bc 50 %, imagination 100 %; imagination may be frozen"
    rewrite_json(results, lambda facts: facts.pop("actions"))  # as older results are
    assert doctor(run).problems == []


def test_results_that_say_nothing(run: Run, doctor: Any) -> None:
    """Pitfall 7: a dream judged on training episodes, agents on recorded ones; and numbers that are none."""
    episodes = read_header(run.episodes, "episodes").info["episodes"]
    train = next(entry["id"] for entry in episodes if entry["split"] == "train")

    def spoil(facts: dict[str, Any]) -> None:
        facts["heldout_episodes"].append(train)
        facts["curves"]["dream"]["psnr"][0] = float("nan")

    rewrite_json(run.evaluation / "rollout" / "rollout.json", spoil)
    seed = episodes[0]["seed"]
    rewrite_json(run.evaluation / "agent" / "agents.json", lambda facts: facts["environment"]["seeds"].append(seed))
    assert doctor(run).problems == [
        (
            "evaluation",
            "rollout",
            f"curves hold values that are no numbers; it was judged on episodes that are not held out: {train}",
            "run `ahriuwu eval rollout` again",
        ),
        (
            "evaluation",
            "agents",
            f"episodes played that are in the recording: seeds {seed}",
            "run `ahriuwu eval agent` again",
        ),
    ]


@pytest.mark.parametrize("with_seal", [True, False])
@pytest.mark.parametrize("name", ["rollout/rollout.json", "agent/agents.json"])
def test_edited_results_are_found(run: Run, doctor: Any, name: str, with_seal: bool) -> None:
    """By the seal; in results from before there were seals, by a mean that is none of the values beside it."""
    path = run.evaluation / name
    facts = json.loads(path.read_text())
    one = facts["curves"]["dream"] if "curves" in facts else facts["agents"]["imagination"]
    one["psnr_mean" if "curves" in facts else "mean"] += 2.0
    if not with_seal:
        del facts[SEAL]
    path.write_text(json.dumps(facts))
    [problem] = doctor(run).problems
    assert problem[:2] == ("evaluation", path.stem)
    assert "edited" in problem.found
    assert "ahriuwu eval" in problem.hint


# ---------------------------------------------------------------- dreams


def world(steps: int = 500) -> Header:
    made = Provenance(version="0", torch="0", date="")
    info = {"finished": True, "steps": steps}
    return Header(kind="dynamics", fingerprint="0" * 16, info=info, provenance=made)


def dream(
    dreamed: float, shuffled: float, still: float, *, contexts: int = 64, steps: int = 500, kept: float = 40.0
) -> Finding:
    scores = {"reconstruction": kept, "dream": dreamed, "shuffled actions": shuffled, "persistence": still}
    facts = {"contexts": contexts, "curves": {name: {"psnr_mean": score} for name, score in scores.items()}}
    area = Area("evaluation", "remedy")
    judge_dream(area, "rollout", "dynamics", facts, world(steps))
    [found] = area.findings
    return found


def test_a_dream_is_judged_by_its_lead_over_a_still_picture() -> None:
    """Pitfall 40: indifferent to its actions, whatever a dB means in the game."""
    assert dream(21.64, 18.94, 17.96).status == "ok"  # the built-in game
    assert dream(30.16, 30.13, 29.9).status == "ok"  # little is lost, for there is little
    deaf = dream(33.0, 32.84, 28.0)
    assert (deaf.status, deaf.check) == ("PROBLEM", "dream")
    assert "hardly depends on the actions: shuffled actions cost 0.16 of the 5.00 dB" in deaf.found
    assert "data.policy" in deaf.hint
    still = dream(17.0, 16.0, 17.5)
    assert still.status == "PROBLEM" and "no better than a still picture" in still.found
    assert "dynamics.train.steps" in still.hint


def test_what_rests_on_little_is_a_note() -> None:
    assert dream(17.0, 16.0, 17.5, contexts=4).status == "note"
    assert dream(17.0, 16.0, 17.5, steps=3).status == "note"
    assert dream(38.0, 37.0, 60.0).status == "note"  # nothing moves: no tokenizer is as sharp as a still picture
    assert "eval.horizon" in dream(38.0, 37.0, 60.0).hint


# ---------------------------------------------------------------- agents


def play(*entries: tuple[str, str, float, float | None, float | None], n: int = 100) -> list[Finding]:
    names = ("agent", "baseline", "difference", "low", "high")
    facts = {
        "fingerprints": {},
        "comparisons": [dict(zip(names, entry, strict=True)) | {"n": n, "p_value": 0.5} for entry in entries],
    }
    area = Area("evaluation", "remedy")
    judge_play(area, facts)
    return area.findings


BETTER, EQUAL, WORSE = (2.0, 1.0, 3.0), (0.1, -0.5, 0.7), (-2.0, -3.0, -1.0)


@pytest.mark.parametrize(
    ("agent", "rival", "difference", "status"),
    [
        ("bc", "random", BETTER, "ok"),
        ("bc", "random", EQUAL, "PROBLEM"),
        ("bc", "repeat-last", EQUAL, "PROBLEM"),
        ("bc", "scratch", EQUAL, "note"),
        ("bc", "scratch", WORSE, "PROBLEM"),
        ("imagination", "random", WORSE, "PROBLEM"),
        ("imagination", "scratch", EQUAL, "note"),
        ("imagination", "bc", BETTER, "ok"),
        ("imagination", "bc", EQUAL, "note"),
        ("imagination", "bc", WORSE, "PROBLEM"),
        ("scratch", "random", EQUAL, "note"),
        ("bc", "random", (0.0, 0.0, 0.0), "PROBLEM"),
    ],
)
def test_an_agent_is_judged_by_its_intervals(
    agent: str, rival: str, difference: tuple[float, float, float], status: str
) -> None:
    """Pitfalls 35, 36, 40."""
    [found] = play((agent, rival, *difference))
    assert (found.check, found.status) == (agent, status)
    assert "over 100 paired episodes of this one training" in found.found
    assert status == "ok" or "train" in found.hint


def test_few_episodes_prove_nothing_and_all_rivals_are_named() -> None:
    [found] = play(("bc", "random", *EQUAL), ("bc", "repeat-last", *WORSE), ("bc", "scratch", *BETTER), n=5)
    assert found.status == "note" and "raise eval.episodes" in found.hint
    assert found.found.startswith("worse than repeat-last and not shown to be better than random: minus random +0.10")
    [single] = play(("bc", "random", 3.0, None, None), n=1)
    assert single.status == "note" and "interval unknown" in single.found
    assert play(("dataset", "random", *EQUAL), ("repeat-last", "random", *EQUAL)) == []  # nobody learned these
