"""`ablate`: every variant trained and judged once, gone on with where it stopped, and the table of what there is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.errors import ConfigError, InputError, TrainingInterrupted
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.dynamics.train import DynamicsStage
from ahriuwu_cli.experiments.ablation import Request, run_ablation
from ahriuwu_cli.experiments.ablation.plan import load_plan
from ahriuwu_cli.experiments.ablation.table import make_table
from ahriuwu_cli.experiments.plans import as_markdown

EXAMPLES = Path(__file__).parents[2] / "examples" / "ablation"

ABLATION = """
run = "run.toml"
seeds = [0, 1]
sampling_steps = [2]

[[variant]]
name = "no ramp"
overrides = ["dynamics.objective.ramp=false"]

[[variant]]
name = "+ ramp"
sampling_steps = [4, 1]

[[variant]]
name = "no registers"
optional = true
overrides = ["dynamics.model.num_registers=0"]
"""


@pytest.fixture(autouse=True)
def _quick(no_tensorboard) -> None: ...


@pytest.fixture
def plan_file(run_dir) -> Path:
    """An ablation.toml beside the finished minuscule run, whose episodes, tokenizer and latents it takes."""
    path = run_dir / "ablation.toml"
    path.write_text(ABLATION)
    return path


@pytest.fixture
def ablate(plan_file) -> Callable[..., Report]:
    """Run the ablation in the run's folder."""

    def call(**asked) -> Report:
        return run_ablation(Request(config=plan_file, folder=plan_file.parent, **asked))

    return call


@pytest.fixture
def trained(monkeypatch) -> list[int]:
    """Counts steps of dynamics training: one entry for each, the step's number."""
    loss, steps = DynamicsStage.loss, []

    def counted(self: DynamicsStage, step: int, batch: object) -> object:
        steps.append(step)
        return loss(self, step, batch)

    monkeypatch.setattr(DynamicsStage, "loss", counted)
    return steps


def fingerprint(folder: Path, slug: str, seed: int) -> str:
    path = folder / "ablation" / slug / f"seed{seed}" / "dynamics" / "dynamics.safetensors"
    return read_header(path, "dynamics").fingerprint


# ---------------------------------------------------------------- the work


def test_one_call_makes_the_table_and_a_second_one_nothing(ahriuwu, plan_file, tree, road) -> None:
    folder = plan_file.parent
    before = tree(folder)
    outcome = ahriuwu("ablate", "-c", plan_file, "--dir", folder, "--json")
    assert outcome.code == 0, outcome.err
    rows = outcome.data["rows"]
    assert [(row["variant"], row["sampling_steps"], row["seeds"]) for row in rows] == [
        ("no ramp", 2, [0, 1]), ("+ ramp", 4, [0, 1]), ("+ ramp", 1, [0, 1]),
    ]  # fmt: skip
    assert all(len(set(row["psnr"])) == 2 for row in rows)  # two seeds, two models
    assert outcome.data["missing"] == []
    assert [entry["name"] for entry in outcome.data["references"]] == [
        "actions of other contexts: + ramp", "tokenizer ceiling", "persistence",
    ]  # fmt: skip
    assert json.loads((folder / "results.json").read_text()) == outcome.data
    assert (folder / "table.md").read_text().count("\n| ") == 1 + 1 + 3 + 3

    after = tree(folder)
    assert before.items() <= after.items()  # the run itself is as it was
    assert not [name for name in after.keys() - before.keys() if "packed" in name or "tokenizer" in name]
    assert fingerprint(folder, "ramp", 0) == road.said["dynamics train"].data["fingerprint"]
    again = ahriuwu("ablate", "-c", plan_file, "--dir", folder, "--json")
    assert (again.data, again.err) == (outcome.data, "")
    assert tree(folder) == after


def test_an_interrupted_training_goes_on_to_the_same_end(ablate, plan_file, stop_at, trained, road) -> None:
    """Pitfall 14: stopped and gone on with, the weights are those of a run without a break."""
    stop_at(DynamicsStage, 1)
    with pytest.raises(TrainingInterrupted, match="stopped at step 1 of 3") as caught:
        ablate(only=["+ ramp"], seeds=[0])
    assert caught.value.hint == "run the same command again to go on"
    spent = json.loads((plan_file.parent / "ablation" / "ramp" / "seed0" / "cost.json").read_text())["cpu_seconds"]
    stop_at(DynamicsStage, 0)
    trained.clear()
    ablate(only=["+ ramp"], seeds=[0])
    assert fingerprint(plan_file.parent, "ramp", 0) == road.said["dynamics train"].data["fingerprint"]
    whole = json.loads((plan_file.parent / "ablation" / "ramp" / "seed0" / "cost.json").read_text())["cpu_seconds"]
    assert 0 < spent < whole


