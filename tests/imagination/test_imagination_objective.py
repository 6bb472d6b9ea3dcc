"""Returns, weights and PMPO against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.imagination.objective import first_of, from_first, lambda_returns, pmpo, reach_weights

# ---------------------------------------------------------------- returns


def returns(reward, alive, next_value, gamma, mixing) -> list[float]:
    rows = (torch.tensor([row], dtype=torch.float32) for row in (reward, alive, next_value))
    return lambda_returns(*rows, gamma, mixing)[0].tolist()


def test_lambda_returns_by_hand():
    """Pitfall 29, Eq. 10: each from the next, the last from the value alone."""
    # R_2 = 2 + 0.5 * 6 = 5; R_1 = 0 + 0.5 (0.5 * 2 + 0.5 * 5) = 1.75; R_0 = 1 + 0.5 (0.5 * 4 + 0.5 * 1.75) = 2.4375
    assert returns([1, 0, 2], [1, 1, 1], [4, 2, 6], 0.5, 0.5) == [2.4375, 1.75, 5.0]


def test_an_end_cuts_what_comes_after_its_own_reward():
    """Pitfall 29: c_{t+1}, stored at t, multiplies what follows r_{t+1}, not r_{t+1} and not the step after."""
    # the second action ends the game: R_1 = 7; R_0 = 1 + 0.5 (0.5 * 4 + 0.5 * 7) = 3.75
    assert returns([1, 7, 2], [1, 0, 1], [4, 2, 6], 0.5, 0.5) == [3.75, 7.0, 5.0]
    assert returns([1, 7, 2], [1, 1, 0], [4, 2, 6], 0.5, 1.0) == [1 + 0.5 * (7 + 0.5 * 2), 8.0, 2.0]
    assert returns([1.0], [0.5], [4.0], 0.5, 0.3) == [2.0]  # a probability counts as far as it goes


def cut_returns(cut: list[bool]) -> list[float]:
    rows = (torch.tensor([row], dtype=torch.float32) for row in ([1, 0, 2], [1, 1, 1], [4, 2, 6]))
    return lambda_returns(*rows, 0.5, 0.5, torch.tensor([cut]))[0].tolist()


def test_a_cut_bootstraps_with_the_last_state_inside():
    """Pitfall 35: lambda is 0 before the first decision that is cut."""
    assert cut_returns([False, False, False]) == [2.4375, 1.75, 5.0]
    assert cut_returns([False, True, True])[0] == 1 + 0.5 * 4  # v_1 alone
    assert cut_returns([False, False, True])[:2] == [1 + 0.5 * (0.5 * 4 + 0.5 * 1), 0.5 * 2]  # R_1 = 0 + 0.5 v_2


def test_from_the_first_step_outside_on():
    outside = torch.tensor([[False, True, False, False], [False] * 4, [True, False, True, False]])
    assert from_first(outside).tolist() == [[False, True, True, True], [False] * 4, [True] * 4]


def test_a_decision_that_leaves_the_data_is_a_bad_one_by_hand():
    """Pitfall 35: in D- whatever its advantage; mean ln pi of D+ = {2}: -4, of D- = {1, leaving 0}: -1.5; KL 0.4."""
    weight, leaving = torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    loss, metrics = pmpo(LOG_PROB, torch.tensor([[9.0, -1.0, 1.0]]), KL, weight, 0.5, 0.3, leaving)
    assert loss.item() == pytest.approx(0.5 * 4 + 0.5 * -1.5 + 0.3 * 0.4)
    assert metrics["positive_share"] == 0.5
    cut = torch.tensor([[False, True, True], [False] * 3, [True] * 3])
    assert first_of(cut).tolist() == [[False, True, False], [False] * 3, [True, False, False]]


def test_the_ends_of_lambda():
    reward, alive, value = [1, 2, 3], [1, 1, 1], [10, 20, 30]
    assert returns(reward, alive, value, 0.5, 0.0) == [6.0, 12.0, 18.0]  # one step and the value
    assert returns(reward, alive, value, 0.5, 1.0) == [
        1 + 1 + 0.75 + 3.75,
        2 + 1.5 + 7.5,
        18.0,
    ]  # the last value


numbers = st.floats(-5, 5)


@given(
    steps=st.lists(st.tuples(numbers, st.floats(0, 1), numbers), min_size=1, max_size=6),
    gamma=st.floats(0.1, 1),
    mixing=st.floats(0, 1),
)
def test_lambda_returns_are_the_mixture_of_n_step_returns(steps, gamma, mixing):
    """The textbook's forward view: (1 - lambda) sum lambda^(n-1) G_n, the rest of the weight on the longest."""
    reward, alive, value = ([step[i] for step in steps] for i in range(3))
    horizon = len(steps)

    def n_step(t: int, n: int) -> float:
        total, discount = 0.0, 1.0
        for i in range(t, t + n):
            total += discount * reward[i]
            discount *= gamma * alive[i]
        return total + discount * value[t + n - 1]

    for t, found in enumerate(returns(reward, alive, value, gamma, mixing)):
        longest = horizon - t
        mixture = sum((1 - mixing) * mixing ** (n - 1) * n_step(t, n) for n in range(1, longest))
        assert found == pytest.approx(mixture + mixing ** (longest - 1) * n_step(t, longest), abs=1e-3)


