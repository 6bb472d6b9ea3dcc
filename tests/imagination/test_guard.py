"""Guards: what counts as outside the data, and that a reward which is not in it is not learned."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ahriuwu_cli.agent.checkpoint import load_agent
from ahriuwu_cli.agent.distribution import ActionDistribution
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.training.batches import batch_generator
from ahriuwu_cli.dynamics.config import SamplerConfig
from ahriuwu_cli.dynamics.model import Prediction
from ahriuwu_cli.dynamics.sampler import Dream
from ahriuwu_cli.imagination.config import GuardSection, ImagineSection
from ahriuwu_cli.imagination.disagreement import step_disagreement
from ahriuwu_cli.imagination.guard import GUARD_STREAM, Guard, Outside, Range, reward_range, size_ranges
from ahriuwu_cli.imagination.losses import imagination_loss
from ahriuwu_cli.imagination.rollout import Rollout, frame_size
from ahriuwu_cli.imagination.train import ImagineStage, train_imagination
from ahriuwu_cli.latents.places import Place
from ahriuwu_cli.latents.windows import LatentWindows

CPU = torch.device("cpu")
LEFT, RIGHT, END = 0, 1, 2

# ---------------------------------------------------------------- ranges


def test_a_range_and_its_margin_by_hand():
    wide = Range(-1.0, 3.0).widened(0.5)
    assert (wide.low, wide.high) == (-3.0, 5.0)
    x = torch.tensor([-3.01, -3.0, 0.0, 5.0, 5.01, float("nan"), float("inf")])
    assert wide.excludes(x).tolist() == [True, False, False, False, True, True, True]
    assert Range(2.0, 2.0).widened(0.5) == Range(1.0, 3.0)
    assert Range(0.0, 0.0).widened(0.1) == Range(-0.1, 0.1)


def test_the_size_of_a_frame_by_hand():
    assert frame_size(torch.tensor([[[3.0, -4.0]], [[0.0, 0.0]]])).tolist() == [[pytest.approx(12.5**0.5), 4], [0, 0]]


def test_ranges_are_those_of_the_recording(packed_run, agent_path):
    """All rewards of the split; sizes within those of all frames, the same for the same seed, nothing else drawn."""
    windows, world = LatentWindows(packed_run.packed, "train"), load_agent(agent_path, CPU).model.world
    whole = [windows.read([(i, 0)], e.num_latents) for i, e in enumerate(windows.episodes)]
    rewards = torch.cat([batch.reward[batch.reward_valid] for batch in whole])
    assert reward_range(windows) == Range(rewards.min().item(), rewards.max().item())
    assert rewards.max() > 0
    state = torch.get_rng_state()
    found = size_ranges(20, windows, world, 3, 7)
    assert torch.equal(torch.get_rng_state(), state)
    assert found == size_ranges(20, windows, world, 3, 7) != size_ranges(20, windows, world, 3, 8)
    sizes = torch.cat([frame_size(world.normalise(batch.latents))[0] for batch in whole])  # (frames, 2)
    for index, size in enumerate(found):
        assert sizes[:, index].min() - 1e-5 <= size.low < size.high <= sizes[:, index].max() + 1e-5


def test_every_sign_is_seen_where_it_is():
    guard = Guard(GuardSection(reward_margin=0.0, latent_margin=0.0), Range(0.0, 1.0), (Range(1.0, 2.0), Range(0, 4)))
    size = torch.tensor([[[1.5, 3.0], [0.5, 3.0], [1.5, 5.0], [1.5, 3.0]]])
    nan = float("nan")
    rollout = Rollout(
        agent=torch.zeros(1, 5, 2),
        action=torch.zeros(1, 4, 1),
        reward=torch.tensor([[1.5, 0.5, 0.5, 1.0]]),
        alive=torch.ones(1, 4),
        size=size,
        disagreement=torch.tensor([[0.4, nan, nan, 0.6]]),
    )
    outside = guard.judge(rollout)
    assert outside.reward.tolist() == [[True, False, False, False]]
    assert outside.latent.tolist() == [[False, True, True, False]]
    assert outside.steps.tolist() == [[False, False, False, True]]
    shares = {name: value.item() for name, value in outside.shares(torch.tensor([[1.0, 1.0, 1.0, 0.5]])).items()}
    assert shares == pytest.approx(
        {
            "outside": 1.0,
            "outside_reward": 1 / 3.5,
            "outside_latent": 2 / 3.5,
            "outside_steps": 0.5 / 1.5,
            "disagreement": (0.4 + 0.5 * 0.6) / 1.5,
        }
    )
    plain = guard.judge(Rollout(rollout.agent, rollout.action, rollout.reward, rollout.alive))
    assert not plain.latent.any() and not plain.steps.any() and "outside_steps" not in plain.shares(rollout.alive)


# ---------------------------------------------------------------- K against 2 K


class Stepping(nn.Module):
    """A world whose frames are the last action plus the step size: K steps give a + 1/K."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(k_max=8)
        self.latent = SimpleNamespace(num_tokens=1, dim_token=2)

    def normalise(self, latents):
        return latents

    def new_cache(self, context_length):
        return SimpleNamespace(advance=lambda steps: None)

    def forward(self, z_tilde, tau, d, action, action_valid, *, task=None, cache=None) -> Prediction:
        z1_hat = (action + d[..., None])[..., None, :].expand(z_tilde.shape)
        return Prediction(z1_hat, None if task is None else torch.zeros(*tau.shape, 4))


