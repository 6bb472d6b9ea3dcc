"""What the doctor says of losses: blind heads, a clueless policy, a world that was harmed, how each ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ahriuwu_cli.core.artifact import Header, Kind, Provenance
from ahriuwu_cli.doctor.checks import Subject, run_checks
from ahriuwu_cli.doctor.dreams import judge_worlds
from ahriuwu_cli.doctor.findings import Area, Finding
from ahriuwu_cli.doctor.table import CHECKS
from ahriuwu_cli.pipeline.config import Run, preset_run

LEARNED = {
    "heldout_policy": 0.70,
    "heldout_policy_uniform": 1.099,
    "heldout_policy_marginal": 1.05,
    "heldout_accuracy": 0.8,
    "heldout_accuracy_repeat_last": 0.6,
    "heldout_reward": 0.10,
    "heldout_reward_baseline": 0.25,
    "heldout_continue": 0.02,
    "heldout_continue_baseline": 0.06,
    "heldout_end_share": 0.012,
    "heldout_flow": 0.10,
    "heldout_flow_parent": 0.10,
    "heldout_shuffled_flow": 0.12,
}
JUDGES = ("heldout", "relevant", "policy", "reward head", "continue head", "listens", "world", "course")


def findings(
    folder: Path,
    heldout: dict[str, float] | None,
    *,
    name: str = "agent",
    steps: int = 700,
    **info: Any,
) -> dict[str, Finding]:
    """What the judging rows say of an artifact with such a header and metrics, by check."""
    run = preset_run("tiny", folder)
    kind: Kind = "agent" if name in ("agent", "scratch") else name  # type: ignore[assignment]
    facts = {"finished": True, "steps": steps, "untrained": [], **info}
    if heldout is not None:
        facts["heldout"] = heldout
    config = {"agent": {"relevant_reach": 4}}
    header = Header(
        kind=kind,
        fingerprint="0" * 16,
        config=config,
        info=facts,
        provenance=Provenance(version="0", torch="0", date=""),
    )
    path: Path = getattr(run, name)
    area = Area(name, "remedy")
    table = [check for check in CHECKS if check.name in JUDGES]
    run_checks(area, Subject(run, name, path, header, {}, None), table)
    return {finding.check: finding for finding in area.findings}


def test_what_has_learned_is_fine(tmp_path: Path) -> None:
    found = findings(tmp_path, LEARNED, trend={"heldout_policy": trend(-0.01)})
    assert {check: finding.status for check, finding in found.items()} == dict.fromkeys(
        ("policy", "reward head", "continue head", "listens", "world", "course"), "ok"
    )


@pytest.mark.parametrize(
    ("check", "change", "said", "setting"),
    [
        ("policy", {"heldout_policy": 1.06}, "no better than the action frequencies", "agent.train.learning_rate"),
        ("policy", {"heldout_policy": 1.045}, "no better than the action frequencies", "agent.train.steps"),
        ("reward head", {"heldout_reward": 0.249}, "blind: held-out loss 0.249", "agent.reward_weight"),
        ("continue head", {"heldout_continue": 0.061}, "blind: held-out loss 0.061", "agent.train.steps"),
        ("listens", {"heldout_shuffled_flow": 0.0999}, "does not depend on the actions", "dynamics.train.steps"),
        ("world", {"heldout_flow_parent": 0.06}, "finetuning cost its world 2.2 dB", "agent.train.learning_rate"),
    ],
)
def test_what_is_no_better_than_nothing(
    tmp_path: Path, check: str, change: dict[str, float], said: str, setting: str
) -> None:
    """Pitfalls 36, 39, 40: each defect alone, and after a few steps only a note."""
    found = findings(tmp_path, LEARNED | change)
    assert [name for name, finding in found.items() if finding.status == "PROBLEM"] == [check]
    assert said in found[check].found
    assert setting in found[check].hint
    assert findings(tmp_path, LEARNED | change, steps=3)[check].status == "note"
    assert findings(tmp_path, LEARNED | change, finished=False)[check].status == "note"


def test_what_cannot_be_told_is_a_note(tmp_path: Path) -> None:
    assert findings(tmp_path, None)["heldout"].status == "note"  # an older artifact
    assert findings(tmp_path, None).keys() == {"heldout", "course"}
    unending = findings(tmp_path, LEARNED | {"heldout_end_share": 0.0, "heldout_continue": 0.06})["continue head"]
    assert unending.status == "note" and "data.max_episode_steps" in unending.hint
    random = findings(tmp_path, LEARNED | {"heldout_policy": 1.097, "heldout_policy_marginal": 1.098})["policy"]
    assert random.status == "note" and "nothing to imitate" in random.found
    assert findings(tmp_path, LEARNED | {"heldout_flow_parent": 0.073})["world"].status == "note"
    assert findings(tmp_path, LEARNED | {"heldout_shuffled_flow": 0.1005})["listens"].status == "note"
    always = {"heldout_reward": 2e-4, "heldout_reward_baseline": 1e-4}
    assert findings(tmp_path, LEARNED | always)["reward head"].status == "ok"
    assert findings(tmp_path, LEARNED | {"heldout_accuracy": 0.5})["accuracy"].status == "note"


@pytest.mark.parametrize(
    ("shares", "status", "said", "setting"),
    [
        ({"play": 0.3}, "ok", "30.0% of the training windows, for task play", ""),
        ({"play": 0.0}, "note", "no window is relevant", "agent.relevant = "),
        ({"play": 0.99}, "note", "99.0% of the windows", "lower agent.relevant_reach"),
    ],
)
def test_how_much_was_relevant(tmp_path: Path, shares: dict[str, float], status: str, said: str, setting: str) -> None:
    found = findings(tmp_path, LEARNED, name="scratch", relevant=shares)["relevant"]
    assert found.status == status and said in found.found and setting in found.hint
    assert "relevant" not in findings(tmp_path, LEARNED, name="scratch")


# ---------------------------------------------------------------- how they ended


def trend(change: float, error: float = 0.0, last: float = 0.8, best: float = 0.8) -> dict[str, float]:
    """Of a training of 700 steps whose decay began at 490."""
    return {"change": change, "error": error, "from": 350, "to": 490, "last": last, "best": best, "best_step": 500}


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        (
            trend(-0.1),
            "note",
            "heldout_policy still fell by 10.0% from step 350 to step 490, where the decay began; 0.8",
        ),
        (trend(-0.03), "ok", "heldout_policy 0.8 at the end; -3.0% from step 350"),
        (trend(-0.1, error=0.06), "ok", "-10.0%"),  # noise
        (trend(0.02), "ok", "+2.0%"),
        (trend(0.1, last=1.2), "note", "heldout_policy was 0.8 at step 500 and is 1.2 at the end"),
    ],
)
def test_how_a_loss_ended(tmp_path: Path, given: dict[str, float], status: str, said: str) -> None:
    found = findings(tmp_path, LEARNED, name="scratch", trend={"heldout_policy": given, "policy_loss": trend(-0.5)})
    assert found["course"].status == status and said in found["course"].found
    assert status == "ok" or "agent.train.steps" in found["course"].hint
    kept = findings(tmp_path, LEARNED, name="scratch", trend={"heldout_policy": given}, kept_step=500)["course"]
    assert kept.status == ("note" if "still" in said else "ok")  # what rose again was not kept


def test_losses_of_training_are_judged_where_nothing_was_held_out(tmp_path: Path) -> None:
    found = findings(tmp_path, None, name="scratch", trend={"policy_loss": trend(-0.1, last=2.0)})["course"]
    assert (found.status, found.found.split()[0]) == ("note", "policy_loss")
    found = findings(tmp_path, None, name="scratch", trend={"policy_loss": trend(0.0, last=2.0)})["course"]
    assert found.status == "ok"  # of its noise nothing is to be said


def test_a_course_that_is_not_known_is_said_to_be(tmp_path: Path) -> None:
    older = findings(tmp_path, LEARNED, name="scratch")["course"]
    assert older.status == "note" and "cannot be judged" in older.found and older.hint
    short = findings(tmp_path, LEARNED, name="scratch", trend={})["course"]
    assert short.status == "note" and "too few measurements" in short.found
    assert "course" not in findings(tmp_path, LEARNED, name="scratch", finished=False)


def test_a_blind_head_is_a_problem_of_the_run(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    """Pitfall 40: "no problem" was said of a run whose continue head saw no end."""
    keep_until(run, "agent")
    change = {"steps": 700, "heldout": LEARNED | {"heldout_continue": 0.06}}
    sign(run.agent, header=lambda fields: fields["info"].update(change))
    answer = doctor(run)
    assert answer.code == 3
    assert [problem[:2] for problem in answer.problems] == [("agent", "continue head")]


def test_dreams_of_the_agent_and_of_the_dynamics_are_compared() -> None:
    """Pitfall 39: imagination trains in the agent's own world."""

    def facts(dream: float, contexts: int = 64) -> dict[str, Any]:
        curves = {"dream": {"psnr_mean": dream}, "persistence": {"psnr_mean": 17.0}}
        same = {"context_length": 8, "horizon": 16, "sampling_steps": 4, "heldout_episodes": ["000000"]}
        return {"contexts": contexts, "curves": curves, **same}

    def status(parent: dict[str, Any], own: dict[str, Any]) -> list[str]:
        area = Area("evaluation", "remedy")
        judge_worlds(area, parent, own)
        return [finding.status for finding in area.findings]

    assert status(facts(21.0), facts(20.8)) == ["ok"]
    assert status(facts(21.0), facts(20.3)) == ["note"]
    assert status(facts(21.0), facts(18.8)) == ["PROBLEM"]
    assert status(facts(21.0, 4), facts(18.8, 4)) == ["note"]
    assert status(facts(21.0), facts(18.8, 4)) == []  # they dreamed of other things
