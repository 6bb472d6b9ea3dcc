"""The one sampler: noise drawn once, one tau for noise and label, and a cache that changes nothing.

The reference is a sampler without any cache: every Euler step is a full forward pass over all blocks so far.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ahriuwu_cli.core.training.compilation import compile_dreams
from ahriuwu_cli.dynamics import sampler
from ahriuwu_cli.dynamics.config import SamplerConfig
from ahriuwu_cli.dynamics.model import DynamicsModel, Prediction
from ahriuwu_cli.dynamics.sampler import Dream, euler_steps, noise_from
from ahriuwu_cli.dynamics.shortcut_forcing import corrupt, snap

CONTEXT = 4  # C
CLOSE = {"atol": 1e-8, "rtol": 1e-8}  # of numbers of order one, in float64


class Noises:
    """Gives fixed noise and remembers it."""

    def __init__(self, seed: int = 0) -> None:
        self._draw = noise_from(torch.Generator().manual_seed(seed))
        self.given: list[Tensor] = []

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        self.given.append(self._draw(shape))
        return self.given[-1]


# ---------------------------------------------------------------- Euler steps


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 16, 64])
def test_an_oracle_is_recovered_exactly_for_every_number_of_steps(steps):
    """Pitfall 4: z stays on the line from the one noise to z1, and ends on z1 to the bit."""
    torch.manual_seed(0)
    z0, z1 = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    seen = []

    def oracle(z: Tensor, tau: float, d: float) -> Tensor:
        assert d == 1 / steps
        torch.testing.assert_close(z, (1 - tau) * z0 + tau * z1, atol=1e-5, rtol=0)  # not re-noised
        seen.append(tau)
        return z1

    assert torch.equal(euler_steps(oracle, z0, steps), z1)
    assert seen == [step / steps for step in range(steps)]


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 16, 64])
def test_an_oracle_that_reads_z1_from_z_is_recovered(steps):
    """Pitfall 4: knowing the noise, z1 can be read from every z; with other noise in z it cannot."""
    torch.manual_seed(0)
    z0, z1 = torch.randn(50, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    out = euler_steps(lambda z, tau, d: z1 if tau == 0 else (z - (1 - tau) * z0) / tau, z0, steps)
    torch.testing.assert_close(out, z1, atol=1e-12, rtol=0)


def test_euler_steps_of_a_linear_denoiser_by_hand():
    # f = z / 2. K = 2: 1 + (0.5 - 1) / 1 * 0.5 = 0.75, then f. K = 4: 1, 0.875, then / 0.75: 0.729166..., 0.546875, f
    z = torch.tensor([1.0])
    assert euler_steps(lambda z, tau, d: z / 2, z, 1).item() == 0.5
    assert euler_steps(lambda z, tau, d: z / 2, z, 2).item() == 0.375
    third = 0.875 - 0.4375 / 0.75 * 0.25
    assert euler_steps(lambda z, tau, d: z / 2, z, 4).item() == pytest.approx((third - third / 2 / 0.5 * 0.25) / 2)


# ---------------------------------------------------------------- one tau, one noise


class Spied(DynamicsModel):
    """Real dynamics that remember what they were given, or an oracle when `truth` is set."""

    calls: list[tuple[Tensor, Tensor, Tensor]]
    truth: Tensor | None = None

    def forward(self, z_tilde, tau, d, action, action_valid, **options) -> Prediction:
        self.calls.append((z_tilde.clone(), tau.clone(), d.clone()))
        out = super().forward(z_tilde, tau, d, action, action_valid, **options)
        return out if self.truth is None else Prediction(self.truth, out.agent)


@pytest.fixture
def spied(build) -> Spied:
    model = build(2)
    model.__class__ = Spied
    model.calls = []
    return model


@pytest.mark.parametrize("tau_context", [0.9, 0.5, 0.13, 0.999])
def test_one_tau_makes_the_context_noise_and_names_it(spied, toy_batch, tau_context):
    """Pitfall 6: z_tilde is corrupt(z, noise, tau) for the very tau that the model is told, in prefill and after."""
    noises = Noises()
    settings = SamplerConfig(steps=2, context_length=CONTEXT, tau_context=tau_context)
    dream = Dream(spied, settings, noise=noises, task=torch.tensor([0, 0]))  # with a task, every frame enters at once
    batch = toy_batch(2, 3)
    frames = [(batch.latents, batch.action, batch.action_valid)]
    frames += [(batch.latents[:, t : t + 1] * 2, batch.action[:, t : t + 1], batch.action_valid[:, :1]) for t in (0, 1)]
    for z, action, valid in frames:
        dream.observe(z, action, valid)
        z_tilde, tau, d = spied.calls.pop()
        assert (tau == snap(tau_context, 8)).all() and tau.shape == z.shape[:2]
        assert (tau * 8 == (tau * 8).round()).all() and (tau < 1).all()
        assert (d == 1 / 8).all()
        assert torch.equal(z_tilde, corrupt(z, noises.given.pop(), tau))
    assert not spied.calls and not noises.given  # one pass and one noise for each


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_frame_enters_with_the_first_step_of_the_next(spied, toy_batch, steps):
    """Pitfall 6, for a dream without agent: K passes per frame, the first over the finished frame and the new noise."""
    noises, batch = Noises(), toy_batch(2, 3)
    dream = Dream(spied, SamplerConfig(steps=steps, context_length=CONTEXT, tau_context=0.75), noise=noises)
    dream.observe(batch.latents, batch.action, batch.action_valid)
    first = dream.step(batch.action[:, 0]).z
    spied.calls.clear()
    context_noise = noises.given[-1]
    dream.step(batch.action[:, 1])
    assert len(spied.calls) == steps
    z_tilde, tau, d = spied.calls[0]
    assert tau.tolist() == [[0.75, 0.0]] * 2 and d.tolist() == [[1 / 8, 1 / steps]] * 2
    assert torch.equal(z_tilde[:, :1], corrupt(first[:, None], context_noise, tau[:, :1]))
    assert all(call[1].shape == (2, 1) for call in spied.calls[1:])


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_a_dreamed_frame_uses_its_noise_once(spied, toy_batch, steps):
    """Pitfall 4: one noise per frame, K passes with tau = 0, 1/K, ... and d = 1/K; an oracle's z1 comes out exactly."""
    noises, batch = Noises(), toy_batch(2, 3)
    dream = Dream(spied, SamplerConfig(steps=2, context_length=CONTEXT), noise=noises, num_steps=steps)
    dream.observe(batch.latents, batch.action, batch.action_valid)
    spied.truth = torch.randn(2, 1, 3, 4)
    spied.calls.clear()
    noises.given.clear()
    z = dream.imagine(batch.action[:, 0])
    assert torch.equal(z, spied.truth[:, 0])
    [noise] = noises.given
    assert noise.shape == (2, 1, 3, 4)
    assert len(spied.calls) == steps
    for step, (z_tilde, tau, d) in enumerate(spied.calls):
        assert (tau == step / steps).all() and (d == 1 / steps).all()
        torch.testing.assert_close(z_tilde, corrupt(spied.truth, noise, tau), atol=1e-5, rtol=0)


