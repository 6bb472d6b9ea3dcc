"""Episode seeds: distinct, fixed, never those that were recorded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.games.seeds import BORDER, Stream, fresh_seeds
from ahriuwu_cli.sources.record import episode_seeds


@given(
    seed=st.integers(0, 2**31 - 1),
    stream=st.sampled_from(Stream),
    count=st.integers(1, 40),
    hit=st.sets(st.integers(0, 39)),
)
def test_seeds_are_distinct_and_not_taken(seed: int, stream: Stream, count: int, hit: set[int]) -> None:
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
        played = [set(fresh_seeds(seed, stream, 100, set())) for stream in Stream]
        assert len(recorded.union(*played)) == 1000 + 100 * len(Stream)


@given(tuned=st.integers(0, 2**31 - 1), tested=st.integers(0, 2**31 - 1), stream=st.sampled_from(Stream))
def test_no_run_is_tuned_on_an_episode_that_another_is_tested_on(tuned: int, tested: int, stream: Stream) -> None:
    """Pitfall 38: test episodes have seeds of their own, whatever the runs' seeds."""
    assert min(fresh_seeds(tested, Stream.TEST, 20, set())) >= BORDER
    if stream is not Stream.TEST:
        assert max(fresh_seeds(tuned, stream, 20, set())) < BORDER


def test_other_runs_have_other_seeds() -> None:
    assert fresh_seeds(3, Stream.CHECK, 5, set()) != fresh_seeds(4, Stream.CHECK, 5, set())
