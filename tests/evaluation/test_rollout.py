"""`eval rollout`: dreams under given actions, exchanged actions, and what is compared with what."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ahriuwu_cli.core.artifact import write_weights
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.specs import LatentSpec
from ahriuwu_cli.dynamics.config import DynamicsModelConfig, SamplerConfig
from ahriuwu_cli.dynamics.model import Prediction
from ahriuwu_cli.dynamics.train import DynamicsStage
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.evaluation import dreaming, rollout
from ahriuwu_cli.evaluation.config import EvalSection
from ahriuwu_cli.evaluation.dreaming import DreamSource, draw_contexts, dream_along, load_dreamer, shuffled_actions
from ahriuwu_cli.evaluation.fidelity import step_distance
from ahriuwu_cli.evaluation.metrics import horizon_table
from ahriuwu_cli.evaluation.rollout import evaluate_rollout
from ahriuwu_cli.latents.places import Place
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows
from ahriuwu_cli.nn.cache import KVCache

ORDER = ["reconstruction", "dream", "shuffled actions", "persistence"]
CONTEXT, HORIZON = 4, 4  # as the fixtures set them


# ---------------------------------------------------------------- exchanged actions


@given(count=st.integers(2, 30), context=st.integers(1, 5), horizon=st.integers(1, 5), seed=st.integers(0, 2**31 - 1))
def test_every_window_gets_the_actions_of_another(count: int, context: int, horizon: int, seed: int) -> None:
    windows = torch.arange(count, dtype=torch.float32)
    action = windows[:, None, None].expand(count, context + horizon, 2)  # (M, T, A): who it belongs to
    shuffled = shuffled_actions(action, context, seed)
    assert shuffled.shape == action.shape
    assert torch.equal(shuffled[:, :context], action[:, :context])
    donor = shuffled[:, context, 0]
    assert (donor != windows).all()
    assert torch.equal(donor.sort().values, windows)  # each gives its actions to one other
    assert (shuffled[:, context:] == donor[:, None, None]).all()
    assert torch.equal(shuffled, shuffled_actions(action, context, seed))


# ---------------------------------------------------------------- worlds that know the answer


class KnownWorld(nn.Module):
    """A world whose prediction is known: the truth of a step, or the action that led to it."""

    def __init__(self, truth: Tensor | None) -> None:
        super().__init__()
        self.config = DynamicsModelConfig(dim=16, num_heads=1, num_kv_heads=1, k_max=64)
        self.latent = LatentSpec(num_tokens=3, dim_token=2, layout="line")
        self.truth = truth  # (M, T, N, C), None: every latent of frame t is the action of block t

    def new_cache(self, context_length: int) -> KVCache:
        return KVCache(0, context_length)

    def normalise(self, latents: Tensor) -> Tensor:
        return latents * 2 + 1

    def denormalise(self, z: Tensor) -> Tensor:
        return (z - 1) / 2

    def forward(self, z_tilde: Tensor, tau: Tensor, d: Tensor, action: Tensor, valid: Tensor, **more) -> Prediction:
        if self.truth is None:
            return Prediction(self.normalise(action[..., None].expand_as(z_tilde)), None)
        now = more["cache"].count
        return Prediction(self.normalise(self.truth[:, now : now + tau.shape[1]]), None)


def windows_of(latents: Tensor, action: Tensor) -> LatentBatch:
    flags = torch.ones(latents.shape[:2], dtype=torch.bool)
    return LatentBatch(latents, action, flags, flags.float(), flags, ~flags, flags, torch.zeros(len(latents)).long())


def source(world: KnownWorld, steps: int) -> DreamSource:
    return DreamSource(world, SamplerConfig(steps=steps, context_length=CONTEXT), header=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [1, 4, 16, 64])
def test_an_oracle_dreams_the_truth(cpu_runtime, steps) -> None:
    """Pitfall 4: an oracle's frames come out exactly, however many steps the sampler takes."""
    truth = torch.randn(5, CONTEXT + HORIZON, 3, 2)
    batch = windows_of(truth, torch.zeros(5, CONTEXT + HORIZON, 1))
    dreamed = dream_along(source(KnownWorld(truth), steps), batch, batch.action, CONTEXT, cpu_runtime, seed=0)
    torch.testing.assert_close(dreamed, truth[:, CONTEXT:], rtol=0, atol=1e-6)


def test_each_frame_is_dreamed_under_the_action_that_led_to_it(cpu_runtime) -> None:
    action = torch.randn(5, CONTEXT + HORIZON, 1)
    batch = windows_of(torch.zeros(5, CONTEXT + HORIZON, 3, 2), torch.zeros_like(action))
    dreamed = dream_along(source(KnownWorld(None), 4), batch, action, CONTEXT, cpu_runtime, seed=0)
    expected = action[:, CONTEXT:, :, None].expand(-1, -1, 3, 2)
    torch.testing.assert_close(dreamed, expected, rtol=0, atol=1e-6)