# ---------------------------------------------------------------- cached = uncached


def dream_without_cache(
    model: DynamicsModel,
    settings: SamplerConfig,
    latents: Tensor,
    action: Tensor,
    task: Tensor | None,
    noise: Callable[[tuple[int, ...]], Tensor],
) -> tuple[Tensor, Tensor | None]:
    """Dream on from `latents` with full forward passes: z of the new frames (B, H, N, C), read-outs of all blocks."""
    batch, shown = latents.shape[:2]
    valid = torch.ones(action.shape[:2], dtype=torch.bool)
    tau_context, d_min = snap(settings.tau_context, model.config.k_max), 1 / model.config.k_max

    def look(blocks: Tensor, tau: Tensor, d: Tensor) -> Prediction:
        length = blocks.shape[1]
        with torch.no_grad():
            return model(
                blocks, tau, d, action[:, :length], valid[:, :length], task=task, window=settings.context_length
            )

    past = corrupt(latents, noise(latents.shape), torch.full((batch, shown), tau_context))  # (B, t, N, C)
    new = []
    for _ in range(action.shape[1] - shown):
        z = noise((batch, 1, *latents.shape[2:]))
        for step in range(settings.steps):
            now, d = step / settings.steps, 1 / settings.steps
            levels = torch.full((batch, past.shape[1] + 1), tau_context)
            steps = torch.full_like(levels, d_min)
            levels[:, -1], steps[:, -1] = now, d
            z1_hat = look(torch.cat([past, z], dim=1), levels, steps).z1_hat[:, -1:]
            z = z + (z1_hat - z) / (1 - now) * d
        new.append(z)
        past = torch.cat([past, corrupt(z, noise(z.shape), torch.full((batch, 1), tau_context))], dim=1)
    levels = torch.full(past.shape[:2], tau_context)
    return torch.cat(new, dim=1), look(past, levels, torch.full_like(levels, d_min)).agent


