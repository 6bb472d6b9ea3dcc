"""Dreams at two step counts from the same noise: what tells a model that knows the step size from one that does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ahriuwu_cli.core.specs import LatentSpec
from ahriuwu_cli.dynamics.config import DynamicsModelConfig, SamplerConfig
from ahriuwu_cli.dynamics.model import Prediction
from ahriuwu_cli.evaluation import dreaming
from ahriuwu_cli.evaluation.dreaming import DreamSource, dream_along
from ahriuwu_cli.evaluation.fidelity import step_distance
from ahriuwu_cli.evaluation.metrics import Frames
from ahriuwu_cli.latents.windows import LatentBatch
from ahriuwu_cli.nn.cache import KVCache

CONTEXT, HORIZON, COUNT = 2, 3, 40
SPREAD = 0.3  # of the next frame around what the action says
K_MAX = 64


class FlowWorld(nn.Module):
    """A world whose flow is known: latents of a frame are normal around its action, with spread 0.3.

    On the way from noise to latents they are normal at every tau, with mean tau * action and spread sigma(tau), and
    the flow keeps each one's distance from the mean in units of sigma. Its step of size d is exact; a `blind` one
    gives the velocity at tau for every d, as a model does that does not look at d.
    """

    def __init__(self, blind: bool) -> None:
        super().__init__()
        self.config = DynamicsModelConfig(dim=16, num_heads=1, num_kv_heads=1, k_max=K_MAX)
        self.latent = LatentSpec(num_tokens=4, dim_token=3, layout="line")
        self.blind = blind

    def new_cache(self, context_length: int) -> KVCache:
        return KVCache(0, context_length)

    def normalise(self, latents: Tensor) -> Tensor:
        return latents

    def denormalise(self, z: Tensor) -> Tensor:
        return z

    def forward(self, z: Tensor, tau: Tensor, d: Tensor, action: Tensor, valid: Tensor, **_) -> Prediction:
        tau, mean = tau[..., None, None].double(), action[..., None].double()
        d = torch.full_like(tau, 1e-6) if self.blind else d[..., None, None].double()
        z = z.double()

        def sigma(level: Tensor) -> Tensor:
            return ((1 - level) ** 2 + (level * SPREAD) ** 2).sqrt()

        there = (tau + d) * mean + sigma(tau + d) / sigma(tau) * (z - tau * mean)
        return Prediction((z + (1 - tau) * (there - z) / d).float(), None)


def dreamed(blind: bool, steps: int, seed: int = 0) -> Frames:
    """Frames (M, H, 2, 2, 3) uint8 whose pixels are the dreamed latents."""
    length = CONTEXT + HORIZON
    action = torch.linspace(-1, 1, COUNT * length).reshape(COUNT, length, 1)
    flags = torch.ones(COUNT, length, dtype=torch.bool)
    z = torch.zeros(COUNT, length, 4, 3)
    batch = LatentBatch(z, action, flags, flags.float(), flags, ~flags, flags, torch.zeros(COUNT).long())
    source = DreamSource(FlowWorld(blind), SamplerConfig(context_length=CONTEXT), header=None)  # type: ignore[arg-type]
    runtime = dreaming.Runtime(torch.device("cpu"), "fp32")
    latents = dream_along(source, batch, action, CONTEXT, runtime, seed, steps)  # (M, H, 4, 3)
    pixels = (127.5 + 60 * latents).round().clamp(0, 255).to(torch.uint8)
    return pixels.reshape(COUNT, HORIZON, 2, 2, 3).numpy()


def test_a_model_that_knows_the_step_goes_the_same_way() -> None:
    """Pitfall 33: from the same noise, K = 4 and K = 64 of an exact model give the same frames."""
    apart = step_distance(dreamed(False, 4), dreamed(False, K_MAX))
    assert apart["pixels"] < 0.01 and apart["pixels_mean"] < 0.01  # of 255: rounding


def test_a_model_that_ignores_the_step_is_told_apart() -> None:
    """Pitfall 33: each of its single steps is right, the pair of dreams is not."""
    single = step_distance(dreamed(True, K_MAX), dreamed(False, K_MAX))
    assert single["pixels_mean"] < 1  # in the finest steps nothing is wrong with it
    apart = step_distance(dreamed(True, 4), dreamed(True, K_MAX))
    assert apart["pixels"] > 3 and apart["pixels_mean"] > 3
    assert apart["psnr_mean"] < 40 < single["psnr_mean"]


def test_other_noise_is_another_frame() -> None:
    """The pair must share its noise: dreams of other noise are far apart even for an exact model."""
    assert step_distance(dreamed(False, 4), dreamed(False, K_MAX, seed=1))["pixels"] > 10


def test_contexts_dreamed_in_parts_share_no_noise(monkeypatch) -> None:
    monkeypatch.setattr(dreaming, "DREAM_BATCH", 10)
    parts = dreamed(False, 4)
    action = np.linspace(-1, 1, COUNT * (CONTEXT + HORIZON)).reshape(COUNT, -1)[:, CONTEXT:, None, None, None]
    noise = ((parts - 127.5) / 60 - action).reshape(COUNT, -1)  # what is not the action's is the noise's
    assert np.abs(np.corrcoef(noise) - np.eye(COUNT)).max() < 0.75


def test_the_numbers_by_hand() -> None:
    few, many = np.zeros((2, 2, 1, 1, 3), np.uint8), np.zeros((2, 2, 1, 1, 3), np.uint8)
    many[0, 0], many[:, 1] = 10, 4
    apart = step_distance(few, many)
    assert apart["pixels"] == 5 and apart["pixels_mean"] == 4.5
    ten, four = 20 * np.log10(25.5), 20 * np.log10(255 / 4)
    assert apart["psnr"] == pytest.approx((ten + 100) / 2)
    assert apart["psnr_mean"] == pytest.approx((ten + 100 + 2 * four) / 4)
