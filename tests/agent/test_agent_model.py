"""What the policy may know when it chooses, which rows teach what, and which outputs are read later.

Everything goes the real way: an episode as the store holds it, `to_blocks`, a LatentBatch, `agent_losses`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ahriuwu_cli.agent.batches import mixture
from ahriuwu_cli.agent.model import AgentModel
from ahriuwu_cli.agent.train import agent_losses
from ahriuwu_cli.dynamics.config import ObjectiveConfig
from ahriuwu_cli.dynamics.shortcut_forcing import corrupt
from ahriuwu_cli.episodes.actions import random_row
from ahriuwu_cli.episodes.alignment import to_blocks
from ahriuwu_cli.latents.windows import LatentBatch

TAU = 0.875
STEPS = 7  # T of the episode; 8 frames
OBJECTIVE = ObjectiveConfig(image_fraction=0.0)


class Heard:
    """Records what the world model is given and what the heads give, in the last pass over all rows."""

    def __init__(self, model: AgentModel) -> None:
        self.inputs: tuple[Tensor, ...] = ()
        self.options: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        model.world.register_forward_pre_hook(self._world, with_kwargs=True)
        for name in ("policy", "reward", "alive"):
            getattr(model, name).register_forward_hook(self._keep(name))
        model.world.read_latent.register_forward_hook(self._keep("z1_hat"))

    def _world(self, module, inputs, options) -> None:
        if "task" in options:
            self.inputs, self.options = inputs, options

    def _keep(self, name: str):
        def hook(module, inputs, output) -> None:
            if output.requires_grad:
                output.retain_grad()
            self.outputs[name] = output

        return hook


# ---------------------------------------------------------------- leaks


@dataclasses.dataclass
class Stored:
    """An episode in the store's alignment, with latents instead of frames."""

    latents: np.ndarray  # (T+1, N, C)
    actions: np.ndarray  # (T, A)
    rewards: np.ndarray  # (T,)

    def batch(self) -> LatentBatch:
        """The whole episode as one window of 5 frames and 3 blocks of lookahead."""
        blocks = to_blocks(
            actions=self.actions,
            action_valid=np.ones(STEPS, bool),
            rewards=self.rewards,
            terminals=np.zeros(STEPS, bool),
        )
        tensor = {name: torch.from_numpy(getattr(blocks, name))[None] for name in vars(blocks) if name != "first"}
        return LatentBatch(
            latents=torch.from_numpy(self.latents[:5])[None],
            valid=torch.ones(1, 5, dtype=torch.bool),
            task=torch.zeros(1, dtype=torch.long),
            **tensor,
        )


@pytest.fixture
def stored(toy_specs) -> Stored:
    rng = np.random.default_rng(0)
    return Stored(
        latents=rng.standard_normal((STEPS + 1, 3, 4)).astype(np.float32),
        actions=np.stack([random_row(toy_specs.action, rng) for _ in range(STEPS)]),
        rewards=rng.standard_normal(STEPS).astype(np.float32),
    )


def policy_outputs(model: AgentModel, stored: Stored) -> Tensor:
    """Policy logits (T=5, L*K) that `agent_losses` works with."""
    heard = Heard(model)
    torch.manual_seed(3)
    agent_losses(model, stored.batch(), 1, OBJECTIVE, TAU)
    return heard.outputs["policy"][0].detach().flatten(1)


@pytest.mark.parametrize("t", range(5))
def test_the_action_a_block_predicts_and_all_after_it_do_not_reach_it(build_agent, toy_specs, stored, t):
    """Pitfall 16: perturbing a_t (and frames and rewards after it) never changes the prediction of a_t."""
    model, rng = build_agent(), np.random.default_rng(9)
    before = policy_outputs(model, stored)
    stored.actions[t:] = np.stack([random_row(toy_specs.action, rng) for _ in range(STEPS - t)])
    stored.latents[t + 1 :] += 3.0
    stored.rewards[:] = 100.0  # rewards are targets only, also those before
    after = policy_outputs(model, stored)
    torch.testing.assert_close(after[: t + 1], before[: t + 1], atol=1e-5, rtol=1e-5)
    assert ((after[t + 1 :] - before[t + 1 :]).abs().amax(dim=-1) > 1e-3).all()


