"""What the dynamics may see and what not, and what they must listen to."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ahriuwu_cli.core.specs import LatentSpec
from ahriuwu_cli.dynamics.config import DynamicsModelConfig
from ahriuwu_cli.dynamics.model import DynamicsModel

LENGTH = 5
VARIANTS = [
    {},
    {"soft_cap": 10.0, "conditioning": "latents"},
    {"num_kv_heads": 2, "num_registers": 0, "num_action_tokens": 2},
]


@dataclasses.dataclass
class Inputs:
    """Arguments of a forward pass over 3 rows of 5 blocks."""

    z_tilde: Tensor
    tau: Tensor
    d: Tensor
    action: Tensor
    action_valid: Tensor

    def changed(self, name: str, where: tuple[object, ...], value: object) -> Inputs:
        """A copy with some entries of one argument replaced."""
        tensor = getattr(self, name).clone()
        tensor[where] = value
        return dataclasses.replace(self, **{name: tensor})

    def __call__(self, model: DynamicsModel, **options: object):
        with torch.no_grad():
            return model(self.z_tilde, self.tau, self.d, self.action, self.action_valid, **options)


@pytest.fixture
def inputs(toy_batch) -> Inputs:
    batch = toy_batch(3, LENGTH)
    tau = torch.tensor([[0.0, 0.25, 0.5, 0.75, 0.875]]).repeat(3, 1)
    d = torch.tensor([[1.0, 0.25, 0.125, 0.25, 0.125]]).repeat(3, 1)
    return Inputs(batch.latents, tau, d, batch.action, batch.action_valid)


def others(inputs: Inputs, t: int) -> dict[str, Inputs]:
    """The inputs with one argument of block t changed in every row."""
    at = (slice(None), t)
    return {
        "z_tilde": inputs.changed("z_tilde", at, 5.0),
        "tau": inputs.changed("tau", at, 0.125),
        "d": inputs.changed("d", at, 0.5),
        "action": inputs.changed("action", at, torch.tensor([3.0, 1.0, 1.0, 2.5, -1.0])),
        "action_valid": inputs.changed("action_valid", at, False),
    }


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("t", range(LENGTH))
def test_a_block_changes_nothing_before_it_and_something_from_it_on(build, inputs, variant, t):
    """Pitfall 19: perturbing future blocks changes nothing earlier."""
    model = build(2, **variant)
    task = torch.tensor([0, 1, 0])
    before = inputs(model, task=task)
    for name, other in others(inputs, t).items():
        after = other(model, task=task)
        for left, right in ((before.z1_hat, after.z1_hat), (before.agent, after.agent)):
            moved = (left - right).flatten(2).abs().amax(dim=(0, 2))  # (T,)
            assert not (moved[:t] > 1e-5).any(), f"{name} of block {t} is heard before it: {moved}"
            assert (moved[t:] > 1e-4).all(), f"{name} of block {t} is not heard at {moved}"


@pytest.mark.parametrize("variant", VARIANTS)
def test_output_is_invariant_to_masked_actions(build, inputs, variant):
    """Pitfall 18: NaN, infinities and indices out of range in a masked action change no bit."""
    model = build(**variant)
    masked = inputs.changed("action_valid", (slice(None), [0, 2]), False)
    before = masked(model).z1_hat
    for garbage in (float("nan"), float("inf"), -1e9, 1e30, 77.0):
        assert torch.equal(masked.changed("action", (slice(None), [0, 2]), garbage)(model).z1_hat, before)
    assert not torch.equal(before, inputs(model).z1_hat)


def test_single_images_attend_to_no_other_frame_and_only_those(exact, build, inputs):
    """Pitfall 5: image mode is per example."""
    model = build(2)
    task, separate = torch.tensor([0, 1, 0]), torch.tensor([True, False, True])
    before = inputs(model, task=task, separate=separate)
    for other in others(inputs, 1).values():
        after = other(model, task=task, separate=separate)
        for left, right in ((before.z1_hat, after.z1_hat), (before.agent, after.agent)):
            moved = (left - right).flatten(2).abs().amax(dim=-1)  # (B, T)
            assert not (moved[separate][:, [0, 2, 3, 4]] > 1e-5).any()
            assert (moved[separate][:, 1] > 1e-4).all()
            assert (moved[1, 1:] > 1e-4).all()
    alone = Inputs(*(value[:, 2:3] for value in dataclasses.astuple(inputs)))
    torch.testing.assert_close(before.z1_hat[0, 2], alone(model).z1_hat[0, 0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(before.z1_hat[1, 2], alone(model).z1_hat[1, 0], atol=1e-2)


def test_nothing_attends_to_the_agent_token(exact, build, inputs):
    """Pitfall 19: the task changes the agent's read-out and no bit of the dream; without a task it is the same."""
    model = build(2)
    before = inputs(model, task=torch.tensor([0, 0, 0]))
    with torch.no_grad():
        model.embed_task.weight[0] += 3.0
    after = inputs(model, task=torch.tensor([0, 0, 1]))
    assert torch.equal(before.z1_hat, after.z1_hat)
    assert ((before.agent - after.agent).abs().amax(dim=-1) > 1e-3).all()
    without = inputs(model)
    assert without.agent is None
    torch.testing.assert_close(without.z1_hat, before.z1_hat, atol=1e-5, rtol=1e-4)