def test_noise_depends_on_the_seed_alone(packed_run, cpu_runtime, awake) -> None:
    """True and exchanged actions are dreamed from equal noise, so that only the actions differ."""
    stage = DynamicsStage(packed_run.config.dynamics, packed_run.packed, cpu_runtime, 0)
    world = DreamSource(awake(stage.module), packed_run.config.dynamics.sampler, header=None)  # type: ignore[arg-type]
    windows = LatentWindows(packed_run.packed, "heldout")
    batch = windows.read(windows.sampler.draw_whole(np.random.default_rng(0), 3, 8), 8)

    def dream(action: Tensor, seed: int) -> Tensor:
        return dream_along(world, batch, action, CONTEXT, cpu_runtime, seed)

    once = dream(batch.action, 1)
    assert once.shape == (3, HORIZON, *batch.latents.shape[2:])
    assert torch.equal(once, dream(batch.action, 1))
    assert not torch.equal(once, dream(batch.action, 2))
    late = batch.action.clone()
    late[:, -1] = (late[:, -1] + 1) % 3
    changed = dream(late, 1)
    assert torch.equal(once[:, :-1], changed[:, :-1])
    assert not torch.equal(once[:, -1], changed[:, -1])


# ---------------------------------------------------------------- what is compared


@pytest.fixture(scope="module")
def untrained(packed_run, cpu_runtime, tmp_path_factory) -> Path:
    """Dynamics as they are before training, as an artifact."""
    stage = DynamicsStage(packed_run.config.dynamics, packed_run.packed, cpu_runtime, 0)
    path = tmp_path_factory.mktemp("untrained") / "dynamics.safetensors"
    fields = stage.describe()
    write_weights(
        path, "dynamics", stage.module.state_dict(), config=fields.config, specs=fields.specs, parents=fields.parents
    )
    return path


@pytest.fixture
def judge(packed_run, untrained, cpu_runtime, tmp_path, monkeypatch):
    """Run `eval rollout`; gives back the report, the true frames and the guesses that were scored."""

    def call(seed: int = 0, **changes):
        scored = {}

        def table(truth, guesses):
            scored.update(truth=truth, guesses=guesses)
            return horizon_table(truth, guesses)

        monkeypatch.setattr(rollout, "horizon_table", table)
        run = packed_run
        report = evaluate_rollout(
            untrained, run.tokenizer, run.packed, run.episodes, tmp_path,
            run.config.eval.model_copy(update=changes), cpu_runtime, seed=seed,
        )  # fmt: skip
        return report, scored["truth"], scored["guesses"]

    return call


def test_run_compile_reaches_the_dreams(packed_run, untrained, cpu_runtime, backend) -> None:
    run, dreamed = packed_run, []
    for compiled in (False, True):
        runtime = replace(cpu_runtime, compile=compiled)
        dreamer = load_dreamer(untrained, run.tokenizer, run.packed, run.episodes, run.config.eval, runtime, seed=0)
        dreamed.append(dreamer.dream())
        assert bool(backend) == compiled
    assert np.abs(dreamed[0].astype(int) - dreamed[1]).max() <= 1


def test_every_reference_stands_beside_the_dream(judge, tmp_path) -> None:
    """Pitfall 10: persistence and the tokenizer's ceiling are in table, JSON and pictures of every rollout."""
    report, truth, guesses = judge()
    assert list(guesses) == list(report.data["curves"]) == [row[0] for row in report.rows] == ORDER
    assert {frames.shape for frames in guesses.values()} == {truth.shape} == {(3, HORIZON, 32, 32, 3)}
    assert json.loads((tmp_path / "rollout.json").read_text()) == report.data
    assert {path.name for path in tmp_path.iterdir()} == {
        "rollout.json", "rollout.gif", "rollout.mp4", "rollout.png", "sheet.png", "dream.png", "reconstruction.png",
    }  # fmt: skip
    for name, curve in horizon_table(truth, guesses).items():
        assert report.data["curves"][name]["psnr"] == pytest.approx(curve.psnr.tolist())
        assert report.data["curves"][name]["ssim"] == pytest.approx(curve.ssim.tolist())
    means = {name: curve["psnr_mean"] for name, curve in report.data["curves"].items()}
    assert report.data["dream_above_persistence_db"] == pytest.approx(means["dream"] - means["persistence"])
    assert report.data["fine_distance"] is None
    assert report.data["dream_above_shuffled_db"] == pytest.approx(means["dream"] - means["shuffled actions"])