@pytest.mark.parametrize("t", range(1, 5))
@pytest.mark.parametrize("column", range(5))
def test_the_last_action_reaches_the_policy(build_agent, stored, t, column):
    """Pitfall 16: block t holds a_{t-1}, every component of it."""
    model = build_agent()
    before = policy_outputs(model, stored)
    stored.actions[t - 1, column] = 1.0 - stored.actions[t - 1, column] if column else 3 - stored.actions[t - 1, 0]
    moved = (policy_outputs(model, stored) - before).abs().amax(dim=-1)
    assert (moved[:t] < 1e-5).all()
    assert (moved[t:] > 1e-3).all()


def test_the_frame_just_seen_reaches_the_policy(build_agent, stored):
    model = build_agent()
    before = policy_outputs(model, stored)
    stored.latents[4] += 1.0
    moved = (policy_outputs(model, stored) - before).abs().amax(dim=-1)
    assert (moved[:4] < 1e-5).all() and moved[4] > 1e-3


# ---------------------------------------------------------------- which rows teach what


@pytest.fixture
def mixed(toy_batch) -> LatentBatch:
    """Two relevant rows and three uniform ones, 5 frames with 3 blocks of lookahead."""
    return toy_batch(5, 5, lookahead=3)


def run(model: AgentModel, batch: LatentBatch, objective: ObjectiveConfig = OBJECTIVE, num_relevant: int = 2):
    """(losses, metrics, what was heard) with fixed noise."""
    heard = Heard(model)
    torch.manual_seed(7)
    return *agent_losses(model, batch, num_relevant, objective, TAU), heard


def test_cloning_learns_on_relevant_rows_and_dynamics_on_uniform_ones(build_agent, mixed):
    """[D4] Sec. 3.3: by the gradient at the heads' outputs; reward and continue learn on both."""
    expected = {
        "policy": ("policy", [True, True, False, False, False]),
        "reward": ("reward", [True] * 5),
        "continue": ("alive", [True] * 5),
        "dynamics": ("z1_hat", [False, False, True, True, True]),
    }
    losses = run(build_agent(), mixed)[0]
    assert set(losses) == set(expected)
    for name, (head, rows) in expected.items():
        losses, _, heard = run(build_agent(), mixed)
        assert losses[name] > 0
        losses[name].backward()
        for other, output in heard.outputs.items():
            touched = output.grad is not None and output.grad.any()
            assert touched == (other == head), f"{name} reaches {other}"
        assert heard.outputs[head].grad.flatten(1).any(dim=1).tolist() == rows


def test_content_of_the_other_half_has_no_influence(build_agent, mixed):
    """Targets of uniform rows are nothing to cloning; latents of relevant rows are nothing to the dynamics."""
    model = build_agent()
    before, _, _ = run(model, mixed)

    def changed(name: str, rows: slice, blocks: slice, value: float) -> dict[str, Tensor]:
        tensor = getattr(mixed, name).clone()
        tensor[rows, blocks] = value
        return run(model, dataclasses.replace(mixed, **{name: tensor}))[0]

    relevant, uniform, ahead, all_ = slice(0, 2), slice(2, 5), slice(5, 8), slice(None)
    assert torch.equal(changed("action", uniform, ahead, 1.0)["policy"], before["policy"])
    assert not torch.equal(changed("action", relevant, ahead, 1.0)["policy"], before["policy"])
    assert torch.equal(changed("latents", relevant, all_, 1.0)["dynamics"], before["dynamics"])
    assert not torch.equal(changed("latents", uniform, all_, 1.0)["dynamics"], before["dynamics"])
    for rows in (relevant, uniform):
        assert not torch.equal(changed("reward", rows, all_, 5.0)["reward"], before["reward"])
        assert not torch.equal(changed("terminal", rows, all_, True)["continue"], before["continue"])


def test_one_tau_makes_the_noise_and_names_it(build_agent, mixed):
    """Pitfall 6: relevant rows at tau_context with d_min, uniform rows as the dynamics loss drew them."""
    model = build_agent()
    _, _, heard = run(model, mixed)
    z_tilde, tau, d, action, known = heard.inputs
    z1 = model.world.normalise(mixed.latents)
    assert (tau[:2] == TAU).all() and (d[:2] == 1 / 8).all()
    assert len(tau[2:].unique()) > 3 and len(d[2:].unique()) > 2
    torch.manual_seed(7)
    noise = torch.randn_like(z1[:2])  # what `corrupt` of the relevant rows drew first
    assert torch.equal(z_tilde[:2], corrupt(z1[:2], noise, tau[:2]))
    # where z0 is what z_tilde and tau say, it is standard normal and knows nothing of z1
    z0 = (z_tilde[2:] - tau[2:, :, None, None] * z1[2:]) / (1 - tau[2:, :, None, None])
    assert abs(z0.mean()) < 0.2 and z0.std() == pytest.approx(1, abs=0.15)
    assert abs(torch.corrcoef(torch.stack([z0.flatten(), z1[2:].flatten()]))[0, 1]) < 0.2
    assert torch.equal(action, mixed.action[:, :5]) and known.all()
    assert torch.equal(heard.options["task"], mixed.task)


