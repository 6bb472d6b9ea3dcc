"""Episode seeds: distinct, fixed, never those that were recorded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.evaluation.agents import SEED_STREAM
from ahriuwu_cli.games.seeds import fresh_seeds
from ahriuwu_cli.imagination.check import CHECK_STREAM
from ahriuwu_cli.sources.record import episode_seeds

STREAMS = (SEED_STREAM, CHECK_STREAM)


@given(
    seed=st.integers(0, 2**31 - 1),
    stream=st.sampled_from(STREAMS),
    count=st.integers(1, 40),
    hit=st.sets(st.integers(0, 39)),
)
def test_seeds_are_distinct_and_not_taken(seed: int, stream: int, count: int, hit: set[int]) -> None:
    """Pitfall 7: an episode that was recorded is not played again to judge an agent."""
    free = fresh_seeds(seed, stream, 40, set())
    taken = {free[index] for index in hit} | set(range(5))
    before = set(taken)
    seeds = fresh_seeds(seed, stream, count, taken)
    assert taken == before
    assert len(set(seeds)) == len(seeds) == count
    assert not set(seeds) & taken
    assert seeds == fresh_seeds(seed, stream, count, taken)
    wanted = [candidate for candidate in free if candidate not in taken][:count]
    assert seeds[: len(wanted)] == wanted


def test_recording_evaluation_and_checks_play_different_episodes() -> None:
    for seed in range(5):
        recorded = set(episode_seeds(seed, 1000, set()))
        judged, checked = (set(fresh_seeds(seed, stream, 100, set())) for stream in STREAMS)
        assert not (recorded & judged or recorded & checked or judged & checked)


def test_other_runs_have_other_seeds() -> None:
    assert fresh_seeds(3, CHECK_STREAM, 5, set()) != fresh_seeds(4, CHECK_STREAM, 5, set())
