"""Comparison of agents' returns: the table, the paired tests and the JSON data."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ahriuwu_cli.evaluation.returns import compare, compared_pairs
from ahriuwu_cli.evaluation.statistics import mean_interval, paired_test, ratio_of_means

ORDER = ("random", "bc", "imagination")


@pytest.fixture
def returns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    luck = rng.poisson(2, 40)
    return {
        "imagination": luck + rng.poisson(9, 40).astype(np.float32),
        "random": rng.poisson(0.4, 40),
        "bc": luck + rng.poisson(6, 40),
    }


def test_each_agent_has_a_row_with_its_own_numbers(returns) -> None:
    report, data = compare(returns, ORDER, 0.95, 7)
    assert [row[0] for row in report.rows] == list(ORDER) == list(data["agents"])
    assert list(report.columns)[:3] == ["agent", "mean return", "95 % interval"]
    assert all(len(row) == len(report.columns) for row in report.rows)
    bc = data["agents"]["bc"]
    mean, low, high = mean_interval(returns["bc"], 0.95, 7)
    assert (bc["mean"], bc["low"], bc["high"]) == (mean, low, high)
    assert (bc["median"], bc["min"], bc["max"], bc["episodes"]) == (
        np.median(returns["bc"]),
        returns["bc"].min(),
        returns["bc"].max(),
        40,
    )
    assert bc["returns"] == returns["bc"].tolist()
    assert list(report.rows[1])[1:3] == [f"{mean:.2f}", f"{low:.2f} to {high:.2f}"]


def test_each_agent_is_compared_with_every_one_before_it(returns) -> None:
    report, data = compare(returns, ORDER, 0.9, 7)
    pairs = [(entry["agent"], entry["baseline"]) for entry in data["comparisons"]]
    assert pairs == [("bc", "random"), ("imagination", "random"), ("imagination", "bc")]
    last = data["comparisons"][-1]
    result = paired_test(returns["imagination"], returns["bc"], 7, confidence=0.9)
    assert (last["difference"], last["low"], last["high"], last["p_value"], last["n"]) == tuple(result)
    assert last["difference"] > 0
    assert "imagination minus bc: +" in report.notes[2]
    assert "not corrected for the 3 comparisons" in report.notes[3]


def test_data_is_json_and_the_same_every_time(returns) -> None:
    report, data = compare(returns, ORDER, 0.95, 7)
    assert report.data is data
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text) == data
    assert compare(returns, ORDER, 0.95, 7)[1] == data


def test_lengths_add_a_column(returns) -> None:
    lengths = {name: np.full(40, 10) + np.arange(40) for name in returns}
    report, data = compare(returns, ORDER, 0.95, 7, lengths=lengths)
    assert report.columns[-1] == "mean length"
    assert [row[-1] for row in report.rows] == ["29.5"] * 3
    assert data["agents"]["bc"]["mean_length"] == 29.5
    assert data["agents"]["bc"]["lengths"] == list(range(10, 50))
    json.dumps(data, allow_nan=False)


def test_one_agent_has_nothing_to_be_compared_with(returns) -> None:
    report, data = compare({"bc": returns["bc"]}, ["bc"], 0.95, 0)
    assert data["comparisons"] == []
    assert list(report.notes) == []


def test_one_episode_has_no_interval() -> None:
    report, data = compare({"a": [1.0], "b": [4.0]}, ["a", "b"], 0.95, 0)
    assert report.rows[0][2] == "unknown (one episode)"
    assert data["agents"]["a"]["low"] is None
    assert data["comparisons"][0]["difference"] == 3.0
    assert data["comparisons"][0]["p_value"] == 1.0
    json.dumps(data, allow_nan=False)


def test_agents_that_always_score_the_same_are_compared() -> None:
    report, data = compare({"a": np.zeros(5), "b": np.zeros(5)}, ["a", "b"], 0.95, 0)
    assert data["comparisons"][0]["p_value"] == 1.0
    assert "b minus a: +0.00 (+0.00 to +0.00), p = 1" in report.notes[0]


@pytest.mark.parametrize("order", [[], ["a"], ["a", "b", "c"], ["a", "a", "b"]])
def test_order_names_each_agent_once(order: list[str]) -> None:
    with pytest.raises(ValueError, match="once"):
        compare({"a": [1.0, 2.0], "b": [1.0, 2.0]}, order, 0.95, 0)


def test_episodes_that_are_not_paired_are_refused() -> None:
    with pytest.raises(ValueError, match="paired"):
        compare({"a": [1.0, 2.0], "b": [1.0]}, ["a", "b"], 0.95, 0)
    with pytest.raises(ValueError, match="'b' has no lengths"):
        compare({"a": [1.0], "b": [1.0]}, ["a", "b"], 0.95, 0, lengths={"a": [3]})
    with pytest.raises(ValueError, match="lengths of shape"):
        compare({"a": [1.0]}, ["a"], 0.95, 0, lengths={"a": [3, 4]})
    with pytest.raises(ValueError, match="not finite"):
        compare({"a": [1.0, np.nan]}, ["a"], 0.95, 0)


# ---------------------------------------------------------------- ratios to the baseline


def test_ratios_to_bc_are_those_of_pairs(returns) -> None:
    report, data = compare(returns, ORDER, 0.95, 7)
    assert list(data["ratios"]) == list(ORDER)
    ratio, low, high = ratio_of_means(returns["imagination"], returns["bc"], 7, confidence=0.95)
    assert data["ratios"]["imagination"] == {"ratio": ratio, "low": low, "high": high}
    assert data["ratios"]["bc"] == {"ratio": 1.0, "low": 1.0, "high": 1.0}
    assert report.columns[-1] == "times bc"
    assert [row[-1] for row in report.rows][1:] == ["1.00", f"{ratio:.2f} ({low:.2f} to {high:.2f})"]
    assert data["covered"] == {}  # no expert


def test_a_baseline_without_return_has_no_ratios() -> None:
    report, data = compare({"bc": [0, 0], "imagination": [1, 2]}, ["bc", "imagination"], 0.95, 0)
    assert data["ratios"]["imagination"] == {"ratio": None, "low": None, "high": None}
    assert [row[-1] for row in report.rows] == ["unknown", "unknown"]


def test_without_bc_there_is_no_ratio() -> None:
    report, data = compare({"random": [1, 2]}, ["random"], 0.95, 0)
    assert data["ratios"] == data["covered"] == {}
    assert "times bc" not in report.columns


def test_share_of_the_way_to_the_expert_by_hand() -> None:
    """bc has 2, the expert 6, imagination 5 in every episode: three quarters of the way."""
    luck = np.arange(10)
    levels = {"random": 0, "expert": 6, "bc": 2, "imagination": 5, "other": 2}
    returns = {name: level + luck for name, level in levels.items()}
    report, data = compare(returns, list(levels), 0.95, 0)
    assert data["covered"] == {
        "imagination": {"share": 0.75, "low": 0.75, "high": 0.75},
        "other": {"share": 0.0, "low": 0.0, "high": 0.0},
    }
    assert "imagination covers 0.75 (0.75 to 0.75) of the way from bc to expert" in report.notes


def test_an_expert_that_is_no_better_shows_no_way() -> None:
    report, data = compare(
        {"expert": [1, 2], "bc": [2, 3], "imagination": [3, 4]}, ["expert", "bc", "imagination"], 0.95, 0
    )
    assert data["covered"]["imagination"]["share"] is None
    assert "imagination: no share of the way, since expert is not better than bc" in report.notes


# ---------------------------------------------------------------- many agents


def test_of_many_comparisons_the_telling_ones_are_written() -> None:
    order = ["random", "repeat-last", "dataset", "scratch", "bc", "imagination"]
    rng = np.random.default_rng(0)
    report, data = compare({name: rng.poisson(3, 5) for name in order}, order, 0.95, 0)
    assert len(data["comparisons"]) == 15
    written = [note.partition(":")[0] for note in report.notes if " minus " in note]
    assert written == [
        "repeat-last minus random", "dataset minus repeat-last", "scratch minus dataset",
        "bc minus random", "bc minus repeat-last", "bc minus dataset", "bc minus scratch", "imagination minus bc",
    ]  # fmt: skip
    assert "7 further comparisons are in the JSON data" in report.notes
    assert any("not corrected for the 15" in note for note in report.notes)


def test_compared_pairs_name_each_pair_once() -> None:
    assert compared_pairs(["a"]) == []
    assert compared_pairs(["a", "b", "c"]) == [("b", "a"), ("c", "b")]
    assert compared_pairs(["bc", "a", "b"]) == [("a", "bc"), ("b", "bc"), ("b", "a")]
