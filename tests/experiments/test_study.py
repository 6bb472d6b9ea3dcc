"""`study`: every seed's agents trained and played once, gone on with where it stopped, never mixed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from ahriuwu_cli.agent.scratch import ScratchStage
from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.errors import ConfigError, InputError, PlayError, TrainingInterrupted
from ahriuwu_cli.evaluation.seal import seal_fault
from ahriuwu_cli.experiments.study import Request, run_study
from ahriuwu_cli.games.policies import RepeatLastPolicy
from ahriuwu_cli.games.seeds import BORDER

EVERYBODY = ["random", "repeat-last", "dataset", "expert", "scratch", "bc", "imagination"]
WORLD = {"episodes", "tokenizer", "latents", "packed", "dynamics", "data-cost.json", "run.toml"}
pytestmark = pytest.mark.usefixtures("quick")


# ---------------------------------------------------------------- the work


def test_one_call_makes_it_all_and_a_second_one_nothing(ahriuwu, plan_file, tree, steps) -> None:
    folder = plan_file.parent
    before = tree(folder)
    outcome = ahriuwu("study", "run", "-c", plan_file, "--dir", folder, "--json")
    assert outcome.code == 0, outcome.err
    results = outcome.data
    assert (results["agents"], results["missing"], results["game"]) == (EVERYBODY, [], "Bricks")
    assert [entry["seed"] for entry in results["seeds"]] == [0, 1]
    for entry in results["seeds"]:
        assert list(entry["agents"]) == list(entry["playing_cpu_minutes"]) == EVERYBODY
        assert all(len(agent["returns"]) == 3 for agent in entry["agents"].values())
        assert all(entry["cpu_minutes"][name] > 0 for name in ("scratch", "bc", "imagination"))
    first, second = (set(entry["episode_seeds"]) for entry in results["seeds"])
    assert not first & second  # pooled episodes are distinct
    assert min(first | second) >= BORDER and results["stream"] == "test"  # pitfall 38: nothing is tuned on them
    assert seal_fault(results) is None
    assert results["pooled"]["agents"]["bc"]["episodes"] == 6
    assert [(entry["agent"], entry["num_seeds"]) for entry in results["claims"]][:1] == [("imagination", 2)]
    assert json.loads((folder / "results.json").read_text()) == results
    table = (folder / "table.md").read_text()
    assert "| agent | mean return | 95 % interval | seed 0 | seed 1 | CPU min |" in table
    assert "- imagination beside WM+BC: not enough seeds to claim (2 of 8); " in table

    after = tree(folder)
    assert before.items() <= after.items()  # the run itself is as it was, and the world is taken from it
    new = {name.split("/")[0] for name in after.keys() - before.keys()}
    assert new == {"seed0", "seed1", "frozen.json", "results.json", "table.md"}
    assert (folder / "seed1" / "evaluation" / "test" / "agents.json").is_file()
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


def test_an_interrupted_study_goes_on_to_the_same_end(study, plan_file, stop_at, study_text) -> None:
    """Pitfall 14: stopped and gone on with, everything is as without a break."""
    plan_file.write_text(study_text + 'agents = ["scratch"]')
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


def test_what_changed_is_made_again_and_nothing_else(study, plan_file, steps, study_text) -> None:
    text = study_text + 'agents = ["scratch", "imagination"]'
    plan_file.write_text(text)
    study(seeds=[0])
    assert steps == {"Scratch": 2, "Agent": 3, "Imagine": 2, "played": 1}
    steps.clear()
    plan_file.write_text(text.replace("steps=2", "steps=1"))  # the baseline alone
    with pytest.raises(ConfigError, match=r"study\.scratch .*steps=2.* -> .*steps=1"):
        study(seeds=[0])
    study(seeds=[0], thaw=True)
    assert steps == {"Scratch": 1, "played": 1}
    steps.clear()
    study(seeds=[0], overrides=["eval.episodes=2"], thaw=True)  # only the question
    assert steps == {"played": 1}
    assert study(table_only=True).data["seeds"] == []  # those were of two episodes
    steps.clear()
    study(seeds=[0], overrides=["imagine.horizon=2"], thaw=True)
    assert steps == {"Imagine": 2, "played": 1}
    steps.clear()
    plan_file.write_text(study_text.replace("steps=2", "steps=1") + 'agents = ["random", "scratch"]')
    sizes = ["dynamics.model.num_registers=2"]  # of the baseline's own transformer
    few = study(seeds=[0], overrides=sizes, thaw=True)
    assert steps == {"Scratch": 1, "played": 1}  # nobody needs a world
    assert few.data["agents"] == ["random", "scratch"]
    steps.clear()
    plan_file.write_text(text)
    more = ["data.episodes=9"]  # all are compared on equal data, so nothing of less of it stays
    study(seeds=[0], overrides=more, thaw=True)
    assert steps == {"Dynamics": 3, "Scratch": 2, "Agent": 3, "Imagine": 2, "played": 1}


def test_shares_add_up_to_the_whole(study, plan_file, tree, study_text) -> None:
    """Two processes need no lock: each seed has its folder, and whoever is last sees them all."""
    plan_file.write_text(study_text + 'agents = ["random", "scratch"]')
    assert study(seeds=[1]).data["missing"] == ["seed 0"]
    assert not (plan_file.parent / "seed0").exists()
    study(seeds=[0])
    whole = study(table_only=True)
    assert whole.data["missing"] == []
    assert whole.data == study().data


def test_the_shared_world_is_made_first_and_once(ahriuwu, run_dir, tmp_path, study_text) -> None:
    folder, config = tmp_path / "fresh", tmp_path / "plan"
    config.mkdir()
    shutil.copyfile(run_dir / "run.toml", config / "run.toml")
    (config / "study.toml").write_text(study_text)
    outcome = ahriuwu("study", "run", "-c", config / "study.toml", "--dir", folder, "--base-only")
    assert outcome.code == 0, outcome.err
    assert {path.name for path in folder.iterdir()} == WORLD
    dynamics = "dynamics/dynamics.safetensors"
    made, wanted = (read_header(place / dynamics, "dynamics") for place in (folder, run_dir))
    assert made.fingerprint == wanted.fingerprint
    assert sorted(path.name for path in config.iterdir()) == ["run.toml", "study.toml"]


def test_whole_roads_are_runs_of_their_own(ahriuwu, plan_file, study, steps, tmp_path, study_text) -> None:
    plan_file.write_text(study_text + 'whole_roads = true\nagents = ["random", "dataset", "bc"]\n')
    folder = tmp_path / "whole"
    request = Request(config=plan_file, folder=folder)
    report = run_study(request)
    assert {path.name for path in folder.iterdir()} == {"seed0", "seed1", "frozen.json"}
    assert "Scratch" not in steps and "Imagine" not in steps
    assert set(report.data["seeds"][0]["cpu_minutes"]) == {
        "episodes",
        "tokenizer",
        "latents",
        "packed",
        "dynamics",
        "bc",
    }
    assert report.data["world_cpu_minutes"] is None
    episodes = [read_header(folder / seed / "episodes", "episodes").fingerprint for seed in ("seed0", "seed1")]
    assert episodes[0] != episodes[1]
    checked = ahriuwu("doctor", folder / "seed1", "--json")
    assert checked.data["problems"] == []
    assert run_study(request).data == report.data
    with pytest.raises(InputError, match="share nothing"):
        study(base_only=True)


def test_a_seed_that_another_process_is_at_is_passed_over(study, plan_file, capsys, study_text) -> None:
    plan_file.write_text(study_text + 'agents = ["random", "scratch"]')
    holder = (
        "import sys, pathlib; from ahriuwu_cli.core.lock import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holder, plan_file.parent / "seed0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        assert study().data["missing"] == ["seed 0"]
        other.stdin.close()
    assert "seed 0 is passed over: " in capsys.readouterr().err
    assert study().data["missing"] == []


def test_no_result_where_an_agent_failed(study, plan_file, monkeypatch, study_text) -> None:
    """Pitfall 42: what the others played is kept, but a table without one of them is no study."""
    plan_file.write_text(study_text + 'agents = ["random", "repeat-last"]')
    act = RepeatLastPolicy.act
    monkeypatch.setattr(RepeatLastPolicy, "act", lambda *arguments: 1 / 0)
    with pytest.raises(PlayError, match="1 of 2 agents could not play all episodes: repeat-last: ZeroDivisionError"):
        study(seeds=[0])
    assert study(table_only=True).data["missing"] == ["seed 0", "seed 1"]
    monkeypatch.setattr(RepeatLastPolicy, "act", act)
    assert study(seeds=[0]).data["missing"] == ["seed 1"]


def test_an_edited_result_is_played_again(study, plan_file, steps, study_text) -> None:
    plan_file.write_text(study_text + 'agents = ["random"]')
    before = study(seeds=[0]).data["seeds"][0]["agents"]
    path = plan_file.parent / "seed0" / "result.json"
    result = json.loads(path.read_text())
    result["facts"]["agents"]["random"]["returns"][0] += 9
    path.write_text(json.dumps(result))
    steps.clear()
    assert study(seeds=[0]).data["seeds"][0]["agents"] == before
    assert steps == {"played": 1}


def test_no_expert_where_the_game_offers_none(study, plan_file, monkeypatch, capsys, study_text) -> None:
    plan_file.write_text(study_text + 'agents = ["random", "expert"]')
    monkeypatch.setattr("ahriuwu_cli.experiments.study.work.offers_expert", lambda data: False)
    assert study(seeds=[0]).data["agents"] == ["random"]
    assert "seed 0: ahriuwu/Bricks-v0 offers no expert, who is left out" in capsys.readouterr().err


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
