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
from ahriuwu_cli.experiments.study import Request, run_study
from ahriuwu_cli.experiments.study.plan import load_plan
from ahriuwu_cli.experiments.study.results import game_name, judged
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
    assert [(entry["agent"], entry["num_seeds"]) for entry in results["claims"]][:1] == [("imagination", 2)]
    assert json.loads((folder / "results.json").read_text()) == results
    table = (folder / "table.md").read_text()
    assert "| agent | mean return | 95 % interval | seed 0 | seed 1 | CPU min |" in table
    assert "- imagination beside WM+BC: not enough seeds to claim (2 of 8); " in table

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


def made_up(bc: list[float], imagination: list[float], **more: float) -> dict:
    """Results of training seeds in which every agent's three episodes return the same; constant returns of others."""
    others = {"random": 0.0, "dataset": 1.0, "scratch": 1.5, **more}
    seeds = [
        {
            "seed": k,
            "cpu_minutes": {"scratch": 1.0 + k, "bc": None, "imagination": 3.0},
            "agents": {
                name: {"mean": value, "returns": [value] * 3}
                for name, value in {**others, "bc": bc[k], "imagination": imagination[k]}.items()
            },
        }
        for k in range(len(bc))
    ]
    return {
        "name": "toy", "game": "Toy", "whole_roads": False, "agents": list(seeds[0]["agents"]), "episodes": 3,
        "confidence": 0.9, "seeds": seeds, "world_cpu_minutes": {"tokenizer": 2.0, "dynamics": 4.0}, "missing": [],
        "best": None,
    }  # fmt: skip


def notes_of(results: dict) -> str:
    return "\n".join(make_table(judged(results)).notes)


def test_numbers_by_hand() -> None:
    report = make_table(judged(made_up([2.0, 2.0], [3.0, 5.0], expert=9.0)))
    rows = {row[0]: row[1:] for row in report.rows}
    assert report.columns == ["agent", "mean return", "90 % interval", "seed 0", "seed 1", "CPU min"]
    assert rows["random"] == ["0.00", "0.00 to 0.00", "0.00", "0.00", ""]
    assert (rows["WM+BC"][0], *rows["WM+BC"][2:]) == ("2.00", "2.00", "2.00", "")
    assert rows["imagination"] == ["4.00", "3.00 to 5.00", "3.00", "5.00", "3.0"]
    assert rows["BC from scratch"] == ["1.50", "1.50 to 1.50", "1.50", "1.50", "1.5"]
    assert [row[0] for row in report.rows][-1] == "expert"
    claim = report.data["claims"][0]
    assert (claim["agent"], claim["baseline"], claim["difference"], claim["ratio"]) == ("imagination", "bc", 2.0, 2.0)
    text = "\n".join(report.notes)
    for words in (
        "imagination beside WM+BC: not enough seeds to claim (2 of 8); difference +2.00 (+1.00 to +3.00), p = 0.5 "
        "(t-test 0.3) over 2 training seeds: +1.00, +3.00; 2.00 (1.50 to 2.50) times",
        "imagination beside BC from scratch: ", "imagination beside dataset: ", "WM+BC beside BC from scratch: ",
        "imagination goes 0.38 (0.25 to 0.50) of the way from the recorded player to the expert (9.00)",
        "the seeds share recordings and world model", "fewer than 8 training seeds claim nothing",
        "world that all seeds share: tokenizer 2.0, dynamics 4.0",
        "training of each seed: BC from scratch 1.5, imagination 3.0", "did not play: repeat last",
    ):  # fmt: skip
        assert words in text


@pytest.mark.parametrize(
    ("gains", "word"),
    [
        ([1.0, 2.0, 1.5, 3.0, 0.5, 2.5, 1.0, 2.0], "above; difference +1.69 ("),
        ([-1.0, -2.0, -1.5, -3.0, -0.5, -2.5, -1.0, -2.0], "worse; difference -1.69 ("),
        ([1.0, -2.0, 1.5, -3.0, 0.5, 2.5, -1.0, 2.0], "no difference shown; difference +0.19 ("),
        ([1.0, 2.0, 1.5, 3.0, 0.5, 2.5, 1.0], "not enough seeds to claim (7 of 8); difference +1.64 ("),
    ],
)
def test_verdicts_follow_from_the_training_seeds(gains, word) -> None:
    """Pitfalls 35 and 37: what is said depends on how trainings agree, and with fewer than eight nothing is."""
    results = judged(made_up([5.0] * len(gains), [5.0 + gain for gain in gains]))
    assert f"imagination beside WM+BC: {word}" in notes_of(results)


def test_losses_have_differences_but_no_ratio() -> None:
    results = judged(made_up([-3.0, -3.0], [-2.0, -1.0], random=-4.0, dataset=-3.0, scratch=-4.0) | {"best": -5.0})
    assert (results["claims"][0]["ratio"], results["pooled"]["way"]["imagination"]["share"]) == (None, None)
    assert "no share of the way, since the best known return (-5.00) is not above the recorded player" in notes_of(
        results
    )


def test_a_study_of_few_agents_says_what_it_can() -> None:
    seeds = [
        {"seed": 0, "cpu_minutes": {}, "agents": {name: {"mean": 1.0, "returns": [1.0]} for name in ("random", "bc")}}
    ]
    report = make_table(judged(made_up([1.0], [1.0]) | {"seeds": seeds, "agents": ["random", "bc"]}))
    assert (report.data["claims"], report.data["pooled"]["way"]) == ([], {})
    assert [row[2] for row in report.rows] == ["interval unknown"] * 2


@pytest.mark.parametrize(
    ("env", "name"), [("ALE/Freeway-v5", "Freeway"), ("ahriuwu/Bricks-v0", "Bricks"), ("CartPole-v1", "CartPole")]
)
def test_names_of_games(env, name) -> None:
    assert game_name(env) == name


# ---------------------------------------------------------------- the figure


def test_the_figure_is_drawn_from_results(ahriuwu, tmp_path) -> None:
    results = judged(made_up([2.0, 2.0], [3.0, 5.0], expert=9.0))
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(results))
    out = tmp_path / "figures" / "ladder.png"
    outcome = ahriuwu("study", "figure", tmp_path / "a.json", tmp_path / "b.json", "--out", out, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.data == {"file": str(out), "panels": 2}
    assert out.stat().st_size > 5000


def test_results_of_older_statistics_are_brought_up_to_date(ahriuwu, tmp_path) -> None:
    """The returns are in them: statistics over episodes go, those over training seeds come."""
    path, now = tmp_path / "results.json", judged(made_up([2.0, 2.0], [3.0, 5.0]))
    older = made_up([2.0, 2.0], [3.0, 5.0]) | {"pooled": {"agents": {}, "comparisons": []}, "verdicts": {"bc": None}}
    path.write_text(json.dumps(older))
    drawn = ahriuwu("study", "figure", path, "--out", tmp_path / "a.png")
    assert drawn.code == 0 and "statistics of an older kind" in drawn.err
    assert json.loads(path.read_text()) == older
    made = ahriuwu("study", "table", path, "--json")
    assert (made.code, made.data) == (0, now)
    assert json.loads(path.read_text()) == now
    assert "not enough seeds to claim" in (tmp_path / "table.md").read_text()
    before = path.stat().st_mtime_ns
    again = ahriuwu("study", "table", path, "--json")
    assert (again.data, again.err, path.stat().st_mtime_ns) == (now, "", before)


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
