"""Comparison of agents' returns: the table, the paired tests and the JSON data."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ahriuwu_cli.evaluation.returns import compare
from ahriuwu_cli.evaluation.statistics import mean_interval, paired_test

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
