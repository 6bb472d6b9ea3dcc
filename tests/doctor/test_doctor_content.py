"""What the doctor says of values: latents that carry nothing, statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import Tensor

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.doctor.encodings import Spread
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.config import Run

# ---------------------------------------------------------------- latents


def test_a_dead_channel(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    """Pitfall 30: a tokenizer with a channel that carries nothing, taken through the real stage."""
    keep_until(run, "tokenizer")

    def kill(tensors: dict[str, Tensor]) -> None:
        name = max(name for name in tensors if name.startswith("encoder.") and name.endswith(".weight"))
        tensors[name][2] = 0

    sign(run.tokenizer, tensors=kill)
    stages.build_latents(run)
    [problem] = doctor(run).problems
    assert problem[:3] == (
        "latents",
        "spread",
        "tokenizer collapsed: 1 of 4 channels have a spread below 0.001 (2)",
    )
    assert problem.hint.startswith("train the tokenizer longer")


def test_latents_that_do_not_depend_on_the_frame() -> None:
    """Pitfall 30: every image gives the mean image; channels still differ from token to token."""
    spread, varied = Spread(), Spread()
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, 3, 2))
    for _ in range(2):
        spread.add(np.repeat(one, 5, axis=0).astype(np.float16))
        varied.add(rng.normal(size=(5, 3, 2)))
    assert spread.channels()[1].min() > 0.1
    assert spread.over_frames() < 1e-6
    assert varied.over_frames() > 0.1


def test_spread_is_that_of_all_values() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=(7, 3, 2))
    spread = Spread()
    spread.add(values[:4])
    spread.add(values[4:])
    mean, std = spread.channels()
    np.testing.assert_allclose(mean, values.mean(axis=(0, 1)))
    np.testing.assert_allclose(std, values.std(axis=(0, 1)))
    assert spread.over_frames() == pytest.approx(values.std(axis=0).max())


def test_statistics_that_are_not_those_of_the_latents(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    keep_until(run, "latents")
    mean = read_header(run.latents, "latents").specs["latent"]["mean"]
    sign(run.latents, header=lambda fields: fields["specs"]["latent"].update(mean=[mean[0] + 0.5, *mean[1:]]))
    [problem] = doctor(run).problems
    assert problem[:2] == ("latents", "statistics")
    assert problem.found == f"mean of channel 0 is recorded as {mean[0] + 0.5:.4g}, found {mean[0]:.4g}"
