"""`study`: every seed's agents trained and played once, gone on with where it stopped, pooled, and put into words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ahriuwu_cli.agent.scratch import ScratchStage
from ahriuwu_cli.agent.train import AgentStage
from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.errors import ConfigError, InputError, TrainingInterrupted
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.dynamics.train import DynamicsStage
from ahriuwu_cli.evaluation.pooled import pool_returns
from ahriuwu_cli.experiments.study import Request, run_study
from ahriuwu_cli.experiments.study.plan import load_plan
from ahriuwu_cli.experiments.study.results import game_name, judge
from ahriuwu_cli.experiments.study.table import make_table
from ahriuwu_cli.imagination.train import ImagineStage
from ahriuwu_cli.pipeline import stages

EXAMPLES = Path(__file__).parents[2] / "examples"

STUDY = """
run = "run.toml"
seeds = [0, 1]
scratch = ["agent.train.steps=2"]
"""
USUAL = ["random", "repeat-last", "dataset", "scratch", "bc", "imagination"]


@pytest.fixture(autouse=True)
def _quick(no_tensorboard, monkeypatch) -> None:
    """No pictures of the episodes that are played: they are not what is tested here."""
    for name in ("write_videos", "plot_returns", "plot_actions"):
        monkeypatch.setattr(f"ahriuwu_cli.evaluation.agents.{name}", lambda *arguments, **options: None)


@pytest.fixture
def plan_file(run_dir) -> Path:
    """A study.toml beside the finished minuscule run, whose world it takes."""
    path = run_dir / "study.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def study(plan_file) -> Callable[..., Report]:
    """Run the study in the run's folder."""

    def call(**asked) -> Report:
        return run_study(Request(config=plan_file, folder=plan_file.parent, **asked))

    return call


@pytest.fixture
def steps(monkeypatch) -> dict[str, int]:
    """Counts training steps by stage, and evaluations."""
    counts: dict[str, int] = {}
    for stage in (DynamicsStage, ScratchStage, AgentStage, ImagineStage):

        def counted(self, step, original=stage.loss) -> object:
            name = type(self).__name__.removesuffix("Stage")
            counts[name] = counts.get(name, 0) + 1
            return original(self, step)

        monkeypatch.setattr(stage, "loss", counted)
    play = stages.evaluate_agent

    def played(*arguments) -> Report:
        counts["played"] = counts.get("played", 0) + 1
        return play(*arguments)

    monkeypatch.setattr(stages, "evaluate_agent", played)
    return counts


# ---------------------------------------------------------------- the work


def test_one_call_makes_it_all_and_a_second_one_nothing(ahriuwu, plan_file, tree, steps) -> None:
    folder = plan_file.parent
    before = tree(folder)
    outcome = ahriuwu("study", "run", "-c", plan_file, "--dir", folder, "--json")
    assert outcome.code == 0, outcome.err
    results = outcome.data
    assert (results["agents"], results["missing"], results["game"]) == (USUAL, [], "Bricks")
    assert [entry["seed"] for entry in results["seeds"]] == [0, 1]
    for entry in results["seeds"]:
        assert list(entry["agents"]) == USUAL
        assert all(len(agent["returns"]) == 3 for agent in entry["agents"].values())
        assert all(entry["cpu_minutes"][name] > 0 for name in ("scratch", "bc", "imagination"))
    first, second = (set(entry["episode_seeds"]) for entry in results["seeds"])
    assert not first & second  # pooled episodes are distinct
    assert results["pooled"]["agents"]["bc"]["episodes"] == 6
    assert results["verdicts"]["imagination"]["n"] == 6
    assert json.loads((folder / "results.json").read_text()) == results
    table = (folder / "table.md").read_text()
    assert "| agent | mean return | 95 % interval | seed 0 | seed 1 | CPU min |" in table
    assert "- imagination minus WM+BC: " in table

    after = tree(folder)
    assert before.items() <= after.items()  # the run itself is as it was, and the world is taken from it
    new = {name.split("/")[0] for name in after.keys() - before.keys()}
    assert new == {"seed0", "seed1", "results.json", "table.md"}
    assert (folder / "seed1" / "evaluation" / "agent" / "agents.json").is_file()
    # the agent learns in 3 steps, the baseline in 2 as the plan says
    assert {name: steps.pop(name) for name in ("Scratch", "Agent", "played")} == {"Scratch": 4, "Agent": 6, "played": 2}
    assert "Dynamics" not in steps
    mine = read_header(folder / "seed0" / "agent" / "agent.safetensors", "agent")
    assert mine.fingerprint == read_header(folder / "agent" / "agent.safetensors", "agent").fingerprint

    steps.clear()
    again = ahriuwu("study", "run", "-c", plan_file, "--dir", folder, "--json")
    assert (again.data, again.err) == (results, "")
    assert tree(folder) == after
    assert not steps