def test_the_agent_token_sees_every_modality_of_the_past(build, inputs):
    model = build(2)
    task = torch.tensor([0, 1, 0])
    before = inputs(model, task=task).agent
    for name, other in others(inputs, 0).items():
        assert ((other(model, task=task).agent - before).abs().amax(dim=-1)[:, -1] > 1e-4).all(), name


def test_every_level_has_its_own_embedding(build, inputs):
    """Pitfall 33: tau and d both reach the output, each value in its own way."""
    model = build()
    for name, values in (("tau", [step / 8 for step in range(8)]), ("d", [1, 0.5, 0.25, 0.125])):
        outputs = [inputs.changed(name, (..., 3), value)(model).z1_hat[:, 3] for value in values]
        for left in range(len(values)):
            for right in range(left):
                assert not torch.allclose(outputs[left], outputs[right], atol=1e-3)


def test_a_window_hides_what_is_further_back(build, inputs):
    """Pitfall 19: with one time layer, `window` past blocks and no more."""
    model = build(num_layers=2)
    before = inputs(model, window=2).z1_hat
    for other in others(inputs, 1).values():
        moved = (other(model, window=2).z1_hat - before).flatten(2).abs().amax(dim=(0, 2))
        assert (moved > 1e-4).tolist() == [False, True, True, True, False]


def test_statistics_of_the_latents_are_undone(toy_specs):
    config = DynamicsModelConfig(dim=16, num_heads=2, num_kv_heads=1, latent_scale=0.25)
    model = DynamicsModel(config, toy_specs.latent, toy_specs.action)
    latents = torch.tensor([[2.5, -1.5, 3.0, 2.1]])  # mean (0.5, -1, 0, 2), std (2, 0.5, 1, 0.1)
    torch.testing.assert_close(model.normalise(latents), torch.tensor([[0.25, -0.25, 0.75, 0.25]]))
    torch.testing.assert_close(model.denormalise(model.normalise(latents)), latents)


@given(value=st.floats(-3, 3), scale=st.floats(0.1, 3), bound=st.none() | st.floats(0.5, 2))
def test_denormalise_inverts_and_clamps(toy_specs, value, scale, bound):
    spec = LatentSpec(num_tokens=1, dim_token=1, layout="x", bound=bound, mean=(0.3,), std=(0.7,))
    config = DynamicsModelConfig(dim=16, num_heads=1, num_kv_heads=1, latent_scale=scale)
    model = DynamicsModel(config, spec, toy_specs.action)
    back = model.denormalise(model.normalise(torch.tensor([value]))).item()
    expected = value if bound is None else max(-bound, min(bound, value))
    assert back == pytest.approx(expected, abs=1e-5)


def test_added_conditions_reach_a_latent_without_attention(build, inputs):
    """With blocks that do nothing, latents know action and signal level where `conditioning` says so."""
    said = {}
    for conditioning in ("tokens", "latents"):
        model = build(conditioning=conditioning)
        for block in model.transformer.blocks:
            for parameter in block.parameters():
                torch.nn.init.zeros_(parameter)
        seen = inputs(model).z1_hat
        changed = others(inputs, 2)
        said[conditioning] = [not torch.equal(changed[name](model).z1_hat, seen) for name in ("action", "tau")]
    assert said == {"tokens": [False, False], "latents": [True, True]}