def test_single_images_teach_no_reward(build_agent, mixed):
    """A frame without a past says nothing of what led to it; relevant rows are never single images."""
    losses, _, heard = run(build_agent(), mixed, ObjectiveConfig(image_fraction=1.0))
    assert heard.options["separate"].tolist() == [False, False, True, True, True]
    (losses["reward"] + losses["continue"]).backward()
    for head in ("reward", "alive"):
        assert heard.outputs[head].grad.flatten(1).any(dim=1).tolist() == [True, True, False, False, False]


def test_padding_teaches_nothing(build_agent, mixed):
    model = build_agent()
    for name in ("valid", "action_valid", "reward_valid"):
        getattr(mixed, name)[1, 3:] = False
        getattr(mixed, name)[4, 2:] = False
    latents, action, reward = mixed.latents.clone(), mixed.action.clone(), mixed.reward.clone()
    latents[~mixed.valid], action[~mixed.action_valid], reward[~mixed.reward_valid] = 9.0, 77.0, 1e6
    other = dataclasses.replace(mixed, latents=latents, action=action, reward=reward)
    (before, *_), (after, *_) = run(model, mixed), run(model, other)
    assert {name: loss.item() for name, loss in before.items()} == {name: loss.item() for name, loss in after.items()}


def test_every_output_of_every_head_receives_gradient(build_agent, mixed):
    """Pitfall 2: policy, reward and continue at every distance, distance 0 included; and every tensor there is."""
    model = build_agent()
    losses = run(model, mixed)[0]
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []
    for head in (model.policy, model.reward, model.alive):
        by_distance = head.net.out.weight.grad.reshape(head.num_distances, -1)
        assert by_distance.any(dim=1).tolist() == [True, True, True]


def test_what_is_read_later_is_distance_0(build_agent):
    """Pitfall 2: play and imagination read the very rows that behaviour cloning trained for distance 0."""
    model, agent = build_agent(), torch.randn(2, 16)
    reads = {"policy": model.policy_now, "reward": model.reward_now, "alive": model.alive_now}
    for name, read in reads.items():
        out = getattr(model, name).net.out
        before = read(agent)
        width = len(out.weight) // 3
        with torch.no_grad():
            out.weight[width:] += 1.0
            out.bias[width:] += 1.0
        assert torch.equal(read(agent), before)
        with torch.no_grad():
            out.weight[0] += 1.0
        assert not torch.allclose(read(agent), before, atol=1e-3)
    assert model.policy_now(agent).shape == (2, model.choices.num_logits)
    assert model.reward_now(agent).shape == model.alive_now(agent).shape == (2,)
    assert ((model.alive_now(agent) > 0) & (model.alive_now(agent) < 1)).all()


def test_without_uniform_rows_there_is_no_dynamics_loss(build_agent, mixed):
    losses, metrics, _ = run(build_agent(), mixed, num_relevant=5)
    assert set(losses) == {"policy", "reward", "continue"}
    assert "flow" not in metrics


# ---------------------------------------------------------------- batches


@given(batch=st.integers(1, 100), fraction=st.floats(0.001, 1))
def test_both_kinds_of_windows_are_in_every_batch(batch, fraction):
    """Pitfall 2: no batch without a row that teaches the policy."""
    relevant, uniform = mixture(batch, fraction)
    assert relevant + uniform == batch and relevant >= 1
    assert uniform >= 1 or batch == 1 or fraction == 1
    assert abs(relevant - batch * fraction) <= 1


def test_mixture_by_hand():
    assert [mixture(16, 0.5), mixture(4, 0.75), mixture(1, 0.5), mixture(2, 0.1), mixture(4, 1.0)] == [
        (8, 8),
        (3, 1),
        (1, 0),
        (1, 1),
        (4, 0),
    ]
