"""Action distributions against torch.distributions, by sampling, and there and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, kl_divergence

from ahriuwu_cli.agent.distribution import ActionChoices, ActionDistribution, binary_loss
from ahriuwu_cli.core.specs import WIDEST_BOUND, ActionComponent, ActionSpec, are_apart
from ahriuwu_cli.episodes.actions import ActionRange
from ahriuwu_cli.episodes.tally import ActionTally
from ahriuwu_cli.evaluation.config import EvalSection
from ahriuwu_cli.imagination.config import ImagineSection

MOVE = ActionComponent(name="move", type="categorical", num_classes=4)
KEYS = ActionComponent(name="keys", type="binary", dim=2)
AIM = ActionComponent(name="aim", type="continuous", dim=2, low=-1.0, high=3.0)
BINS = 5  # aim: -1, 0, 1, 2, 3


def choices_of(*components: ActionComponent, bins: int = BINS) -> ActionChoices:
    return ActionChoices(ActionSpec(components=components), bins)


MIXED = choices_of(MOVE, KEYS, AIM)


def references(logits: Tensor) -> tuple[Categorical, Bernoulli, Categorical]:
    """The same distributions in torch's words: (..., 4 + 2*2 + 2*5) logits."""
    keys, aim = logits[..., 4:8].reshape(*logits.shape[:-1], 2, 2), logits[..., 8:].reshape(*logits.shape[:-1], 2, 5)
    return Categorical(logits=logits[..., :4]), Bernoulli(logits=keys[..., 1] - keys[..., 0]), Categorical(logits=aim)


def random_logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, MIXED.num_logits, generator=torch.Generator().manual_seed(seed)) * 2


def test_number_of_logits():
    assert MIXED.num_logits == 4 + 2 * 2 + 2 * 5
    assert choices_of(MOVE).num_logits == 4
    assert choices_of(KEYS).num_logits == 4
    assert choices_of(AIM, bins=7).num_logits == 14


def test_log_prob_entropy_and_kl_are_those_of_torch():
    logits, other = random_logits(3, 2), random_logits(3, 2, seed=1)
    mine, theirs = ActionDistribution(MIXED, logits), references(logits)
    prior, their_prior = ActionDistribution(MIXED, other), references(other)
    index = torch.randint(0, BINS, (3, 2, 2), generator=torch.Generator().manual_seed(2))
    move, keys = torch.tensor([[0, 3], [1, 2], [2, 0]]), torch.tensor([[[0, 1], [1, 1]]] * 3)
    action = torch.cat([move[..., None].float(), keys.float(), index.float() - 1], dim=-1)  # aim = index - 1
    expected = theirs[0].log_prob(move) + theirs[1].log_prob(keys.float()).sum(-1) + theirs[2].log_prob(index).sum(-1)
    torch.testing.assert_close(mine.log_prob(action), expected)
    entropy = theirs[0].entropy() + theirs[1].entropy().sum(-1) + theirs[2].entropy().sum(-1)
    torch.testing.assert_close(mine.entropy(), entropy)
    parts = [kl_divergence(p, q) for p, q in zip(theirs, their_prior, strict=True)]
    torch.testing.assert_close(mine.kl(prior), parts[0] + parts[1].sum(-1) + parts[2].sum(-1))
    assert mine.kl(mine).abs().max() == 0
    assert not torch.allclose(mine.kl(prior), prior.kl(mine), atol=1e-2)  # its direction matters


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_samples_come_as_often_as_their_probability_says(temperature):
    """Pitfall 17: temperature is explicit: it divides the logits, in sampling as in probabilities."""
    logits, count = random_logits(), 20_000
    distribution = ActionDistribution(MIXED, logits.expand(count, -1), temperature)
    rows = distribution.sample(torch.rand(count, MIXED.num_logits, generator=torch.Generator().manual_seed(1)))
    assert rows.shape == (count, 5)
    move, keys, aim = references(logits / temperature)
    seen = [(rows[:, 0] == value).float().mean() for value in range(4)]
    seen += [rows[:, 1 + key].mean() for key in range(2)]
    seen += [(rows[:, 3 + axis] == value - 1).float().mean() for axis in range(2) for value in range(BINS)]
    expected = torch.cat([move.probs, keys.probs, aim.probs.flatten()])
    deviation = (expected * (1 - expected) / count).sqrt()
    assert ((torch.stack(seen) - expected).abs() < 4 * deviation + 1e-6).all()
    if temperature == 2.5:  # hot enough for every switch to vary
        assert abs(np.corrcoef(rows[:, 1], rows[:, 2])[0, 1]) < 0.03  # components are independent