@given(
    steps=st.lists(st.tuples(numbers, st.floats(0, 1), numbers), min_size=2, max_size=6),
    first=st.integers(1, 5),
    gamma=st.floats(0.1, 1),
    mixing=st.floats(0, 1),
)
def test_a_cut_rollout_is_one_that_ends_there(steps, first, gamma, mixing):
    """Returns before a cut are those of the rollout without anything from the cut on, whatever stands there."""
    first = min(first, len(steps) - 1)
    reward, alive, value = (torch.tensor([[step[i] for step in steps]]) for i in range(3))
    cut = torch.arange(len(steps))[None] >= first
    found = lambda_returns(reward, alive, value, gamma, mixing, cut)[:, :first]
    short = lambda_returns(reward[:, :first], alive[:, :first], value[:, :first], gamma, mixing)
    assert found[0].tolist() == pytest.approx(short[0].tolist(), abs=1e-4)


def test_reach_by_hand():
    """Pitfall 29: a decision counts when the game went on after every action before it; the first always does."""
    alive = torch.tensor([[1.0, 0.5, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]])
    assert reach_weights(alive).tolist() == [[1, 1, 0.5, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    assert reach_weights(torch.zeros(2, 1)).tolist() == [[1], [1]]


# ---------------------------------------------------------------- PMPO

ALL = torch.ones(1, 3)
LOG_PROB = torch.tensor([[-1.0, -2.0, -4.0]])
KL = torch.tensor([[0.1, 0.2, 0.6]])


def value_of(advantage, weight=ALL, alpha=0.5, beta=0.3) -> float:
    return pmpo(LOG_PROB, torch.tensor([advantage]), KL, weight, alpha, beta)[0].item()


def test_pmpo_by_hand():
    """Eq. 11: means over D+ = {A >= 0} and D- = {A < 0}, and over all of the KL."""
    # D+ = {0, 2}: mean ln pi -2.5; D- = {1}: -2; KL 0.3
    assert value_of([1.0, -1.0, 0.0]) == pytest.approx(0.5 * 2.5 + 0.5 * -2 + 0.3 * 0.3)
    assert value_of([1.0, -1.0, 0.0], alpha=0.8, beta=2) == pytest.approx(0.8 * 2.5 + 0.2 * -2 + 2 * 0.3)
    assert value_of([9.0, -0.01, 0.5]) == value_of([1.0, -1.0, 0.0])  # only the sign matters


def test_an_empty_set_contributes_nothing():
    assert value_of([1.0, 1.0, 1.0]) == pytest.approx(0.5 * 7 / 3 + 0.3 * 0.3)
    assert value_of([-1.0, -1.0, -1.0]) == pytest.approx(0.5 * -7 / 3 + 0.3 * 0.3)


def test_decisions_that_are_not_reached_count_for_nothing():
    weight = torch.tensor([[1.0, 1.0, 0.0]])
    assert value_of([1.0, -1.0, 1.0], weight) == pytest.approx(0.5 * 1 + 0.5 * -2 + 0.3 * 0.15)
    # half reached: (1 * 1 + 0.5 * 4) / 1.5 in D+, (0.1 + 0.2 + 0.5 * 0.6) / 2.5 for the prior
    weight = torch.tensor([[1.0, 1.0, 0.5]])
    assert value_of([1.0, -1.0, 1.0], weight) == pytest.approx(0.5 * 2 + 0.5 * -2 + 0.3 * 0.24)


def test_the_gradient_raises_what_was_good_and_lowers_what_was_bad():
    """Pitfall 28: not zero, of the right sign, and of the size Eq. 11 gives it."""
    log_prob, kl = LOG_PROB.clone().requires_grad_(), KL.clone().requires_grad_()
    loss, metrics = pmpo(log_prob, torch.tensor([[1.0, -1.0, 0.0]]), kl, ALL, 0.5, 0.3)
    loss.backward()
    assert log_prob.grad.tolist() == [[-0.25, 0.5, -0.25]]
    assert kl.grad[0].tolist() == pytest.approx([0.1] * 3)
    assert metrics["positive_share"].item() == pytest.approx(2 / 3)
    assert metrics["kl_to_prior"].item() == pytest.approx(0.3)
