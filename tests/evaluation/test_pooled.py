"""Pooling several training seeds: by hand, pairs stay pairs, and what only some of them have is left out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.evaluation import statistics
from ahriuwu_cli.evaluation.pooled import pool_returns
from ahriuwu_cli.evaluation.statistics import mean_interval, paired_test, ratio_of_means


def results(**returns: list[float]) -> dict[str, Any]:
    """What agents.json holds, as far as pooling reads it."""
    return {"agents": {name: {"returns": values, "mean": float(np.mean(values))} for name, values in returns.items()}}


def test_two_training_seeds_by_hand() -> None:
    facts = [results(scratch=[1, 1], bc=[1, 3], imagination=[2, 6]), results(scratch=[2], bc=[4], imagination=[4])]
    pooled = pool_returns(facts, 0.95, 0)
    bc = pooled["agents"]["bc"]
    assert (bc["mean"], bc["per_seed"], bc["episodes"]) == (8 / 3, [2.0, 4.0], 3)
    assert (bc["low"], bc["high"]) == mean_interval([1, 3, 4], 0.95, 0)[1:]
    [first, second] = pooled["comparisons"]
    assert (first["agent"], first["baseline"]) == ("bc", "scratch")
    assert (first["difference"], first["ratio"], first["per_seed"]) == (4 / 3, 2.0, [1.0, 2.0])
    assert (second["agent"], second["baseline"], second["n"]) == ("imagination", "bc", 3)
    assert (second["difference"], second["ratio"], second["per_seed"]) == (4 / 3, 1.5, [2.0, 0.0])


def test_pairs_of_all_seeds_are_tested_together() -> None:
    """Pitfall 35: more training seeds, one paired test over all episodes."""
    rng = np.random.default_rng(0)
    seeds = []
    for _ in range(5):
        luck = rng.poisson(5, 30)  # of the episode, the same for both
        seeds.append(results(bc=luck.tolist(), imagination=(luck + rng.integers(0, 3, 30)).tolist()))
    pooled = pool_returns(seeds, 0.9, 4)
    [entry] = pooled["comparisons"]
    a, b = (np.concatenate([seed["agents"][name]["returns"] for seed in seeds]) for name in ("imagination", "bc"))
    test, ratio = paired_test(a, b, 4, confidence=0.9), ratio_of_means(a, b, 4, confidence=0.9)
    assert tuple(entry[key] for key in ("difference", "low", "high", "p_value", "n")) == tuple(test)
    assert tuple(entry[key] for key in ("ratio", "ratio_low", "ratio_high")) == tuple(ratio)
    assert entry["p_value"] < 0.001
    assert entry["high"] - entry["low"] < 0.4  # the luck of the episodes cancels
    assert json.loads(json.dumps(pooled, allow_nan=False)) == pooled


def test_only_agents_that_all_have() -> None:
    facts = [results(random=[1], dataset=[2], bc=[3]), results(bc=[4], random=[0], imagination=[9])]
    pooled = pool_returns(facts, 0.95, 0)
    assert list(pooled["agents"]) == ["random", "bc"]
    assert [(entry["agent"], entry["baseline"]) for entry in pooled["comparisons"]] == [("bc", "random")]


def test_one_episode_leaves_intervals_open() -> None:
    pooled = pool_returns([results(bc=[0.0], imagination=[2.0])], 0.95, 0)
    assert pooled["agents"]["bc"] == {"mean": 0.0, "low": None, "high": None, "per_seed": [0.0], "episodes": 1}
    [entry] = pooled["comparisons"]
    assert (entry["difference"], entry["low"], entry["ratio"], entry["ratio_low"]) == (2.0, None, None, None)


def test_what_cannot_be_pooled_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one training seed"):
        pool_returns([], 0.95, 0)
    with pytest.raises(ValueError, match="no agent is in all"):
        pool_returns([results(bc=[1]), results(random=[1])], 0.95, 0)
    with pytest.raises(ValueError, match="results 1 have"):
        pool_returns([results(bc=[1], random=[1]), results(bc=[1], random=[1, 2])], 0.95, 0)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.lists(st.tuples(*[st.integers(0, 9)] * 3), min_size=1, max_size=4), min_size=1, max_size=4))
def test_order_of_training_seeds_does_not_matter_to_means(seeds: list[list[tuple[int, ...]]]) -> None:
    facts = [
        results(**{name: [row[place] for row in rows] for place, name in enumerate(("random", "bc", "imagination"))})
        for rows in seeds
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "NUM_RESAMPLES", 49)
        one, other = pool_returns(facts, 0.95, 0), pool_returns(facts[::-1], 0.95, 0)
    for name, agent in one["agents"].items():
        assert agent["mean"] == pytest.approx(other["agents"][name]["mean"])
        assert agent["per_seed"] == other["agents"][name]["per_seed"][::-1]
        weights = [len(rows) for rows in seeds]
        assert agent["mean"] == pytest.approx(np.average(agent["per_seed"], weights=weights))
    for entry, mirrored in zip(one["comparisons"], other["comparisons"], strict=True):
        assert entry["difference"] == pytest.approx(mirrored["difference"])
        assert (entry["ratio"] is None) == (mirrored["ratio"] is None)
