"""What a study.toml may say: presets that games share, frozen settings, searched learning rates."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.errors import ArtifactError, ConfigError, InputError
from ahriuwu_cli.experiments.study import results as study_results
from ahriuwu_cli.experiments.study import search as study_search
from ahriuwu_cli.experiments.study.plan import load_plan
from ahriuwu_cli.experiments.study.table import make_table

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.usefixtures("quick")

# ---------------------------------------------------------------- plans


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/study.toml")), ids=lambda path: path.parent.name)
def test_the_examples_can_be_used(path) -> None:
    if not (path.parent / "run.toml").is_file():
        pytest.skip("its run.toml is not here")
    plan = load_plan(path, None, ())
    for line in (line for line in path.read_text().splitlines() if "ahriuwu study run" in line):
        assert str(path.relative_to(EXAMPLES.parent)) in line
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
        ("scratch =", "search = {seed = 1, learning_rates = [1e-3]}\nscratch =", r"search\.seed 1 is one of the seeds"),
        ("scratch =", "search = {seed = 9, learning_rates = [2.0]}\nscratch =", r"search\.learning_rates"),
        (
            "scratch =",
            'search = {seed = 9, learning_rates = [0.1]}\nagents = ["bc"]\nscratch =',
            r"search\.agents has scratch, who does not play",
        ),
        (
            "agent.train.steps=2",
            'agent.train.learning_rate=1e-3"]\nsearch = {seed = 9, learning_rates = [0.1]}\nagents = ["bc", "scratch',
            r"scratch sets agent\.train\.learning_rate, which \[search\] chooses",
        ),
    ],
)
def test_a_plan_that_cannot_be_used(plan_file, tree, study, before, after, message, study_text) -> None:
    plan_file.write_text(study_text.replace(before, after))
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


# ---------------------------------------------------------------- one preset for several games


@pytest.fixture
def shared(plan_file) -> Path:
    """The study of a game whose settings, but for its data, are in a file that other games share."""
    run = plan_file.parent / "run.toml"
    preset = run.parents[1] / "frozen.toml"
    before, data, after = re.match(r"(?s)(.*)(\[data\]\n.*?)(^\[tokenizer\].*)", run.read_text(), re.M).groups()
    preset.write_text(before + after)
    run.write_text(f'[run]\nname = "mine"\n\n{data}')
    plan_file.write_text('preset = "../frozen.toml"\nseeds = [0, 1]\nagents = ["random"]\n')
    return plan_file


def test_games_share_one_file_of_settings(shared, study) -> None:
    """Pitfall 38: what differs between games is their data, and nothing else can."""
    plan = load_plan(shared, None, ["run.threads=2", "data.episodes=7"])
    config = plan.base.config
    assert (config.run.name, config.run.threads, config.data.episodes) == ("mine", 2, 7)
    assert (config.tokenizer.model.patch, config.imagine.horizon) == (8, 3)  # the preset's
    assert study(seeds=[0]).data["missing"] == ["seed 1"]


@pytest.mark.parametrize(
    "added",
    ["[imagine]\nhorizon = 4", "[agent.train]\nsteps = 9", "[eval]\nepisodes = 5", "[imagine.check]\nevery = 1"],
)
def test_a_game_has_no_settings_of_its_own(shared, added) -> None:
    run = shared.parent / "run.toml"
    run.write_text(f"{run.read_text()}\n{added}\n")
    section, key = re.match(r"\[(.*)\]\n(\w+)", added).groups()
    with pytest.raises(ConfigError, match=re.escape(f"run.toml sets {section}.{key}; ")) as caught:
        load_plan(shared, None, ())
    assert "with it every game's study" in caught.value.hint


@pytest.mark.parametrize(
    "override", ["imagine.horizon=4", "run.precision=bf16", "run.seed=3", "dynamics.train.steps=1"]
)
def test_no_flag_changes_what_games_share(shared, override) -> None:
    with pytest.raises(ConfigError, match=f"--set gives {re.escape(override.partition('=')[0])}; "):
        load_plan(shared, None, [override])


# ---------------------------------------------------------------- frozen settings


def test_settings_are_frozen_when_the_first_seed_starts(study, plan_file, study_text) -> None:
    """Pitfall 38: results of other settings are not mixed; who changes them anyway has it in the table."""
    plan_file.write_text(study_text + 'agents = ["random"]')
    study(base_only=True, overrides=["eval.episodes=2"])  # no seed has started yet
    first = study(seeds=[0])
    frozen = first.data["frozen"]
    assert (frozen["changes"], frozen["current"]) == ([], True)
    assert f"settings {frozen['fingerprint']} were frozen before the first of them" in "\n".join(first.notes)
    study(seeds=[1], overrides=["run.threads=1", "run.name=other", "agent.train.log_every=7"])  # these change no result
    for change in ("eval.temperature=0.5", "agent.train.learning_rate=0.5", "data.noise=0.5"):
        key, value = change.split("=")
        with pytest.raises(ConfigError, match=rf"other settings than when the first seed.*: {key} .* -> {value}$"):
            study(seeds=[1], overrides=[change])
    plan_file.write_text(study_text.replace("[0, 1]", "[0, 1, 2]") + 'agents = ["random"]')
    with pytest.raises(ConfigError, match=r"study\.seeds \[0, 1\] -> \[0, 1, 2\]") as caught:
        study()
    assert "--thaw" in caught.value.hint
    thawed = study(thaw=True)
    assert (thawed.data["missing"], len(thawed.data["frozen"]["changes"])) == ([], 1)
    assert "CHANGED 1 times since (study.seeds)" in "\n".join(thawed.notes)
    assert study().data == thawed.data


# ---------------------------------------------------------------- search


@pytest.fixture
def losses(monkeypatch) -> dict[str, float]:
    """Stands in for what trainings measure on held-out episodes, by the folder of the weights."""
    found = {"scratch-0.001": 1.2, "scratch-0.01": 0.9, "bc-0.001": 0.7, "bc-0.01": 0.8, "scratch": 0.9, "agent": 1.09}

    def heldout(weights: Path) -> dict[str, float]:
        name = weights.parents[1].name if weights.parents[1].name in found else weights.parent.name
        return {"heldout_policy": found[name], "heldout_policy_uniform": 1.1} if name in found else {}

    for module in (study_search, study_results):
        monkeypatch.setattr(module, "heldout_of", heldout)
    return found


SEARCH = 'agents = ["random", "scratch", "bc"]\n[search]\nseed = 9\nlearning_rates = [1e-3, 1e-2]\n'


def test_learning_rates_are_searched_with_equal_tries(study, plan_file, study_text, losses, steps) -> None:
    """Pitfall 36: each cloned agent learns at the rate that held-out actions are likeliest at, of equally many."""
    plan_file.write_text(study_text + SEARCH)
    study(base_only=True)
    assert steps == {"Scratch": 2 * 2, "Agent": 2 * 3}
    report = study(seeds=[0])
    folder = plan_file.parent
    rates = {
        name: read_header(folder / "seed0" / name / "agent.safetensors", "agent").config
        for name in ("scratch", "agent")
    }
    chosen = {name: (config.get("agent") or config)["train"]["learning_rate"] for name, config in rates.items()}
    assert chosen == {"scratch": 0.01, "agent": 0.001}
    search = report.data["search"]
    assert (search["chosen"], search["seed"], len(search["tries"])) == ({"scratch": 0.01, "bc": 0.001}, 9, 4)
    assert all(one["cpu_minutes"] > 0 for one in search["tries"])
    text = "\n".join(report.notes)
    assert "learning rate of BC from scratch: 0.01, by held-out loss of 2 tries on seed 9" in text
    assert "(0.001: 1.200 (uniform 1.100), 0.01: 0.900 (uniform 1.100))" in text
    assert "it is at the edge of what was tried" in text
    assert "WM+BC hardly learned to clone" in text  # 1.09 of 1.1
    assert [row[-1] for row in report.rows] == ["", "0.900 (uniform 1.100)", "1.090 (uniform 1.100)"]
    assert make_table(report.data).rows == report.rows  # results.json has it all
    assert study(table_only=True).data == report.data
    steps.clear()
    losses["bc-0.001"] = 0.85  # another choice is another setting
    with pytest.raises(ConfigError, match=r"study\.rates\.bc 0\.001 -> 0\.01"):
        study(seeds=[0])
    assert not steps


def test_a_search_without_measurements_is_refused(study, plan_file, study_text, monkeypatch) -> None:
    plan_file.write_text(study_text + SEARCH)
    monkeypatch.setattr(study_search, "heldout_of", lambda weights: {})
    with pytest.raises(ArtifactError, match="has no heldout_policy: "):
        study(base_only=True)


def test_whole_roads_are_searched_in_a_world_of_their_own(study, plan_file, study_text, losses) -> None:
    plan_file.write_text(study_text + "whole_roads = true\n" + SEARCH)
    study(base_only=True)
    folder = plan_file.parent / "search"
    assert {path.name for path in folder.iterdir()} == {"world", *(name for name in losses if "-" in name)}
    episodes = read_header(folder / "world" / "episodes", "episodes")
    assert episodes.fingerprint != read_header(plan_file.parent / "episodes", "episodes").fingerprint
