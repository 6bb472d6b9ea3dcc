"""The doctor and the baseline from scratch: whole, of other latents, unfinished, and in the wrong place."""

from __future__ import annotations

import shutil

import pytest

from ahriuwu_cli.agent.scratch import ScratchStage
from ahriuwu_cli.core.errors import ArtifactError, TrainingInterrupted
from ahriuwu_cli.pipeline import stages


@pytest.fixture(autouse=True)
def _quiet(no_tensorboard) -> None: ...


def test_a_baseline_is_known_and_its_untouched_heads_are_no_fault(run, doctor) -> None:
    """Pitfalls 2 and 3: heads that were never to learn are not reported, one that was is."""
    assert "scratch" not in doctor(run).areas  # it is no stage of the road
    stages.train_scratch(run)
    found = doctor(run)
    assert not found.problems
    assert {("scratch", check) for check in ("loads", "learned", "training", "made from", "specs", "state")} <= set(
        found.fine
    )


def test_a_baseline_of_other_latents_is_a_problem(run, doctor, sign) -> None:
    stages.train_scratch(run)
    sign(run.scratch, header=lambda fields: fields["parents"].update(packed="0123456789abcdef"))
    assert ("scratch", "made from") in {(row.area, row.check) for row in doctor(run).problems}
    sign(run.scratch, header=lambda fields: fields["info"].update(untrained=["policy.net.out.weight"]))
    assert ("scratch", "learned") in {(row.area, row.check) for row in doctor(run).problems}


def test_an_unfinished_baseline_is_gone_on_with(run, doctor, stop_at) -> None:
    stop_at(ScratchStage, 2)
    with pytest.raises(TrainingInterrupted):
        stages.train_scratch(run)
    stop_at(ScratchStage, 0)
    assert doctor(run).note("scratch", "training").endswith("`ahriuwu agent finetune --from-scratch --resume`")
    run.scratch.unlink()
    assert doctor(run).note("scratch", "header").endswith("`ahriuwu agent finetune --from-scratch --resume`")
    stages.train_scratch(run, resume=True)
    assert not doctor(run).problems


def test_neither_takes_the_place_of_the_other(run, doctor) -> None:
    """`imagine train` refuses a baseline before anything is touched; the doctor names it."""
    stages.train_scratch(run)
    shutil.copyfile(run.agent, run.folder / "kept.safetensors")
    shutil.copyfile(run.scratch, run.agent)
    before = run.imagination.read_bytes()
    with pytest.raises(ArtifactError, match="cloned from scratch: it has no world model") as caught:
        stages.train_imagination(run, overwrite=True)
    assert "ahriuwu agent finetune" in caught.value.hint
    assert run.imagination.read_bytes() == before
    assert ("agent", "made from") in {(row.area, row.check) for row in doctor(run).problems}
    shutil.copyfile(run.folder / "kept.safetensors", run.scratch)
    assert ("scratch", "made from") in {(row.area, row.check) for row in doctor(run).problems}