@pytest.mark.parametrize("variant", [{}, {"soft_cap": 5.0}, {"num_kv_heads": 2, "num_action_tokens": 2}])
@pytest.mark.parametrize("shown", [1, 3, 7])  # shorter and longer than the context
@pytest.mark.parametrize("by_frame", [False, True])
def test_a_cached_dream_is_the_full_forward_pass(exact, build, toy_batch, monkeypatch, variant, shown, by_frame):
    """Pitfall 19: cached generation = full forward, with context noise, past the context length, agent included."""
    monkeypatch.setattr(sampler, "FULL_PASS", 0 if by_frame else 10**9)
    model = build(2, **variant)
    settings = SamplerConfig(steps=4, context_length=CONTEXT, tau_context=0.75)
    horizon, batch, task = 6, toy_batch(2, shown + 6), torch.tensor([0, 1])
    expected, agents = dream_without_cache(
        model, settings, batch.latents[:, :shown], batch.action, task, noise_from(torch.Generator().manual_seed(3))
    )
    dream = Dream(model, settings, noise=noise_from(torch.Generator().manual_seed(3)), task=task)
    read = [dream.observe(batch.latents[:, :shown], batch.action[:, :shown], batch.action_valid[:, :shown])]
    z = []
    for t in range(shown, shown + horizon):
        moment = dream.step(batch.action[:, t])
        z.append(moment.z)
        read.append(moment.agent[:, None])
    torch.testing.assert_close(torch.stack(z, dim=1), expected, **CLOSE)
    torch.testing.assert_close(torch.cat(read, dim=1), agents, **CLOSE)
    assert (
        expected.std() > 0.1 and (expected[:, 1:] - expected[:, :-1]).abs().mean() > 0.1
    )  # there is something to miss


def test_the_agent_token_leaves_the_dream_as_it_is(exact, build, toy_batch):
    """Pitfall 19: with a task the same z comes from the same noise as without."""
    model, batch = build(2), toy_batch(3, 9)
    settings = SamplerConfig(steps=2, context_length=CONTEXT)
    dreams = []
    for task in (None, torch.tensor([0, 1, 1]), torch.tensor([1, 0, 0])):
        dream = Dream(model, settings, noise=noise_from(torch.Generator().manual_seed(1)), task=task)
        agent = dream.observe(batch.latents[:, :3], batch.action[:, :3], batch.action_valid[:, :3])
        assert (agent is None) == (task is None)
        dreams.append(torch.stack([dream.step(batch.action[:, t]).z for t in range(3, 9)]))
    torch.testing.assert_close(dreams[0], dreams[1], **CLOSE)
    torch.testing.assert_close(dreams[1], dreams[2], **CLOSE)


def test_looking_ahead_changes_nothing(build, toy_batch):
    """Pitfall 19: `imagine` can be called again and again; only `observe` makes a frame part of the past."""
    model, batch = build(2), toy_batch(2, 4)
    settings = SamplerConfig(steps=2, context_length=CONTEXT)
    ends = []
    for curious in (False, True):
        dream = Dream(model, settings, noise=lambda shape: torch.full(shape, 0.3), task=batch.task)
        dream.observe(batch.latents[:, :3], batch.action[:, :3], batch.action_valid[:, :3])
        if curious:
            peeks = [dream.imagine(batch.action[:, t]) for t in (0, 1, 2)]
            assert torch.equal(dream.imagine(batch.action[:, 0]), peeks[0])
            assert not torch.allclose(peeks[0], peeks[1], atol=1e-3)
        ends.append(dream.step(batch.action[:, 3]))
    assert torch.equal(ends[0].z, ends[1].z) and torch.equal(ends[0].agent, ends[1].agent)


