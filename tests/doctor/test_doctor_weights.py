"""What the doctor says of trained artifacts: their tensors, what learned, their metrics and saved states."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from ahriuwu_cli.core.tensorfile import read_tensors
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.config import Run

RETRAIN = "make it again with `ahriuwu {} --overwrite`".format


# ---------------------------------------------------------------- weights


def test_a_weight_that_is_not_finite(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    keep_until(run, "imagination")

    def poison(tensors: dict[str, Tensor]) -> None:
        tensors["value.out.bias"][0] = float("nan")

    sign(run.imagination, tensors=poison)
    assert doctor(run).problems == [("imagination", "values", "not finite: value.out.bias", RETRAIN("imagine train"))]


def test_a_matrix_of_one_number(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    keep_until(run, "imagination")
    sign(run.imagination, tensors=lambda tensors: tensors["value.out.weight"].zero_())
    assert doctor(run).problems == [
        ("imagination", "spread", "tensors of one number only: value.out.weight", RETRAIN("imagine train"))
    ]


def test_weights_of_other_shapes(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    """Pitfall 1: a file that does not fit the model its own config describes is refused, not patched."""
    keep_until(run, "imagination")
    sign(run.imagination, tensors=lambda tensors: tensors.pop("prior.net.out.bias"))
    loads, frozen = doctor(run).problems
    assert loads[:2] == ("imagination", "loads")
    assert "prior.net.out.bias is missing" in loads.found
    assert frozen == (
        "imagination",
        "frozen",
        "frozen, but not as in the agent: prior.net.out.bias",
        RETRAIN("imagine train"),
    )


def test_heads_that_never_trained(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    """Pitfall 2: a head that is read later and never received a gradient."""
    keep_until(run, "imagination")
    sign(run.imagination, header=lambda fields: fields["info"].update(untrained=["value.out.bias"]))
    [problem] = doctor(run).problems
    assert problem[:3] == ("imagination", "learned", "never received a gradient: value.out.bias")


def test_a_training_that_skipped_a_head_is_found(
    run: Run, monkeypatch: pytest.MonkeyPatch, doctor: Any, keep_until: Any
) -> None:
    """Pitfall 2: the same, with the defect itself put into the training."""
    from ahriuwu_cli.agent import train as agent_training

    keep_until(run, "dynamics")

    def without_ends(*arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = real(*arguments)
        return loss.detach() * 0, metrics

    real = agent_training.alive_loss
    monkeypatch.setattr(agent_training, "alive_loss", without_ends)
    stages.finetune_agent(run)
    [problem] = doctor(run).problems
    assert problem[:2] == ("agent", "learned")
    assert problem.found.startswith("never received a gradient: alive.net.")


def test_frozen_parts_that_moved(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    """Pitfall 3: what trains is what was declared, and each of it moved."""
    keep_until(run, "imagination")
    agent = read_tensors(run.agent)

    def confuse(tensors: dict[str, Tensor]) -> None:
        tensors["agent.reward.net.out.bias"] += 1
        tensors["agent.policy.net.out.bias"].copy_(agent["policy.net.out.bias"])

    sign(run.imagination, tensors=confuse)
    [problem] = doctor(run).problems
    assert problem[:2] == ("imagination", "frozen")
    assert problem.found == (
        "frozen, but not as in the agent: reward.net.out.bias; trained, but still as in the agent: "
        "agent.policy.net.out.bias"
    )


def test_an_unfinished_training_is_a_note(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    keep_until(run, "imagination")
    change = {"finished": False, "steps": 1, "untrained": ["value.out.bias"]}
    sign(run.imagination, header=lambda fields: fields["info"].update(change))
    answer = doctor(run)
    assert answer.problems == []
    assert answer.note("imagination", "training") == (
        "stopped at step 1 of 2; go on with `ahriuwu imagine train --resume`"
    )
    assert "never received a gradient: value.out.bias" in answer.note("imagination", "learned")
    run.imagination.unlink()
    assert doctor(run).note("imagination", "header") == (
        "begun, not finished; go on with `ahriuwu imagine train --resume`"
    )


def test_a_state_of_another_training(run: Run, doctor: Any) -> None:
    shutil.copy(run.agent.with_name("agent.state.safetensors"), run.dynamics.with_name("dynamics.state.safetensors"))
    assert doctor(run).problems == [
        ("dynamics", "state", "it belongs to agent training", "start anew with --overwrite"),
    ]


# ---------------------------------------------------------------- metrics


def with_last(**change: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda lines: lines[-1].update(change)


METRICS: dict[str, tuple[Callable[[list[dict[str, Any]]], object], str]] = {
    "no loss": (with_last(loss=None), "the loss at step 3 is not finite"),
    "bad steps": (with_last(bad_steps=21), "21 steps were not finite, more than max_bad_steps = 20"),
    "collapse": (
        with_last(step=60, spread=0.01, spread_reference=0.2),
        "collapsed: predictions hardly differ (spread 0.01, truth 0.2)",
    ),
}


def rewrite_metrics(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("name", METRICS)
def test_metrics_that_went_wrong(run: Run, name: str, doctor: Any) -> None:
    """Pitfalls 15, 30: non-finite steps and predictions that collapsed to the mean."""
    change, found = METRICS[name]
    rewrite_metrics(run.tokenizer.with_name("metrics.jsonl"), change)
    [problem] = doctor(run).problems
    assert problem[:3] == ("tokenizer", "metrics", found)


def test_warnings_that_went_by_are_noted(run: Run, doctor: Any) -> None:
    def warn(lines: list[dict[str, Any]]) -> None:
        lines[-1]["bad_steps"] = 2
        lines.append({"step": 3, "warning": "clipped"})

    rewrite_metrics(run.dynamics.with_name("metrics.jsonl"), warn)
    run.tokenizer.with_name("metrics.jsonl").unlink()
    answer = doctor(run)
    assert answer.problems == []
    assert answer.note("dynamics", "metrics") == (
        "2 of 3 steps skipped as not finite, 1 warning; last warning, at step 3: clipped"
    )
    assert answer.note("tokenizer", "metrics").startswith("no log point in ")


BUCKETS: dict[str, tuple[str, str, dict[str, float], str]] = {
    "few ever used": (
        "agent",
        "reward",
        {"reward_buckets_ever": 1.0, "reward_buckets_used": 1.0},
        "reward targets use 1 of 11 buckets: lower agent.heads.bucket_limit (now 5) or agent.heads.num_buckets",
    ),
    "clamped": (
        "agent",
        "reward",
        {"reward_clamped": 0.031},
        "up to 0.031 of them lie beyond the range and are clamped: raise agent.heads.bucket_limit (now 5)",
    ),
    "few values": (
        "imagination",
        "value",
        {"value_buckets_used": 1.0},
        "value targets use 1 of 11 buckets: lower",
    ),
}


@pytest.mark.parametrize("name", BUCKETS)
def test_a_two_hot_range_that_does_not_fit_is_noted(run: Run, name: str, doctor: Any) -> None:
    """Pitfall 23: far too wide for its targets, or too narrow."""
    kind, target, change, found = BUCKETS[name]
    assert (kind, "buckets") in doctor(run).fine

    def set_all(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            assert f"{target}_buckets_used" in line
            line.update(change)

    rewrite_metrics(getattr(run, kind).with_name("metrics.jsonl"), set_all)
    answer = doctor(run)
    assert answer.problems == []
    assert found in answer.note(kind, "buckets")


def test_a_reward_seen_once_counts_as_used(run: Run, doctor: Any) -> None:
    """Pitfall 23: the most of all log points, not the last one."""

    def rare(lines: list[dict[str, Any]]) -> None:
        lines[0]["reward_buckets_ever"] = 7.0
        lines.append({**lines[0], "step": 4, "reward_buckets_ever": 1.0, "reward_buckets_used": 1.0})

    rewrite_metrics(run.agent.with_name("metrics.jsonl"), rare)
    assert ("agent", "buckets") in doctor(run).fine
