"""Actions of every type as tokens, and no trace of masked ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ahriuwu_cli.core.specs import WIDEST_BOUND, ActionComponent, ActionSpec
from ahriuwu_cli.dynamics.actions import ActionEmbedding

ROW = (2.0, 1.0, 0.0, 0.0, 3.0)  # move 2, first key down, aim (0, 3) of -1..3


@pytest.fixture
def embed(toy_specs, awake) -> ActionEmbedding:
    return awake(ActionEmbedding(toy_specs.action, num_tokens=2, dim=6))


def tokens(embed: ActionEmbedding, row: tuple[float, ...], valid: bool = True) -> Tensor:
    """One action as tokens (S, D)."""
    return embed(torch.tensor([[row]]), torch.tensor([[valid]]))[0, 0]


def test_components_are_encoded_apart_and_summed_with_the_learned_embedding(embed):
    move, keys, aim = embed.components.values()
    aimed = aim.weight @ torch.tensor([-0.5, 1.0]) + aim.bias  # -1..3 becomes -1..1
    expected = move.weight[2] + keys.weight[1] + keys.weight[2] + aimed  # key 0 down is row 1, key 1 up is row 2
    torch.testing.assert_close(tokens(embed, ROW), expected.reshape(2, 6) + embed.learned)


@pytest.mark.parametrize("column", range(5))
def test_every_column_matters(embed, column):
    other = list(ROW)
    other[column] = 1.0 if ROW[column] != 1.0 else 0.0
    assert (tokens(embed, tuple(other)) - tokens(embed, ROW)).abs().amin(dim=-1).max() > 1e-3


def test_a_masked_action_leaves_no_trace(embed):
    """Pitfall 18: the learned embedding alone, whatever the masked row holds; not even a gradient."""
    garbage = [ROW, (float("nan"),) * 5, (float("inf"),) * 5, (-7.0, 9e9, 4.5, 1e30, -1e30)]
    for row in garbage:
        assert torch.equal(tokens(embed, row, valid=False), embed.learned)
    tokens(embed, ROW, valid=False).sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in embed.components.parameters())
    assert embed.learned.grad.all()


def test_masking_is_per_step(embed):
    action = torch.tensor([[ROW, ROW, ROW]])
    out = embed(action, torch.tensor([[True, False, True]]))
    assert out.shape == (1, 3, 2, 6)
    torch.testing.assert_close(out[0, 0], out[0, 2])  # a product may round its last rows in another way
    assert torch.equal(out[0, 1], embed.learned)


def test_components_may_be_called_like_parts_of_a_module():
    names = ("forward", "type", "keys", "train", "weight")
    spec = ActionSpec(components=tuple(ActionComponent(name=name, type="binary") for name in names))
    embed = ActionEmbedding(spec, 1, 4)
    assert embed(torch.zeros(2, 3, 5), torch.ones(2, 3, dtype=torch.bool)).shape == (2, 3, 1, 4)
    assert len(embed.state_dict()) == 1 + len(names)


def test_names_with_dots_slashes_and_percents_are_tensors_of_their_own():
    """A module's name has no dots, and the names of nested actions may."""
    names = ("a.b", "a/b", "a%2Eb", "a~1b", "forward")
    spec = ActionSpec(components=tuple(ActionComponent(name=name, type="binary") for name in names))
    embed = ActionEmbedding(spec, num_tokens=1, dim=4)
    assert len(embed.components) == len(names)
    again = ActionEmbedding(spec, num_tokens=1, dim=4)
    again.load_state_dict(embed.state_dict())
    row = (1.0, 0.0, 1.0, 0.0, 1.0)
    torch.testing.assert_close(tokens(embed, row), tokens(again, row), rtol=0, atol=0)


def test_the_widest_bounds_stay_finite():
    part = ActionComponent(name="aim", type="continuous", low=-WIDEST_BOUND, high=WIDEST_BOUND)
    embed = ActionEmbedding(ActionSpec(components=(part,)), num_tokens=1, dim=4)
    for value in (-WIDEST_BOUND, 0.0, WIDEST_BOUND):
        assert tokens(embed, (value,)).isfinite().all()