def test_an_interrupted_study_goes_on_to_the_same_end(study, plan_file, stop_at) -> None:
    """Pitfall 14: stopped and gone on with, everything is as without a break."""
    plan_file.write_text(STUDY + 'agents = ["scratch"]')
    stop_at(ScratchStage, 1)
    with pytest.raises(TrainingInterrupted, match="stopped at step 1 of 2") as caught:
        study(seeds=[0])
    assert caught.value.hint == "run the same command again to go on"
    weights = plan_file.parent / "seed0" / "scratch" / "agent.safetensors"
    cost = weights.parent / "cost.json"
    spent = json.loads(cost.read_text())["cpu_seconds"]
    assert spent > 0
    cost.write_text(json.dumps({"cpu_seconds": 1000.0}))
    stop_at(ScratchStage, 0)
    broken = study(seeds=[0]).data["seeds"][0]["agents"]
    assert 1000 < json.loads(cost.read_text())["cpu_seconds"] < 1100  # what it took before counts too
    shutil.rmtree(plan_file.parent / "seed0")
    assert study(seeds=[0]).data["seeds"][0]["agents"] == broken


def test_what_changed_is_made_again_and_nothing_else(study, plan_file, steps) -> None:
    text = STUDY + 'agents = ["scratch", "imagination"]'
    plan_file.write_text(text)
    study(seeds=[0])
    assert steps == {"Scratch": 2, "Agent": 3, "Imagine": 2, "played": 1}
    steps.clear()
    plan_file.write_text(text.replace("steps=2", "steps=1"))  # the baseline alone
    study(seeds=[0])
    assert steps == {"Scratch": 1, "played": 1}
    steps.clear()
    study(seeds=[0], overrides=["eval.episodes=2"])  # only the question
    assert steps == {"played": 1}
    assert study(table_only=True).data["seeds"] == []  # those were of two episodes
    steps.clear()
    study(seeds=[0], overrides=["imagine.horizon=2"])
    assert steps == {"Imagine": 2, "played": 1}
    steps.clear()
    plan_file.write_text(STUDY.replace("steps=2", "steps=1") + 'agents = ["random", "scratch"]')
    few = study(seeds=[0], overrides=["dynamics.model.num_registers=2"])  # sizes of the baseline's own transformer
    assert steps == {"Scratch": 1, "played": 1}  # nobody needs a world
    assert few.data["agents"] == ["random", "scratch"]
    steps.clear()
    plan_file.write_text(text)
    study(seeds=[0], overrides=["data.episodes=9"])  # all are compared on equal data, so nothing of less of it stays
    assert steps == {"Dynamics": 3, "Scratch": 2, "Agent": 3, "Imagine": 2, "played": 1}


def test_shares_add_up_to_the_whole(study, plan_file, tree) -> None:
    """Two processes need no lock: each seed has its folder, and whoever is last sees them all."""
    plan_file.write_text(STUDY + 'agents = ["random", "scratch"]')
    assert study(seeds=[1]).data["missing"] == ["seed 0"]
    assert not (plan_file.parent / "seed0").exists()
    study(seeds=[0])
    whole = study(table_only=True)
    assert whole.data["missing"] == []
    assert whole.data == study().data