def test_what_changed_is_made_again_and_nothing_else(ablate, plan_file, trained) -> None:
    ablate()
    assert len(trained) == 4 * 3
    kept = fingerprint(plan_file.parent, "ramp", 0)
    trained.clear()
    plan_file.write_text(ABLATION.replace("ramp=false", "image_fraction=0.5"))
    report = ablate(seeds=[0])
    assert len(trained) == 3
    assert report.data["missing"] == ["no ramp, seed 1"]  # its result is of another variant
    assert fingerprint(plan_file.parent, "ramp", 0) == kept

    trained.clear()
    ablate(overrides=["dynamics.train.log_every=1"])  # a cadence changes no weights
    assert len(trained) == 3  # the one that was left
    trained.clear()
    ablate(overrides=["dynamics.train.steps=4"])
    assert len(trained) == 4 * 4  # from the start: the schedule is another one


def test_other_questions_are_answered_without_training(ablate, trained) -> None:
    first = ablate(only=["+ ramp"], seeds=[0])
    trained.clear()
    shorter = ablate(only=["+ ramp"], seeds=[0], overrides=["eval.horizon=2"])
    assert not trained
    assert shorter.data["horizon"] == 2
    assert shorter.data["rows"][0]["psnr"] != first.data["rows"][0]["psnr"]
    assert ablate(table_only=True).data["rows"] == []  # those were of a horizon of 2


def test_another_tokenizer_makes_all_of_it_again(ahriuwu, ablate, plan_file, trained) -> None:
    """Nothing is called done that was made from what is no longer there."""
    before = ablate(only=["+ ramp"], seeds=[0])
    trained.clear()
    config = plan_file.parent / "run.toml"
    config.write_text(config.read_text().replace("[tokenizer.train]", "[tokenizer.train]\n", 1))
    assert ahriuwu("tokenizer", "train", "-c", config, "-s", "tokenizer.train.steps=2", "--overwrite").code == 0
    after = ablate(only=["+ ramp"], seeds=[0])  # the tokenizer is of other settings: made again as the config says
    assert len(trained) == 0
    assert after.data == before.data
    ablate(only=["+ ramp"], seeds=[0], overrides=["tokenizer.train.steps=2"])
    assert len(trained) == 3


def test_the_base_is_made_first(ahriuwu, run_dir, tmp_path) -> None:
    folder, config = tmp_path / "fresh", tmp_path / "plan"
    config.mkdir()
    shutil.copyfile(run_dir / "run.toml", config / "run.toml")
    (config / "ablation.toml").write_text(ABLATION)
    outcome = ahriuwu("ablate", "-c", config / "ablation.toml", "--dir", folder, "--base-only")
    assert outcome.code == 0, outcome.err
    assert {path.name for path in folder.iterdir()} == {"episodes", "tokenizer", "latents", "packed", "data-cost.json"}
    for kind in ("packed", "latents"):
        assert read_header(folder / kind, kind).fingerprint == read_header(run_dir / kind, kind).fingerprint
    assert sorted(path.name for path in config.iterdir()) == ["ablation.toml", "run.toml"]


# ---------------------------------------------------------------- shares of it


def test_shares_add_up_to_the_whole(ablate, plan_file, tree) -> None:
    """Two processes need no lock: each item has its folder, and whoever is last sees them all."""
    half = ablate(seeds=[1])
    assert half.data["missing"] == ["no ramp, seed 0", "+ ramp, seed 0"]
    assert half.data["rows"][0]["seeds"] == [1]
    assert half.rows[0][2] == f"{half.data['rows'][0]['psnr'][0]:.2f}"  # one seed has no spread
    written = {name for name in tree(plan_file.parent / "ablation") if name.count("/") == 1}
    assert written == {"no-ramp/seed1", "ramp/seed1"}
    ablate(only=["no ramp"])
    ablate(only=["+ ramp"])
    whole = ablate(table_only=True)
    assert whole.data["missing"] == []
    assert whole.data == ablate().data


def test_an_optional_variant_is_made_when_it_is_named(ablate) -> None:
    assert "no registers" not in {row["variant"] for row in ablate(seeds=[0]).data["rows"]}
    named = ablate(only=["no registers"], seeds=[0])
    assert named.data["rows"][-1]["variant"] == "no registers"
    assert "no registers, seed 1" in named.data["missing"]


# ---------------------------------------------------------------- the table