def test_rows_that_forget_begin_anew_and_the_others_go_on(exact, build, toy_batch):
    """Pitfall 19: after `forget` a row is that of a fresh dream, whatever came before."""
    model, batch = build(2), toy_batch(2, 8)
    settings = SamplerConfig(steps=2, context_length=CONTEXT)
    still: Callable[[tuple[int, ...]], Tensor] = lambda shape: torch.full(shape, 0.3)  # noqa: E731

    def watch(dream: Dream, times: range, scale: float = 1.0) -> Tensor:
        read = [
            dream.observe(
                batch.latents[:, t : t + 1] * scale, batch.action[:, t : t + 1], batch.action_valid[:, t : t + 1]
            )
            for t in times
        ]
        return torch.cat(read, dim=1)

    dreams = [Dream(model, settings, noise=still, task=torch.tensor([0, 1])) for _ in range(4)]
    for dream, scale in zip(dreams, (1.0, 3.0, 1.0), strict=False):
        watch(dream, range(5), scale)
    dreams[0].forget(torch.tensor([True, False]))
    dreams[1].forget(torch.tensor([True, False]))
    forgot, forgot_other, went_on, fresh = (watch(dream, range(5, 8)) for dream in dreams)
    torch.testing.assert_close(forgot[0], fresh[0], **CLOSE)
    torch.testing.assert_close(forgot[0], forgot_other[0], **CLOSE)
    torch.testing.assert_close(forgot[1], went_on[1], **CLOSE)
    assert not torch.allclose(forgot[0], went_on[0], atol=1e-2)
    assert not torch.allclose(forgot[1], forgot_other[1], atol=1e-2)


@pytest.mark.parametrize("with_agent", [False, True])
def test_what_is_compiled_for_two_frames_serves_for_all(exact, backend, build, toy_batch, with_agent):
    """Pitfall 19: the compiled dream is the eager one, past the context length and after rows began anew."""
    model, batch, dreams = build(2), toy_batch(2, 12), []
    settings = SamplerConfig(steps=2, context_length=CONTEXT)
    task = torch.tensor([0, 1]) if with_agent else None
    for compiled in (False, True):
        if compiled:
            compile_dreams(model, pytest.fail)
        dream = Dream(model, settings, noise=noise_from(torch.Generator().manual_seed(1)), task=task)
        dream.observe(batch.latents[:, :3], batch.action[:, :3], batch.action_valid[:, :3])
        z, graphs = [], []
        for t in range(3, 12):
            if t == 9:
                dream.forget(torch.tensor([True, False]))
            z.append(dream.step(batch.action[:, t]).z)
            graphs.append(len(backend))
        dreams.append(torch.stack(z))
    torch.testing.assert_close(dreams[0], dreams[1], **CLOSE)
    assert 0 < graphs[1] == graphs[-1] <= 6  # each kind of block with and without the agent token, or of 1 and 2 frames


def test_an_action_that_is_not_known_leaves_no_trace(build, toy_batch):
    """Neither on the frame that it leads to nor on those after it; of a known one both show."""
    model, batch = build(2), toy_batch(2, 3)
    other = toy_batch(2, 3, seed=1).action

    def dreamed(action: Tensor, valid: list[bool] | None) -> Tensor:
        dream = Dream(model, SamplerConfig(steps=2, context_length=CONTEXT), noise=Noises())
        dream.observe(batch.latents, batch.action, batch.action_valid)
        first = dream.step(action[:, 0], None if valid is None else torch.tensor(valid)).z
        return torch.stack([first, dream.step(batch.action[:, 1]).z], dim=1)

    whole, unknown = dreamed(batch.action, None), dreamed(batch.action, [True, False])
    assert torch.equal(unknown[0], whole[0])
    assert (unknown[1] != whole[1]).flatten(1).any(dim=1).all(), "at either frame"
    assert torch.equal(unknown[1], dreamed(other, [True, False])[1])
    assert (dreamed(other, None)[1] != whole[1]).flatten(1).any(dim=1).all()