def test_the_shared_world_is_made_first_and_once(ahriuwu, run_dir, tmp_path) -> None:
    folder, config = tmp_path / "fresh", tmp_path / "plan"
    config.mkdir()
    shutil.copyfile(run_dir / "run.toml", config / "run.toml")
    (config / "study.toml").write_text(STUDY)
    outcome = ahriuwu("study", "run", "-c", config / "study.toml", "--dir", folder, "--base-only")
    assert outcome.code == 0, outcome.err
    assert {path.name for path in folder.iterdir()} == {"episodes", "tokenizer", "latents", "packed", "dynamics"}
    dynamics = "dynamics/dynamics.safetensors"
    made, wanted = (read_header(place / dynamics, "dynamics") for place in (folder, run_dir))
    assert made.fingerprint == wanted.fingerprint
    assert sorted(path.name for path in config.iterdir()) == ["run.toml", "study.toml"]


def test_whole_roads_are_runs_of_their_own(ahriuwu, plan_file, study, steps, tmp_path) -> None:
    plan_file.write_text(STUDY + 'whole_roads = true\nagents = ["random", "dataset", "bc"]\n')
    folder = tmp_path / "whole"
    request = Request(config=plan_file, folder=folder)
    report = run_study(request)
    assert {path.name for path in folder.iterdir()} == {"seed0", "seed1"}
    assert "Scratch" not in steps and "Imagine" not in steps
    assert set(report.data["seeds"][0]["cpu_minutes"]) == {"tokenizer", "dynamics", "bc"}
    assert report.data["world_cpu_minutes"] is None
    episodes = [read_header(folder / seed / "episodes", "episodes").fingerprint for seed in ("seed0", "seed1")]
    assert episodes[0] != episodes[1]
    checked = ahriuwu("doctor", folder / "seed1", "--json")
    assert checked.data["problems"] == []
    assert run_study(request).data == report.data
    with pytest.raises(InputError, match="share nothing"):
        study(base_only=True)


# ---------------------------------------------------------------- the baseline's own command


def test_the_baseline_is_made_by_a_command_and_plays(ahriuwu, run_dir) -> None:
    config = run_dir / "run.toml"
    made = ahriuwu("agent", "finetune", "--from-scratch", "-c", config, "--json")
    assert made.code == 0, made.err
    assert made.data["file"] == str(run_dir / "scratch" / "agent.safetensors")
    assert "policy_loss" in made.data["metrics"] and "reward_loss" not in made.data["metrics"]
    again = ahriuwu("agent", "finetune", "--from-scratch", "-c", config)
    assert again.code == 2 and "--overwrite" in again.err
    assert ahriuwu("agent", "finetune", "--from-scratch", "-c", config, "--resume").code == 0
    played = ahriuwu("eval", "agent", "-c", config, "--agents", "scratch,bc", "--json")
    assert played.code == 0, played.err
    assert played.data["fingerprints"]["scratch"] == made.data["fingerprint"]
    dreamed = ahriuwu("eval", "rollout", "-c", config, "--checkpoint", made.data["file"])
    assert dreamed.code == 3 and "no world model to dream in" in dreamed.err


# ---------------------------------------------------------------- the table


def made_up(bc: list[list[float]], imagination: list[list[float]], **more: float) -> list[dict]:
    """Facts of two training seeds: constant returns of the others."""
    others = {"random": 0.0, "dataset": 1.0, "scratch": 1.5, **more}
    return [
        {
            "agents": {name: {"mean": value, "returns": [value] * 3} for name, value in others.items()}
            | {"bc": {"mean": 0.0, "returns": bc[k]}, "imagination": {"mean": 0.0, "returns": imagination[k]}}
        }
        for k in range(2)
    ]


