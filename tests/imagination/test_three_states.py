"""Credit assignment on a game of three states, dreamed by the real rollout over an exact world."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ahriuwu_cli.agent.distribution import ActionDistribution
from ahriuwu_cli.imagination.config import ImagineSection
from ahriuwu_cli.imagination.rollout import Rollout, imagine
from ahriuwu_cli.imagination.train import imagination_loss

LEFT, RIGHT, END = 0, 1, 2
RULES = {  # once more, by hand: (state, action) -> (next state, reward, continue)
    (LEFT, 0): (END, 1.0, 0.0),
    (LEFT, 1): (RIGHT, 0.0, 1.0),
    (RIGHT, 0): (END, 3.0, 0.0),
    (RIGHT, 1): (LEFT, 0.0, 1.0),
    (END, 0): (END, -5.0, 1.0),
    (END, 1): (END, -5.0, 1.0),
}
BEST = {LEFT: 1, RIGHT: 0}  # 0.9 * 3 against 1; 3 against 0.9 * 0.9 * 3


def settings(**changes) -> ImagineSection:
    values = {"horizon": 4, "gamma": 0.9, "lambda_return": 0.95, "beta": 0.02, "value_ema": 0.0}
    train = {"steps": 1, "batch_size": 32, "learning_rate": 0.02}
    return ImagineSection.model_validate({**values, "train": train, **changes})


def dream(game, starts: list[int], horizon: int, *, uses_ends: bool = True, seed: int | None = None) -> Rollout:
    if seed is not None:
        torch.manual_seed(seed)
    return imagine(game.model.agent, game.dream(len(starts)), game.contexts(*starts), horizon, 1.0, uses_ends=uses_ends)


# ---------------------------------------------------------------- what was dreamed


def test_rewards_and_continues_belong_to_the_actions_that_earned_them(arcade):
    """Pitfall 29: a_t at h_t; r_{t+1} and c_{t+1}, read at h_{t+1}, stand at index t."""
    game = arcade()
    starts = [LEFT, RIGHT] * 16
    rollout = dream(game, starts, 5, seed=1)
    assert rollout.agent.shape == (32, 6, 16) and rollout.action.shape == (32, 5, 1)
    for row, start in enumerate(starts):
        state = start
        for t in range(5):
            assert rollout.agent[row, t, :3].argmax() == state
            state, reward, alive = RULES[state, int(rollout.action[row, t])]
            assert rollout.reward[row, t] == reward
            assert rollout.alive[row, t] == alive
        assert rollout.agent[row, 5, :3].argmax() == state
    assert len(rollout.action.unique()) == 2


def test_where_episodes_never_end_every_step_goes_on(arcade):
    assert (dream(arcade(), [LEFT, RIGHT] * 4, 5, uses_ends=False, seed=1).alive == 1).all()


# ---------------------------------------------------------------- one trajectory by hand

VALUES = {LEFT: 2.0, RIGHT: 1.0, END: -7.0}


@pytest.fixture
def by_hand(arcade):
    """Linear heads: the policy uniform, the values as in VALUES (slow ones: 1 more)."""
    game = arcade(num_hidden=0)
    model = game.model
    with torch.no_grad():
        for head in (model.agent.policy.net.out, model.prior.net.out):
            head.weight.zero_()
        for head, more in ((model.value.out, 0.0), (model.slow_value.out, 1.0)):
            head.weight.zero_()
            for state, value in VALUES.items():
                head.weight[:, state] = (model.agent.twohot.encode(torch.tensor(value + more)) + 1e-12).log()
    return game


def trajectory(game) -> Rollout:
    """Left, go right, cash in, and a step in the pit."""
    h = [game.read_out(LEFT), game.read_out(RIGHT), game.read_out(END, 3, 0), game.read_out(END, -5, 1)]
    return Rollout(
        agent=torch.stack(h)[None],
        action=torch.tensor([[[1.0], [0.0], [0.0]]]),
        reward=torch.tensor([[0.0, 3.0, -5.0]]),
        alive=torch.tensor([[1.0, 0.0, 1.0]]),
    )


def test_returns_advantages_and_weights_by_hand(by_hand):
    """Pitfall 29: with gamma = lambda = 0.5.

    R_2 = -5 + 0.5 * -7 = -8.5; R_1 = 3; R_0 = 0.5 (0.5 * 1 + 0.5 * 3) = 1;
    A = (1 - 2, 3 - 1, -8.5 + 7) = (-1, 2, -1.5); weights (1, 1, 0): nobody ever decides in the pit.
    """
    config = settings(gamma=0.5, lambda_return=0.5, beta=0.0)
    model = by_hand.model
    loss, metrics = imagination_loss(model, trajectory(by_hand), config)
    expected = {
        "positive_share": 0.5,
        "imagined_return": 3.0,  # the pit's -5 is not reached
        "imagined_end": 1.0,
        "value_error": 1.5,
        "entropy": math.log(2),
        "kl_to_prior": 0.0,
        "policy_loss": 0.0,  # 0.5 ln 2 - 0.5 ln 2
    }
    assert {name: metrics[name].item() for name in expected} == pytest.approx(expected, abs=1e-4)
    two = torch.tensor([1.0, 3.0])
    value_loss = model.agent.twohot.loss(model.value(trajectory(by_hand).agent[0, :2]), two).mean()
    assert loss.item() == pytest.approx(value_loss.item(), rel=1e-4)

    loss.backward()
    gradient = model.agent.policy.net.out.weight.grad  # (L * 2, D): distance 0 first
    # going right at LEFT looked bad: 0.5 (onehot - p); cashing in at RIGHT good: 0.5 (p - onehot); the pit: nothing
    expected_gradient = torch.tensor([[-0.25, -0.25, 0.0], [0.25, 0.25, 0.0]])
    torch.testing.assert_close(gradient[:2, :3], expected_gradient, atol=1e-5, rtol=0)
    assert not gradient[2:].any()  # other distances are not touched
    assert model.value.out.weight.grad[:, [LEFT, RIGHT]].any(dim=0).all()
    assert not model.value.out.weight.grad[:, END].any()
    frozen = [p for name, p in model.named_parameters() if not name.startswith(("agent.policy.", "value."))]
    assert all(parameter.grad is None for parameter in frozen)


def test_the_slow_values_bootstrap_and_the_fast_ones_are_the_baseline(by_hand):
    """With slow values 1 higher: R_1 = 3, R_0 = 0.5 (0.5 * 2 + 0.5 * 3) = 1.25; errors 0.75 and 2."""
    rollout = trajectory(by_hand)
    _, metrics = imagination_loss(by_hand.model, rollout, settings(gamma=0.5, lambda_return=0.5, value_ema=0.9))
    assert metrics["value_error"].item() == pytest.approx((0.75 + 2) / 2, abs=1e-4)
    assert metrics["value"].item() == pytest.approx(-4 / 3, abs=1e-4)


def test_the_prior_holds_the_policy_in_the_direction_of_eq_11(by_hand):
    """KL[pi || prior], weighted by reach."""
    model = by_hand.model
    with torch.no_grad():
        model.agent.policy.net.out.weight[0, LEFT] = 2.0
    p = torch.tensor([2.0, 0.0]).softmax(dim=0)
    kl = (p * (p / 0.5).log()).sum().item() / 2  # at LEFT; nothing at RIGHT; the pit is not reached
    _, metrics = imagination_loss(model, trajectory(by_hand), settings(beta=1.0))
    assert metrics["kl_to_prior"].item() == pytest.approx(kl, rel=1e-4)


# ---------------------------------------------------------------- learning

Change = Callable[[Rollout], Rollout]


def learn(game, change: Change = lambda rollout: rollout, steps: int = 120, **changes) -> dict[int, float]:
    """Train in dreams; returns the probability of the best action in each state."""
    config = settings(**changes)
    optimizer = torch.optim.Adam(game.model.trained().values(), lr=config.train.learning_rate)
    torch.manual_seed(0)
    for _ in range(steps):
        rollout = change(dream(game, [LEFT, RIGHT] * 16, config.horizon))
        loss, _ = imagination_loss(game.model, rollout, config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {state: chance(game, state)[action].item() for state, action in BEST.items()}


def chance(game, state: int) -> Tensor:
    """Probability of each action in a state."""
    logits = game.model.agent.policy_now(game.read_out(state))
    [(_, log_p)] = ActionDistribution(game.model.agent.choices, logits).log_p
    return log_p.detach().exp()[0]


def test_the_best_actions_are_found(arcade):
    """Pitfall 29: from a uniform policy to going right and cashing in; values become the true ones."""
    game = arcade()
    assert {state: chance(game, state)[action].item() for state, action in BEST.items()} == pytest.approx(
        {LEFT: 0.5, RIGHT: 0.5}, abs=0.05
    )
    prior = game.model.prior.net.out.weight.clone()
    found = learn(game)
    assert min(found.values()) > 0.9, found
    values = [game.model.value_now(game.read_out(state)).item() for state in (LEFT, RIGHT)]
    assert values == pytest.approx([2.7, 3.0], abs=0.4)
    assert torch.equal(game.model.prior.net.out.weight, prior)


def scored_at_the_outcome(rollout: Rollout) -> Rollout:
    """Log-probability and baseline of a_t at h_{t+1}."""
    agent = torch.cat([rollout.agent[:, 1:], rollout.agent[:, -1:]], dim=1)
    return dataclasses.replace(rollout, agent=agent)


def later(tensor: Tensor, first: float) -> Tensor:
    return torch.cat([torch.full_like(tensor[:, :1], first), tensor[:, :-1]], dim=1)


@pytest.mark.parametrize(
    "mistake",
    [
        scored_at_the_outcome,
        lambda rollout: dataclasses.replace(rollout, alive=later(rollout.alive, 1.0)),
        lambda rollout: dataclasses.replace(rollout, alive=torch.ones_like(rollout.alive)),
        lambda rollout: dataclasses.replace(rollout, reward=later(rollout.reward, 0.0)),
    ],
    ids=["scored at the outcome", "continue one step late", "continue ignored", "reward one step late"],
)
def test_the_game_shows_mistakes_in_credit_assignment(arcade, mistake):
    """Pitfall 29: with each of these put back, the best actions are not found: the test above can fail."""
    assert min(learn(arcade(), mistake).values()) < 0.8


def test_a_strong_prior_keeps_the_policy_where_it_was(arcade):
    found = learn(arcade(), beta=10.0, steps=60)
    assert all(0.3 < probability < 0.75 for probability in found.values()), found