def test_temperature_runs_from_the_mode_to_uniform():
    """Pitfall 17: greedy decoding is a limit that nobody gets without asking for it."""
    logits = random_logits(500)
    uniform = torch.rand(500, MIXED.num_logits, generator=torch.Generator().manual_seed(1))
    cold, hot = ActionDistribution(MIXED, logits, 1e-4), ActionDistribution(MIXED, logits, 1e4)
    assert torch.equal(cold.sample(uniform), cold.mode())
    assert torch.equal(cold.mode(), hot.mode())
    assert hot.entropy().mean() == pytest.approx(math.log(4) + 2 * math.log(2) + 2 * math.log(BINS), rel=1e-3)
    entropies = [ActionDistribution(MIXED, logits, t).entropy().mean() for t in (0.1, 0.5, 1.0, 2.0, 10.0)]
    assert entropies == sorted(entropies)
    for section in (EvalSection, ImagineSection):
        assert section.model_fields["temperature"].default == 1.0


def test_the_same_uniform_numbers_give_the_same_actions():
    uniform = torch.rand(7, MIXED.num_logits)
    distribution = ActionDistribution(MIXED, random_logits(7))
    assert torch.equal(distribution.sample(uniform), distribution.sample(uniform))
    edges = torch.stack([torch.zeros(MIXED.num_logits), torch.ones(MIXED.num_logits)])
    assert ActionRange(MIXED.spec).inside(ActionDistribution(MIXED, random_logits(2)).sample(edges).numpy()).all()


def test_the_mode_by_hand():
    parts = ((0.0, 0, 5, 0), (0.0, 1), (1.0, 0), (0.0, 0, 0, 0, 9), (3.0, 0, 0, 0, 0))
    logits = torch.cat([torch.tensor(part) for part in parts])
    assert ActionDistribution(MIXED, logits).mode().tolist() == [2, 1, 0, 3, -1]


def test_gradients_reach_every_logit():
    """Pitfall 28: not zero."""
    logits = random_logits(4).requires_grad_()
    distribution = ActionDistribution(MIXED, logits)
    (distribution.log_prob(distribution.mode()) + distribution.entropy()).sum().backward()
    assert logits.grad.abs().min() > 0


# ---------------------------------------------------------------- values and indices

bounds = (
    st.tuples(st.floats(-1e4, 1e4), st.floats(1e-2, 1e4))
    .map(lambda b: (b[0], b[0] + b[1]))
    .filter(lambda b: are_apart(*b))
)


@given(bounds=bounds, bins=st.integers(2, 255))
def test_every_choice_comes_back_and_is_inside_the_range(bounds, bins):
    low, high = bounds
    component = ActionComponent(name="a", type="continuous", low=low, high=high)
    choices = choices_of(component, bins=bins)
    index = torch.arange(bins)
    values = choices.to_value(component, index)
    assert ActionRange(choices.spec).inside(values[:, None].numpy()).all()
    spacing = (high - low) / (bins - 1)
    if spacing > 1e-5 * max(abs(low), abs(high)):  # float32 can tell the choices apart
        assert torch.equal(choices.to_index(component, values), index)


@given(value=st.floats(-1, 3, width=32), bins=st.integers(2, 255))
def test_a_value_becomes_its_nearest_choice(value, bins):
    choices = choices_of(AIM, bins=bins)
    row = torch.tensor([value, 0.0])
    nearest = choices.quantise(row)
    assert abs(nearest[0] - value) <= 4 / (bins - 1) / 2 + 1e-6
    assert torch.equal(choices.quantise(nearest), nearest)


@given(row=st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 1)))
def test_discrete_values_stay_as_they_are(row):
    choices = choices_of(MOVE, KEYS)
    values = torch.tensor(row, dtype=torch.float32)
    assert torch.equal(choices.quantise(values), values)


def test_values_outside_the_range_are_the_outermost_choices():
    assert choices_of(AIM).to_index(AIM, torch.tensor([-9.0, 9.0])).tolist() == [0, 4]


def test_binary_loss_by_hand():
    loss = binary_loss(torch.tensor([0.0, 2.0, 2.0], dtype=torch.bfloat16), torch.tensor([True, True, False]))
    assert loss.tolist() == pytest.approx([math.log(2), math.log1p(math.exp(-2)), 2 + math.log1p(math.exp(-2))])
    assert loss.dtype == torch.float32


def test_the_widest_bounds_stay_finite() -> None:
    """Bounds of float32's largest number overflowed to inf, and every step was skipped."""
    wide = choices_of(ActionComponent(name="wide", type="continuous", low=-WIDEST_BOUND, high=WIDEST_BOUND))
    distribution = ActionDistribution(wide, torch.linspace(-2, 2, 3 * wide.num_logits).reshape(3, -1))
    row = distribution.sample(torch.rand(3, wide.num_logits))
    for numbers in (row, distribution.log_prob(row), distribution.entropy(), distribution.mode()):
        assert numbers.isfinite().all()
    torch.testing.assert_close(wide.quantise(row), row)
    tally = ActionTally(wide.spec)
    tally.add(row.numpy())
    assert np.isfinite(tally.facts()["components"]["wide"]["spread"]).all()
