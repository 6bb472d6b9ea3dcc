"""The benches on minuscule work, through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ahriuwu_cli.bench.config import BenchConfig, load_bench
from ahriuwu_cli.cli.main import run

MINUSCULE = (
    "run.threads=1",
    "timing={repeats=2, warmup=0, matmul_size=8, bandwidth_mib=1}",
    "frame={height=16, width=16}",
    "latent={num_tokens=3, dim_token=2, num_actions=3}",
    "tokenizer={also_patch=4, clip_length=3, batch_size=2}",
    "tokenizer.model={patch=8, dim=16, num_encoder_layers=2, num_decoder_layers=2, num_heads=2, num_kv_heads=1, "
    "time_every=2, num_bottleneck=3, dim_bottleneck=2, num_tokens=3, context_length=2}",
    "dynamics={length=4, batch_size=3}",
    "dynamics.model={dim=16, num_layers=2, num_heads=2, num_kv_heads=1, time_every=2, num_registers=1, k_max=8, "
    "feed_width=24}",
    "sampler={steps=2, context_length=3, frames=20}",
    "latents={episodes=2, episode_frames=9, batch_size=4}",
    "latents.windows={layouts=[[2, 3]], rows=16, length=4, batch_size=2}",
    "data={sizes=[8], clip_lengths=[1, 3], episode_frames=12, clips=2, episodes=2}",
)


@pytest.fixture(scope="session")
def minuscule() -> Callable[..., BenchConfig]:
    """The smallest work there is, with overrides on top."""
    return lambda *overrides: load_bench(None, [*MINUSCULE, *overrides])


@pytest.fixture
def bench(capfd: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run `ahriuwu bench ARGUMENTS... --json` on minuscule work and give back its data."""

    def call(*arguments: str) -> dict[str, Any]:
        capfd.readouterr()
        changes = [part for override in MINUSCULE for part in ("-s", override)]
        code = run(["bench", arguments[0], *changes, *arguments[1:], "--json"])
        out, err = capfd.readouterr()
        assert code == 0, err
        data: dict[str, Any] = json.loads(out)
        return data

    return call