def test_persistence_is_the_last_true_frame(judge, packed_run) -> None:
    """Pitfall 7: and all of it comes from held-out episodes."""
    _, truth, guesses = judge()
    store = EpisodeStore.open(packed_run.episodes)
    heldout = [store.read(id_).frames for id_ in store.ids("heldout")]
    assert (guesses["persistence"] == guesses["persistence"][:, :1]).all()
    for true, still in zip(truth, guesses["persistence"][:, 0], strict=True):
        assert any(
            np.array_equal(frames[start : start + HORIZON], true) and np.array_equal(frames[start - 1], still)
            for frames in heldout
            for start in range(CONTEXT, len(frames) - HORIZON + 1)
        )


def test_an_oracle_reaches_the_ceiling_and_noise_does_not(judge, monkeypatch) -> None:
    """Pitfall 10: the metric itself, on latents that are right and on latents that mean nothing."""
    monkeypatch.setattr(dreaming, "dream_along", lambda source, batch, *_: batch.latents[:, CONTEXT:])
    curves = judge()[0].data["curves"]
    assert curves["dream"] == curves["reconstruction"]
    noise = torch.Generator().manual_seed(0)
    monkeypatch.setattr(
        dreaming,
        "dream_along",
        lambda source, batch, *_: 5 * torch.randn(batch.latents[:, CONTEXT:].shape, generator=noise),
    )
    data = judge()[0].data
    assert data["curves"]["dream"] != data["curves"]["reconstruction"]
    assert data["dream_above_persistence_db"] < -5
    distances = {name: curve["video_distance"] for name, curve in data["curves"].items()}
    assert distances["dream"] > 2 * distances["persistence"]


def test_the_seed_chooses_the_contexts(judge) -> None:
    first, again, other = judge(0), judge(0), judge(1)
    assert np.array_equal(first[1], again[1])
    assert first[0].data == again[0].data
    assert not np.array_equal(first[1], other[1])


def test_another_step_count_is_dreamed_from_the_same_noise(judge, monkeypatch) -> None:
    """Pitfall 33: the pair stands in the table, and differs by nothing but the steps."""
    report, _, guesses = judge(sampling_steps=4, fine_steps=4)
    assert list(guesses) == [*ORDER, "dream, K = 4"]
    assert np.array_equal(guesses["dream"], guesses["dream, K = 4"])
    assert report.data["sampling_steps"] == 4
    assert report.data["fine_distance"] == {"pixels": 0, "pixels_mean": 0, "psnr": 100, "psnr_mean": 100}
    seeds = []

    def scaled(source, batch, action, context, runtime, seed, steps):
        seeds.append(seed)
        return batch.latents[:, CONTEXT:] * steps

    monkeypatch.setattr(dreaming, "dream_along", scaled)
    other, _, guesses = judge(sampling_steps=1, fine_steps=8)
    expected = step_distance(guesses["dream"], guesses["dream, K = 8"])
    assert other.data["fine_distance"] == pytest.approx(expected) and expected["pixels"] > 0
    assert len(seeds) == 3 and len(set(seeds)) == 1
    assert "K = 1 and K = 8" in " ".join(other.notes)


@pytest.mark.parametrize("name", ["sampling_steps", "fine_steps"])
def test_more_steps_than_were_trained_are_refused(judge, tmp_path, name) -> None:
    with pytest.raises(ConfigError, match=f"eval.{name} is 16; .* was trained for 8 at most"):
        judge(**{name: 16})
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- contexts of several frames a block


@given(stride=st.integers(1, 8), context=st.integers(1, 3), horizon=st.integers(1, 3), start=st.integers(0, 4))
def test_true_frames_are_those_of_the_blocks(stride, context, horizon, start) -> None:
    """Pitfall 34: blocks i .. i+W-1 are decoded to frames S*i .. S*(i+W-1), and the dream begins after the context."""
    length, asked = context + horizon, []
    frames = np.arange(stride * (start + length) + 5, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    windows = SimpleNamespace(
        latent_spec=LatentSpec(num_tokens=1, dim_token=1, layout="line", stride=stride),
        episodes=[SimpleNamespace(id="000000")],
        sampler=SimpleNamespace(
            draw_whole=lambda rng, count, wanted, **_: asked.append(wanted) or [Place(0, start)] * count
        ),
        read=lambda places, wanted: asked.append(wanted),
    )
    store = SimpleNamespace(frames=lambda _: SimpleNamespace(read=lambda first, last: frames[first:last]))
    settings = EvalSection(contexts=2, context_length=context, horizon=horizon)
    contexts = draw_contexts(windows, store, settings, seed=0)
    assert asked == [length, length]
    shown = contexts.frames[0, :, 0, 0, 0].tolist()
    assert shown == list(range(stride * start, stride * (start + length - 1) + 1))
    last_shown = stride * (start + context - 1)  # the last frame of the last context block
    assert contexts.dreamed(contexts.frames.numpy())[0, :, 0, 0, 0].tolist() == shown[shown.index(last_shown) + 1 :]
    assert contexts.dreamed(contexts.frames.numpy()).shape[1] == stride * horizon
