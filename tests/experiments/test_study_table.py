"""The table and the figure of a study: numbers by hand, words that follow from them, results of older kinds."""

from __future__ import annotations

import json

import pytest

from ahriuwu_cli.experiments.study.results import game_name, judged
from ahriuwu_cli.experiments.study.table import make_table

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


def test_edited_results_are_no_results(refused, tmp_path) -> None:
    path = tmp_path / "results.json"
    results = judged(made_up([2.0, 2.0], [3.0, 5.0]))
    results["seeds"][0]["agents"]["imagination"]["returns"][0] += 9
    path.write_text(json.dumps(results))
    for arguments in (["table", path], ["figure", path, "--out", tmp_path / "a.png"]):
        assert "is no result: their content is not what was sealed" in refused(3, "study", *arguments)[0]


@pytest.mark.parametrize(("text", "message"), [(None, "does not exist"), ("{}", "is not the result of a study")])
def test_what_is_no_result(refused, tmp_path, text, message) -> None:
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    assert message in refused(2, "study", "figure", path, "--out", tmp_path / "a.png")[0]
