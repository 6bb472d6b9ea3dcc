"""What the doctor says of values: latents that carry nothing, statistics, evaluation results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.doctor.encodings import Spread
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.config import Run

# ---------------------------------------------------------------- latents


def test_a_dead_channel(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    """Pitfall 30: a tokenizer with a channel that carries nothing, taken through the real stage."""
    keep_until(run, "tokenizer")

    def kill(tensors: dict[str, Tensor]) -> None:
        name = max(name for name in tensors if name.startswith("encoder.") and name.endswith(".weight"))
        tensors[name][2] = 0

    sign(run.tokenizer, tensors=kill)
    stages.build_latents(run)
    [problem] = doctor(run).problems
    assert problem[:3] == (
        "latents",
        "spread",
        "tokenizer collapsed: 1 of 4 channels have a spread below 0.001 (2)",
    )
    assert problem.hint.startswith("train the tokenizer longer")


def test_latents_that_do_not_depend_on_the_frame() -> None:
    """Pitfall 30: every image gives the mean image; channels still differ from token to token."""
    spread, varied = Spread(), Spread()
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, 3, 2))
    for _ in range(2):
        spread.add(np.repeat(one, 5, axis=0).astype(np.float16))
        varied.add(rng.normal(size=(5, 3, 2)))
    assert spread.channels()[1].min() > 0.1
    assert spread.over_frames() < 1e-6
    assert varied.over_frames() > 0.1


def test_spread_is_that_of_all_values() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=(7, 3, 2))
    spread = Spread()
    spread.add(values[:4])
    spread.add(values[4:])
    mean, std = spread.channels()
    np.testing.assert_allclose(mean, values.mean(axis=(0, 1)))
    np.testing.assert_allclose(std, values.std(axis=(0, 1)))
    assert spread.over_frames() == pytest.approx(values.std(axis=0).max())


def test_statistics_that_are_not_those_of_the_latents(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    keep_until(run, "latents")
    mean = read_header(run.latents, "latents").specs["latent"]["mean"]
    sign(run.latents, header=lambda fields: fields["specs"]["latent"].update(mean=[mean[0] + 0.5, *mean[1:]]))
    [problem] = doctor(run).problems
    assert problem[:2] == ("latents", "statistics")
    assert problem.found == f"mean of channel 0 is recorded as {mean[0] + 0.5:.4g}, found {mean[0]:.4g}"


# ---------------------------------------------------------------- evaluation


def rewrite_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    facts = json.loads(path.read_text())
    change(facts)
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


@pytest.mark.parametrize(
    ("difference", "p_value", "shown"), [(2.0, 0.01, True), (2.0, 0.2, False), (-2.0, 0.01, False)]
)
def test_a_gain_that_may_be_luck_is_noted(
    run: Run, doctor: Any, difference: float, p_value: float, shown: bool
) -> None:
    """Pitfall 35: imagination training no better than cloning."""

    def set_gain(facts: dict[str, Any]) -> None:
        for entry in facts["comparisons"]:
            if (entry["agent"], entry["baseline"]) == ("imagination", "bc"):
                entry.update(difference=difference, p_value=p_value)

    rewrite_json(run.evaluation / "agent" / "agents.json", set_gain)
    answer = doctor(run)
    if shown:
        assert ("evaluation", "gain") in answer.fine
    else:
        text = f"imagination minus bc: {difference:+.2f}, p = {p_value:.2g}: not shown to be better"
        assert answer.note("evaluation", "gain") == text


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