def test_disagreement_by_hand(toy_batch):
    """K = 2 gives a + 1/2, K = 4 gives a + 1/4; the frames change by 1 and 3, by 2 on the mean."""
    context = SimpleNamespace(
        latents=torch.full((3, 2, 1, 2), 0.5),
        valid=torch.ones(3, 2, dtype=torch.bool),
        action=torch.zeros(3, 2, 1),
        action_valid=torch.ones(3, 2, dtype=torch.bool),
        task=torch.zeros(3, dtype=torch.long),
    )
    draws = [torch.zeros(1, 2, 1, 2)] + [torch.zeros(1, 1, 1, 2)] * 4
    action = torch.tensor([[[1.0], [4.0]]])
    found = step_disagreement(Stepping(), SamplerConfig(context_length=4), 2, context, action, draws)
    assert found.tolist() == [[0.125, 0.125]]


def stage_of(packed_run, agent_path, **guard) -> ImagineStage:
    settings = packed_run.config.imagine.guard.model_copy(update=guard)
    section = packed_run.config.imagine.model_copy(update={"guard": settings})
    windows = LatentWindows(packed_run.packed, "train")
    return ImagineStage(section, load_agent(agent_path, CPU), windows, Runtime(CPU, "fp32"), 0)


def test_the_comparison_has_the_noise_and_the_past_of_the_rollout(packed_run, agent_path, monkeypatch):
    """Pitfall 33: paired generation; K steps give the very frames of the rollout, 2 K others."""
    stage = stage_of(packed_run, agent_path, disagreement_every=2, disagreement_rows=2)
    frames, real = [], Dream.imagine

    def imagine(self, action, action_valid=None):
        frames.append(real(self, action, action_valid))
        return frames[-1]

    monkeypatch.setattr(Dream, "imagine", imagine)
    rollout = stage._dream(0, stage.batch(0, 0).context)
    dreamed, coarse, fine = frames[:3], frames[3::2], frames[4::2]
    for left, right, other in zip(dreamed, coarse, fine, strict=True):
        torch.testing.assert_close(left[:2], right, atol=1e-5, rtol=0)
        assert (other - right).abs().max() > 1e-4
    assert rollout.disagreement[:2].isfinite().all() and rollout.disagreement[2:].isnan().all()
    assert (
        stage._dream(1, stage.batch(0, 0).context).disagreement is None
        and stage._dream(2, stage.batch(0, 0).context).disagreement is not None
    )


def test_a_guard_that_cuts_nothing_changes_nothing(packed_run, agent_path, cpu_runtime, tmp_path):
    """Counting and comparing leave the weights as they are, bit for bit: nothing is drawn for them."""
    config, headers = packed_run.config.imagine, []
    for number, guard in enumerate(({}, {"disagreement_every": 1, "disagreement_rows": 2, "recorded_windows": 3})):
        section = config.model_copy(update={"guard": config.guard.model_copy(update=guard)})
        folder = tmp_path / str(number)
        train_imagination(section, agent_path, packed_run.packed, folder, cpu_runtime, seed=1, resume=False)
        headers.append((folder / "imagination.safetensors").read_bytes()[-4096:])
    assert headers[0] == headers[1]


def test_twice_the_steps_must_exist(packed_run, agent_path, cpu_runtime, tmp_path):
    guard = packed_run.config.imagine.guard.model_copy(update={"disagreement_every": 5})
    section = packed_run.config.imagine.model_copy(update={"sampling_steps": 8, "guard": guard})
    with pytest.raises(ConfigError, match="compares 8 with 16 Euler steps; the dynamics' k_max is 8") as caught:
        train_imagination(section, agent_path, packed_run.packed, tmp_path / "x", cpu_runtime, seed=0)
    assert "disagreement_every = 0" in caught.value.hint
    assert not (tmp_path / "x").exists()


# ---------------------------------------------------------------- cutting


