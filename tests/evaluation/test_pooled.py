"""Pooling several training seeds: by hand, pairs stay pairs, and what only some of them have is left out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.evaluation import statistics
from ahriuwu_cli.evaluation.over_seeds import ABOVE, FEW, SAME
from ahriuwu_cli.evaluation.pooled import pool_returns
from ahriuwu_cli.evaluation.statistics import paired_test


def results(**returns: list[float]) -> dict[str, Any]:
    """What agents.json holds, as far as pooling reads it."""
    return {"agents": {name: {"returns": values, "mean": float(np.mean(values))} for name, values in returns.items()}}


def test_two_training_seeds_by_hand() -> None:
    """The unit is the training seed: the mean of seeds of 2 and 4 is 3, though the first has more episodes."""
    facts = [results(scratch=[1, 1], bc=[1, 3], imagination=[2, 6]), results(scratch=[2], bc=[4], imagination=[4])]
    pooled = pool_returns(facts, 0.95, 0)
    bc = pooled["agents"]["bc"]
    assert (bc["mean"], bc["per_seed"], bc["num_seeds"], bc["episodes"]) == (3.0, [2.0, 4.0], 2, 3)
    assert 1.0 <= bc["low"] < 3.0 < bc["high"] <= 4.0
    entries = {(entry["agent"], entry["baseline"]): entry for entry in pooled["comparisons"]}
    assert set(entries) == {("bc", "scratch"), ("imagination", "scratch"), ("imagination", "bc")}
    first, second = entries["bc", "scratch"], entries["imagination", "bc"]
    assert (first["difference"], first["ratio"], first["per_seed"]) == (1.5, 2.0, [1.0, 2.0])
    assert (second["difference"], second["ratio"], second["per_seed"]) == (1.0, 4 / 3, [2.0, 0.0])
    assert (first["p_value"], first["num_seeds"], first["verdict"]) == (0.5, 2, FEW)
    assert first["t_p_value"] == pytest.approx(0.2048, abs=1e-4)  # t = 3 with one degree of freedom
    assert pooled["way"] == {}


def trainings(num_seeds: int, gain: float, luck: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Facts of training seeds: episodes differ a lot but alike for both agents, trainings by `luck`."""
    facts = []
    for _ in range(num_seeds):
        shared, gained = rng.poisson(5, 30), gain + rng.normal(0, luck)
        facts.append(results(bc=shared.tolist(), imagination=(shared + gained + rng.integers(0, 3, 30)).tolist()))
    return facts


def test_trainings_decide_not_their_episodes() -> None:
    """Pitfall 37: 240 pairs of episodes would be sure of what eight trainings that differ leave open."""
    facts = trainings(8, 0.0, 2.0, np.random.default_rng(2))
    a, b = (np.concatenate([seed["agents"][name]["returns"] for seed in facts]) for name in ("imagination", "bc"))
    assert paired_test(a, b, 4).p_value < 0.001
    [entry] = pool_returns(facts, 0.95, 4)["comparisons"]
    assert entry["p_value"] > 0.05 and entry["low"] < 0 < entry["high"]
    assert entry["verdict"] == SAME


def test_eight_trainings_that_agree_are_above() -> None:
    pooled = pool_returns(trainings(8, 1.0, 0.3, np.random.default_rng(0)), 0.9, 4)
    [entry] = pooled["comparisons"]
    assert (entry["p_value"], entry["verdict"]) == (pytest.approx(2 / 2**8), ABOVE)
    assert entry["high"] - entry["low"] < 1.5  # the luck of the episodes cancels
    loose = pool_returns(trainings(8, 1.0, 0.3, np.random.default_rng(0)), 0.9, 4, paired=False)
    assert loose["agents"]["bc"]["mean"] == pooled["agents"]["bc"]["mean"]
    [other] = loose["comparisons"]
    assert other["high"] - other["low"] > entry["high"] - entry["low"]
    assert json.loads(json.dumps(pooled, allow_nan=False)) == pooled


def test_the_share_of_the_way_by_hand() -> None:
    """From a recorded player of 1 to a script of 9: an agent of 5 is half way there in every resample."""
    facts = [results(dataset=[1.0] * 2, expert=[9.0] * 2, bc=[1.0] * 2, imagination=[5.0] * 2) for _ in range(3)]
    way = pool_returns(facts, 0.95, 0)["way"]
    assert way["imagination"] == {"share": 0.5, "low": 0.5, "high": 0.5, "of": "expert", "target": 9.0}
    assert way["bc"]["share"] == 0.0
    bare = [{"agents": {name: seed["agents"][name] for name in ("dataset", "bc")}} for seed in facts]
    assert pool_returns(bare, 0.95, 0)["way"] == {}
    known = pool_returns(bare, 0.95, 0, best=5.0)["way"]["bc"]
    assert (known["share"], known["of"], known["target"]) == (0.0, "best known return", 5.0)
    assert pool_returns(bare, 0.95, 0, best=-5.0)["way"]["bc"]["share"] is None


def test_only_agents_that_all_have() -> None:
    facts = [results(random=[1], dataset=[2], bc=[3]), results(bc=[4], random=[0], imagination=[9])]
    pooled = pool_returns(facts, 0.95, 0)
    assert list(pooled["agents"]) == ["random", "bc"]
    assert [(entry["agent"], entry["baseline"]) for entry in pooled["comparisons"]] == [("bc", "random")]


def test_one_training_leaves_intervals_open() -> None:
    pooled = pool_returns([results(bc=[0.0], imagination=[2.0])], 0.95, 0)
    bc = pooled["agents"]["bc"]
    assert (bc["mean"], bc["low"], bc["high"], bc["per_seed"], bc["episodes"]) == (0.0, None, None, [0.0], 1)
    [entry] = pooled["comparisons"]
    assert (entry["difference"], entry["low"], entry["ratio"], entry["ratio_low"]) == (2.0, None, None, None)
    assert (entry["p_value"], entry["t_p_value"], entry["verdict"]) == (1.0, None, FEW)


def test_what_cannot_be_pooled_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one training seed"):
        pool_returns([], 0.95, 0)
    with pytest.raises(ValueError, match="no agent is in all"):
        pool_returns([results(bc=[1]), results(random=[1])], 0.95, 0)
    with pytest.raises(ValueError, match="equal numbers"):
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
        assert agent["mean"] == pytest.approx(np.mean(agent["per_seed"]))
    for entry, mirrored in zip(one["comparisons"], other["comparisons"], strict=True):
        assert entry["difference"] == pytest.approx(mirrored["difference"])
        assert (entry["ratio"] is None) == (mirrored["ratio"] is None)