def test_numbers_by_hand(plan_file) -> None:
    def result(psnr: float, minutes: float) -> dict:
        curve = {"psnr_mean": psnr, "ssim_mean": psnr / 100, "video_distance": 1.0}
        return {
            "dreams": dict.fromkeys("124", curve),
            "references": dict.fromkeys(("reconstruction", "shuffled actions", "persistence"), curve),
            "cost": {"seconds_per_step": psnr / 10, "cpu_seconds": 60 * minutes},
            "step_distance": None,
            "shuffled_steps": 2,
            "video_floor": 0.5,
        }

    plan = load_plan(plan_file, None, ())
    report = make_table(plan, {("no ramp", 0): result(20.0, 1), ("no ramp", 1): result(23.0, 2)})
    assert report.rows[0] == ("no ramp", "2", "21.50 ± 2.12", "0.215 ± 0.021", "1000.0 ± 0.0", "2.150", "1.5", "2")
    assert [row[0] for row in report.rows[1:]] == [
        "actions of other contexts: no ramp", "tokenizer ceiling", "persistence",
    ]  # fmt: skip
    assert report.data["missing"] == ["+ ramp, seed 0", "+ ramp, seed 1"]
    lines = as_markdown(report, "ahriuwu ablate").splitlines()
    assert lines[4].startswith("| variant | K | PSNR dB |") and set(lines[5]) <= set("| -")
    assert lines[6] == f"| {' | '.join(report.rows[0])} |"
    assert make_table(plan, {}).rows == []


# ---------------------------------------------------------------- plans


@pytest.mark.parametrize("name", ["bricks", "freeway"])
def test_the_examples_are_the_cascade_of_the_paper(name) -> None:
    """Each row adds one thing to the row before, and the last is the run itself."""
    plan = load_plan(EXAMPLES / name / "ablation.toml", None, ())
    assert plan.base.folder == Path("runs") / f"ablation-{name}"
    required = [variant for variant in plan.variants if not variant.optional]
    changes = [set(variant.overrides) for variant in required]
    assert all(less < more for less, more in zip(changes[1:], changes, strict=False))
    assert not changes[-1]
    one = [next(item for item in plan.items if item.variant == variant) for variant in plan.variants]
    assert all(4 in item.steps for item in one)
    dynamics = [item.run.config.dynamics for item in one]
    assert [(d.model.shortcut, d.model.prediction, d.objective.loss_space, d.objective.ramp) for d in dynamics[:6]] == [
        (False, "v", "v", False), (True, "v", "v", False), (True, "x", "v", False), (True, "x", "x", False),
        (True, "x", "x", True), (True, "x", "x", True),
    ]  # fmt: skip
    assert [d.short_length == d.long_length for d in dynamics[:6]] == [True] * 5 + [False]
    assert {item.run.config.run.seed for item in plan.items} == set(plan.settings.seeds)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"dynamics.objective.ramp=false"', '"data.episodes=9"', r'variant "no ramp": it sets data\.episodes'),
        ("ramp=false", "rampe=false", r"unknown key dynamics\.objective\.rampe"),
        ("[4, 1]", "[3]", r"sampling_steps has 3; expected powers of two up to k_max 4"),
        ("[4, 1]", "[8]", r"sampling_steps has 8"),
        ('"+ ramp"', '"no--ramp"', r"variant names are no-ramp, no-ramp"),
        ("[0, 1]", "[1, 1]", r"seeds are 1, 1"),
        ("[0, 1]", "[]", r"seeds are none"),
        ("optional", "optionel", r"variant 3: unknown key optionel; nearest valid key: optional"),
        ("seeds =", "seed =", r"unknown key seed"),
        ("[[variant]]", "[[variants]]", r"unknown key variants"),
        (ABLATION[ABLATION.index("\n[[") :], "", r"has no \[\[variant\]\]"),
    ],
)
def test_a_plan_that_cannot_be_used(plan_file, tree, ablate, before, after, message) -> None:
    plan_file.write_text(ABLATION.replace(before, after))
    there = tree(plan_file.parent)
    with pytest.raises(ConfigError, match=message):
        ablate()
    assert tree(plan_file.parent) == there


@pytest.mark.parametrize(
    ("asked", "message"), [({"only": ["ramp"]}, r"--only ramp is not in .*\+ ramp"), ({"seeds": [7]}, "--seed 7")]
)
def test_what_the_plan_does_not_have(ablate, asked, message) -> None:
    with pytest.raises(InputError, match=message):
        ablate(**asked)


def test_a_plan_that_is_not_there(ahriuwu, tmp_path) -> None:
    outcome = ahriuwu("ablate", "-c", tmp_path / "none.toml")
    assert (outcome.code, outcome.out) == (2, "")
    assert [line.partition(":")[0] for line in outcome.err.splitlines()] == ["error", "hint"]