def test_what_is_cut_weighs_nothing_by_hand(arcade):
    """Row 0 leaves the data with its second decision, row 1 with its first; with gamma = lambda = 0.5."""
    game = arcade(num_hidden=0)
    model = game.model
    rollout = Rollout(
        agent=torch.stack([game.read_out(LEFT), game.read_out(RIGHT), game.read_out(LEFT), game.read_out(RIGHT)])
        .expand(2, 4, -1)
        .clone(),
        action=torch.tensor([[[1.0], [1.0], [0.0]]] * 2),
        reward=torch.tensor([[1.0, 50.0, 1.0], [50.0, 1.0, 1.0]]),
        alive=torch.ones(2, 3),
    )
    with torch.no_grad():
        for head in (model.value.out, model.slow_value.out):
            head.weight[:, RIGHT] = (model.agent.twohot.encode(torch.tensor(2.0)) + 1e-12).log()
    none = torch.zeros(2, 3, dtype=torch.bool)
    outside = Outside(rollout.reward > 10, none, none)
    changes = {"gamma": 0.5, "lambda_return": 0.5, "value_ema": 0.0}
    _, metrics = imagination_loss(model, rollout, settings(cut=True, **changes), outside)
    expected = {
        "imagined_reward_per_step": 1.0,
        "imagined_return": 0.5,
        "value_error": 1 + 0.5 * 2 - 0.0,  # R_0 of row 0: its reward and half of v(RIGHT); v(LEFT) = 0
        "outside": 2 / 6,
        "outside_reward": 2 / 6,
        "cut": 5 / 6,
        "positive_share": 1.0,
        "imagined_end": 0.0,
    }
    assert {name: metrics[name].item() for name in expected} == pytest.approx(expected, abs=1e-3)
    _, counted = imagination_loss(model, rollout, settings(cut=False, **changes), outside)
    assert counted["outside"] == metrics["outside"] and "cut" not in counted
    assert counted["imagined_reward_per_step"].item() == pytest.approx(104 / 6)


def test_a_batch_that_is_all_outside_teaches_to_avoid_it_and_no_value(arcade):
    game = arcade(num_hidden=0)
    torch.manual_seed(0)
    rollout = Rollout(torch.randn(2, 4, 16), torch.zeros(2, 3, 1), torch.ones(2, 3), torch.ones(2, 3))
    everywhere = torch.ones(2, 3, dtype=torch.bool)
    loss, _ = imagination_loss(game.model, rollout, settings(cut=True), Outside(everywhere, everywhere, everywhere))
    loss.backward()
    assert loss.isfinite()
    assert game.model.agent.policy.net.out.weight.grad.any()
    assert not any(p.grad.any() for p in game.model.value.parameters() if p.grad is not None)


def settings(cut: bool, **changes) -> ImagineSection:
    values = {"context_length": 2, "horizon": 4, "sampling_steps": 2, "gamma": 0.9, "beta": 0.02, "value_ema": 0.0}
    train = {"steps": 1, "batch_size": 32, "learning_rate": 0.02}
    return ImagineSection.model_validate({**values, "train": train, "guard": {"cut": cut}, **changes})


class Recorded:
    """Windows of the three-state game as it is recorded: rewards 0, 1 and 3."""

    def __init__(self, game) -> None:
        self._game = game
        self.episodes = [SimpleNamespace(num_latents=2)]
        self.sampler = self
        self.ended = [0]

    def tasks_of(self, index: int) -> tuple[int, ...]:
        return (0,)

    def draw_whole(self, rng, count, length):
        return [Place(0, 0)] * count

    def read(self, places, length, lookahead=0):
        batch = self._game.contexts(*([LEFT, RIGHT] * len(places))[: len(places)])
        return type(batch)(**{**vars(batch), "reward": torch.tensor([[0.0, 3.0]] * len(places))})

    def draw_contexts(self, rng, count, length, **mixture):
        return self.draw_whole(rng, count, length)


@pytest.mark.parametrize("cut", [False, True])
def test_a_reward_that_was_never_recorded_is_learned_only_without_the_cut(arcade, cut):
    """Pitfall 35: where the dream pays 10 for what really pays 1, a guard that cuts keeps the policy from it.

    From the stage's own loss: rollouts, guard, returns and PMPO.
    """
    game = arcade()
    game.model.agent.world.table[LEFT, 0, 1] = 10.0
    agent = SimpleNamespace(model=game.model.agent, sampler=SamplerConfig(steps=2, context_length=4))
    stage = ImagineStage(settings(cut), agent, Recorded(game), Runtime(CPU, "fp32"), 0)
    optimizer = torch.optim.Adam(stage.trained().values(), lr=0.02)
    torch.manual_seed(0)
    for step in range(60):
        loss, metrics = stage.loss(step, stage.batch(step, 0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logits = stage.module.agent.policy_now(game.read_out(LEFT))
    [(_, log_p)] = ActionDistribution(stage.module.agent.choices, logits).log_p
    exploited = log_p.detach().exp()[0, 0].item()
    if cut:
        assert exploited < 0.1
        assert metrics["imagined_reward_per_step"] < 3
    else:
        assert exploited > 0.9
        assert metrics["outside_reward"] > 0.3 and metrics["outside"] >= metrics["outside_reward"]


def test_the_measured_windows_are_a_stream_of_their_own():
    """No step of a training draws from what the guard draws from."""
    guard = np.random.default_rng([3, GUARD_STREAM]).integers(2**40, size=8).tolist()
    assert guard == np.random.default_rng([3, GUARD_STREAM, 0]).integers(2**40, size=8).tolist()  # why a tag is needed
    steps = (0, 1, GUARD_STREAM)
    assert all(guard != batch_generator(3, step).integers(2**40, size=8).tolist() for step in steps)
