"""Imagination on held-out data: dreams from contexts never dreamed from, without a trace in training."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from ahriuwu_cli.imagination.heldout import heldout_contexts
from ahriuwu_cli.imagination.train import train_imagination
from ahriuwu_cli.latents.heldout import heldout_windows


@pytest.mark.parametrize("transformer", ["frozen", "finetuned"])
def test_measuring_leaves_no_trace_and_is_in_the_header(packed_run, agent_path, cpu_runtime, tmp_path, transformer):
    """Context draws, dreams, running averages and slow values: bit-equal with and without."""
    made = {}
    for every in (0, 1):
        section = packed_run.config.imagine
        settings = section.train.model_copy(update={"heldout_every": every, "steps": 3})
        section = section.model_copy(update={"train": settings, "transformer": transformer, "updates_per_rollout": 2})
        folder = tmp_path / str(every)
        made[every] = train_imagination(
            section, agent_path, packed_run.packed, folder, cpu_runtime, seed=0, resume=False
        )
    left, right = (load_file(tmp_path / str(every) / "imagination.state.safetensors") for every in (0, 1))
    assert not [name for name in left | right if not torch.equal(left[name], right[name])]
    assert made[0].header.info["heldout"] == {}
    found = made[1].header.info["heldout"]
    assert {"heldout_imagined_return", "heldout_kl_to_prior", "heldout_value_error", "heldout_entropy"} <= set(found)
    assert ({"heldout_prior", "heldout_reward", "heldout_flow"} <= set(found)) == (transformer == "finetuned")


def test_contexts_that_no_held_out_episode_has(packed_run):
    windows, section = heldout_windows(packed_run.packed), packed_run.config.imagine
    contexts = heldout_contexts(section, windows)
    assert len(contexts.valid) == section.train.batch_size
    again = heldout_contexts(section, windows)
    assert torch.equal(contexts.latents, again.latents)
    assert heldout_contexts(section.model_copy(update={"context_length": 4000}), windows) is None
