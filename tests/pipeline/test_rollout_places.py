"""`eval rollout`: its flags, and that the results of one checkpoint never stand in the place of another's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import imageio.v3 as iio

from ahriuwu_cli.core.artifact import read_header


def place(folder: Path, kind: str) -> Path:
    return folder / kind / f"{kind}.safetensors"


def test_another_checkpoint_has_a_place_of_its_own(ahriuwu, run_dir, tree, tmp_path) -> None:
    config, results = run_dir / "run.toml", run_dir / "evaluation"
    other = tmp_path / "other"
    shutil.copytree(run_dir, other)
    trained = ahriuwu("dynamics", "train", "-c", other / "run.toml", "-s", "run.seed=5", "--overwrite", "--json")
    assert trained.code == 0, trained.err
    before = tree(results)
    outcome = ahriuwu("eval", "rollout", "-c", config, "--checkpoint", place(other, "dynamics"), "--json")
    assert outcome.code == 0, outcome.err
    mine = results / f"rollout-dynamics-{trained.data['fingerprint']}"
    assert json.loads((mine / "rollout.json").read_text()) == outcome.data
    assert before.items() <= tree(results).items()  # what was there is as it was
    assert outcome.data["fingerprint"] != json.loads((results / "rollout" / "rollout.json").read_text())["fingerprint"]


def test_a_copy_of_the_runs_own_is_the_runs_own(ahriuwu, run_dir, tmp_path) -> None:
    for kind, name in (("dynamics", "rollout"), ("imagination", "rollout-imagination")):
        copy = tmp_path / f"{kind}.safetensors"
        shutil.copyfile(place(run_dir, kind), copy)
        assert ahriuwu("eval", "rollout", "-c", run_dir / "run.toml", "--checkpoint", copy).code == 0
        facts = json.loads((run_dir / "evaluation" / name / "rollout.json").read_text())
        assert facts["fingerprint"] == read_header(copy, kind).fingerprint
    assert {path.name for path in (run_dir / "evaluation").iterdir()} == {"agent", "rollout", "rollout-imagination"}


def test_a_long_dream_in_few_steps_somewhere_else(ahriuwu, run_dir, tree, tmp_path) -> None:
    before = tree(run_dir)
    outcome = ahriuwu(
        "eval", "rollout", "-c", run_dir / "run.toml", "--horizon", "19", "--context", "3", "--steps", "1",
        "--out", tmp_path / "long", "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert (outcome.data["horizon"], outcome.data["context_length"], outcome.data["sampling_steps"]) == (19, 3, 1)
    assert {len(curve["psnr"]) for curve in outcome.data["curves"].values()} == {19}
    assert len(iio.imread(tmp_path / "long" / "rollout.gif")) == 22
    assert tree(run_dir) == before


def test_a_dream_longer_than_the_episodes(ahriuwu, run_dir, tree) -> None:
    before = tree(run_dir)
    outcome = ahriuwu("eval", "rollout", "-c", run_dir / "run.toml", "--horizon", "100")
    assert (outcome.code, outcome.out) == (3, "")
    assert "the longest heldout episode has" in outcome.err
    assert tree(run_dir) == before


def test_a_step_count_that_is_no_power_of_two(ahriuwu, run_dir) -> None:
    outcome = ahriuwu("eval", "rollout", "-c", run_dir / "run.toml", "--steps", "3")
    assert (outcome.code, outcome.out) == (2, "")
    assert "sampling_steps must be a power of two" in outcome.err