def results_of(facts: list[dict], best: float | None = None) -> dict:
    pooled = pool_returns(facts, 0.9, 0)
    seeds = [
        {"seed": k, "cpu_minutes": {"scratch": 1.0 + k, "bc": None, "imagination": 3.0}, **entry}
        for k, entry in enumerate(facts)
    ]
    return {
        "name": "toy", "game": "Toy", "whole_roads": False, "agents": list(facts[0]["agents"]), "episodes": 3,
        "confidence": 0.9, "seeds": seeds, "world_cpu_minutes": {"tokenizer": 2.0, "dynamics": 4.0}, "missing": [],
        "pooled": pooled, "verdicts": judge(pooled, facts, best, 0.9, 0),
    }  # fmt: skip


def test_numbers_by_hand() -> None:
    facts = made_up([[1, 2, 3], [3, 2, 1]], [[3, 3, 3], [5, 5, 5]])
    report = make_table(results_of(facts, best=6.0))
    rows = {row[0]: row[1:] for row in report.rows}
    assert report.columns == ["agent", "mean return", "90 % interval", "seed 0", "seed 1", "CPU min"]
    assert rows["random"] == ["0.00", "0.00 to 0.00", "0.00", "0.00", ""]
    assert (rows["WM+BC"][0], *rows["WM+BC"][2:]) == ("2.00", "2.00", "2.00", "")
    assert (rows["imagination"][0], *rows["imagination"][2:]) == ("4.00", "3.00", "5.00", "3.0")
    assert rows["BC from scratch"] == ["1.50", "1.50 to 1.50", "1.50", "1.50", "1.5"]
    verdict = report.data["verdicts"]
    assert verdict["imagination"]["difference"] == 2.0
    assert verdict["imagination"]["p_value"] == pytest.approx(2 / 2**5)  # one zero among six pairs, all others above
    assert verdict["imagination"]["ratio"] == 2.0
    assert (verdict["covered"]["share"], verdict["covered"]["of"]) == (0.5, "best known return")
    assert verdict["bc"]["difference"] == 0.5
    assert verdict["ladder"] == {
        "means": {"random": 0.0, "dataset": 1.0, "bc": 2.0, "imagination": 4.0}, "holds": True,
    }  # fmt: skip
    text = "\n".join(report.notes)
    for words in (
        "imagination minus WM+BC: +2.00 (", "p = 0.062 over 6 paired episodes; by seed +1.00, +3.00",
        "imagination returns 2.00 (", "covers 0.50 (",
        "of the way from WM+BC to the best known return (6.00)", "WM+BC minus BC from scratch: +0.50 (",
        "the order random 0.00 < dataset 1.00 <= WM+BC 2.00 < imagination 4.00: holds",
        "for the world that all seeds share: tokenizer 2.0, dynamics 4.0",
    ):  # fmt: skip
        assert words in text


def test_an_order_that_does_not_hold_is_said_so() -> None:
    facts = made_up([[2, 2, 2], [2, 2, 2]], [[1, 2, 2], [2, 2, 1]], expert=9.0)
    report = make_table(results_of(facts, best=100.0))
    assert report.data["verdicts"]["ladder"]["holds"] is False
    covered = report.data["verdicts"]["covered"]
    assert (covered["of"], covered["target"]) == ("expert", 9.0)  # one who played goes before what is known
    assert covered["share"] == pytest.approx(-1 / 3 / 7)
    assert [row[0] for row in report.rows][-1] == "expert"
    assert any(note.endswith("imagination 1.67: does not hold") for note in report.notes)


def test_imagination_that_gains_nothing_is_no_step_up() -> None:
    facts = made_up([[2, 2, 2], [2, 2, 2]], [[2, 2, 2], [2, 2, 2]])
    assert make_table(results_of(facts, best=6.0)).data["verdicts"]["ladder"]["holds"] is False


def test_losses_have_differences_but_no_ratio() -> None:
    facts = made_up([[-3, -3, -3], [-3, -3, -3]], [[-1, -2, -1], [-1, -1, -2]], random=-4.0, dataset=-3.0, scratch=-4)
    report = make_table(results_of(facts, best=-5.0))
    verdict = report.data["verdicts"]
    assert (verdict["imagination"]["ratio"], verdict["covered"]["share"]) == (None, None)
    assert verdict["ladder"]["holds"] is True
    assert any("no share of the way, since the best known return (-5.00) is not above" in note for note in report.notes)


