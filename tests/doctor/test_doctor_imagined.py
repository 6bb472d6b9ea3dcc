"""What the doctor says of a dream that was exploited, and of a transformer that learned in imagination."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from ahriuwu_cli.core.tensorfile import read_tensors
from ahriuwu_cli.core.training.files import RunFiles
from ahriuwu_cli.doctor.checks import Subject
from ahriuwu_cli.doctor.findings import Area
from ahriuwu_cli.doctor.imagined import examine_imagined
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.config import Run, preset_run

REAL = {"imagined_reward_per_step": 0.3, "real_reward_per_step": 0.2, "reward_gap": 0.1}


def findings(path: Path, *lines: dict[str, Any]) -> list[tuple[str, str, str]]:
    path.write_text("".join(json.dumps({"step": 5 * i, **line}) + "\n" for i, line in enumerate(lines, 1)))
    area = Area("imagination", "")
    run = preset_run("tiny", path.parent.parent)
    examine_imagined(area, Subject(run, "imagination", path.with_name("imagination.safetensors"), None, {}, None))
    return [(found.check, found.status, found.found) for found in area.findings]


def test_what_is_within_the_data_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert findings(path, {"loss": 1.0}) == []
    found = findings(path, {"outside": 0.5, **REAL}, {"outside": 0.02}, {"loss": 1.0, "outside": None})
    assert found == [
        ("outside", "ok", "2% of imagined steps at step 10 are outside the recorded data"),
        ("real game", "ok", "reward per step at step 5: imagined 0.3, in the real game 0.2"),
    ]


def test_a_dream_that_was_exploited_is_told(tmp_path: Path) -> None:
    """Pitfall 35: many steps outside, and a reward that the real game does not pay."""
    line = {"outside": 0.4, "outside_reward": 0.3, "outside_latent": 0.2, **REAL, "real_reward_per_step": 0.1}
    outside, real = findings(tmp_path / "metrics.jsonl", {"outside": 0.0}, line)
    assert outside[:2] == ("outside", "note") and "40% of imagined steps at step 10" in outside[2]
    assert "(reward 30%, latents 20%)" in outside[2] and "imagine.guard.cut" in outside[2]
    assert real[:2] == ("real game", "note") and "imagined 0.3, in the real game 0.1" in real[2]


@pytest.mark.parametrize(("wanted", "got", "status"), [(-1.0, -1.4, "ok"), (-1.0, -3.0, "note"), (0.0, 0.0, "ok")])
def test_rewards_of_any_sign_are_compared(tmp_path: Path, wanted: float, got: float, status: str) -> None:
    line = {"imagined_reward_per_step": wanted, "real_reward_per_step": got, "reward_gap": wanted - got}
    [(_, found, _)] = findings(tmp_path / "metrics.jsonl", line)
    assert found == status


def test_a_transformer_that_learned_is_told_from_one_that_should_not_have(
    run: Run, doctor: Any, with_settings: Any, sign: Any, keep_until: Any
) -> None:
    """Pitfall 3: with imagine.transformer = finetuned everything moves; what does not is found."""
    keep_until(run, "agent")
    run = with_settings(run, 'imagine.transformer="finetuned"')
    stages.train_imagination(run)
    answer = doctor(run)
    assert answer.problems == []
    assert ("imagination", "frozen") in answer.fine
    assert RunFiles(run.imagination.parent, "imagination").metrics.is_file()
    agent = read_tensors(run.agent)

    def stick(tensors: dict[str, Tensor]) -> None:
        tensors["agent.world.slot"].copy_(agent["world.slot"])

    sign(run.imagination, tensors=stick)
    [found] = [problem.found for problem in doctor(run).problems if problem.check == "frozen"]
    assert found == "trained, but still as in the agent: agent.world.slot"