def test_a_study_of_few_agents_says_what_it_can() -> None:
    facts = [{"agents": {"random": {"mean": 1.0, "returns": [1.0]}, "bc": {"mean": 2.0, "returns": [2.0]}}}]
    report = make_table(results_of(facts))
    assert report.data["verdicts"] == {
        "imagination": None, "bc": None, "covered": None, "ladder": {"means": {"random": 1.0, "bc": 2.0}, "holds": None}
    }  # fmt: skip
    assert [row[2] for row in report.rows] == ["interval unknown"] * 2


@pytest.mark.parametrize(
    ("env", "name"), [("ALE/Freeway-v5", "Freeway"), ("ahriuwu/Bricks-v0", "Bricks"), ("CartPole-v1", "CartPole")]
)
def test_names_of_games(env, name) -> None:
    assert game_name(env) == name


# ---------------------------------------------------------------- the figure


def test_the_figure_is_drawn_from_results(ahriuwu, tmp_path) -> None:
    facts = made_up([[1, 2, 3], [3, 2, 1]], [[3, 3, 3], [5, 5, 5]], expert=9.0)
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(results_of(facts)))
    out = tmp_path / "figures" / "ladder.png"
    outcome = ahriuwu("study", "figure", tmp_path / "a.json", tmp_path / "b.json", "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.data == {"file": str(out), "panels": 2}
    assert out.stat().st_size > 5000


@pytest.mark.parametrize(("text", "message"), [(None, "does not exist"), ("{}", "is not the result of a study")])
def test_what_is_no_result(refused, tmp_path, text, message) -> None:
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    assert message in refused(2, "study", "figure", path, "--out", tmp_path / "a.png")[0]


# ---------------------------------------------------------------- plans


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/study.toml")), ids=lambda path: path.parent.name)
def test_the_examples_can_be_used(path) -> None:
    if not (path.parent / "run.toml").is_file():
        pytest.skip("its run.toml is not here")
    plan = load_plan(path, None, ())
    assert plan.base.folder == Path("runs") / f"study-{plan.base.config.run.name}"
    assert {item.run.config.run.seed for item in plan.items} == set(plan.settings.seeds)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[0, 1]", "[1, 1]", r"seeds are 1, 1"),
        ("[0, 1]", "[]", r"seeds are none"),
        ("[0, 1]", "[-1]", r"run\.seed"),
        ("seeds =", "seed =", r"unknown key seed"),
        ("agent.train.steps=2", "data.episodes=9", r"scratch sets data\.episodes; the baseline may change"),
        ("agent.train.steps=2", "agent.train.stepz=2", r"unknown key agent\.train\.stepz"),
        ("run =", 'agents = ["random", "bd"]\nrun =', r"agents has 'bd'; expected some of random"),
        ("run =", 'agents = ["bc", "bc"]\nrun =', r"agents are bc, bc"),
        ("run =", "agents = []\nrun =", r"agents are none"),
        ("run =", "whole_road = true\nrun =", r"unknown key whole_road; nearest valid key: whole_roads"),
        ("run =", 'best = "much"\nrun =', r"best"),
    ],
)
def test_a_plan_that_cannot_be_used(plan_file, tree, study, before, after, message) -> None:
    plan_file.write_text(STUDY.replace(before, after))
    there = tree(plan_file.parent)
    with pytest.raises(ConfigError, match=message):
        study()
    assert tree(plan_file.parent) == there


def test_a_seed_that_the_plan_does_not_have(study) -> None:
    with pytest.raises(InputError, match="--seed 7 is not in"):
        study(seeds=[7])


def test_a_plan_that_is_not_there(ahriuwu, tmp_path) -> None:
    outcome = ahriuwu("study", "run", "-c", tmp_path / "none.toml")
    assert (outcome.code, outcome.out) == (2, "")
    assert [line.partition(":")[0] for line in outcome.err.splitlines()] == ["error", "hint"]
