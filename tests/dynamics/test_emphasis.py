"""Frames at the signal levels that a dream consists of: how many, where, and that training sees them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ahriuwu_cli.dynamics.config import ObjectiveConfig
from ahriuwu_cli.dynamics.heldout import HeldoutWorld
from ahriuwu_cli.dynamics.shortcut_forcing import Emphasis, Levels, draw_levels
from ahriuwu_cli.dynamics.train import draw_inputs
from ahriuwu_cli.latents.heldout import heldout_windows

CPU, K_MAX = torch.device("cpu"), 8


def levels(rows: int = 6000, fraction: float = 0.5) -> Levels:
    return draw_levels(rows, 4, K_MAX, fraction, CPU)


def test_shares_are_as_asked_and_the_rest_is_as_it_was() -> None:
    torch.manual_seed(0)
    drawn = levels()
    found = Emphasis(0.4, 0.3, 0.875).lay_over(drawn, K_MAX)
    assert found.num_bootstrap == drawn.num_bootstrap
    changed = (found.tau != drawn.tau) | (found.d != drawn.d)
    fine = drawn.d[3000:] == 1 / K_MAX
    assert fine.all()
    # of what is drawn from the grid anyway, 1 in 8 is at each level in rows with d_min
    assert (found.tau[3000:] == 0.875).float().mean() == pytest.approx(0.4 + 0.3 / 8, abs=0.02)
    assert (found.tau[3000:] == 0).float().mean() == pytest.approx(0.3 + 0.3 / 8, abs=0.02)
    shown = found.tau[:3000] == 0.875
    assert (found.d[:3000][shown] == 1 / K_MAX).all(), "a past frame has the finest step"
    blank = changed[:3000] & (found.tau[:3000] == 0)
    assert torch.equal(found.d[:3000][blank], drawn.d[:3000][blank]), "the next frame begins with any step size"
    assert found.d[:3000][blank].unique().tolist() == [0.125, 0.25, 0.5], "1 begins at 0 anyway"
    assert torch.equal(found.tau[~changed], drawn.tau[~changed])


def test_neighbours_do_not_know_of_each_other() -> None:
    torch.manual_seed(0)
    tau = Emphasis(0.4, 0.3, 0.875).lay_over(levels(fraction=0.0), K_MAX).tau
    for left in range(3):
        assert abs(torch.corrcoef(tau[:, left : left + 2].T)[0, 1]) < 0.06


def test_without_shares_nothing_is_drawn() -> None:
    drawn = levels(6)
    torch.manual_seed(1)
    assert Emphasis(0.0, 0.0, 0.875).lay_over(drawn, K_MAX) is drawn
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after), "runs that do not ask for it are as they were"


@given(batch=st.tuples(st.integers(1, 9), st.floats(0, 1)), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_levels_stay_on_the_grid_and_flow_has_a_frame(batch, shares) -> None:
    torch.manual_seed(0)
    context, noise = shares
    found = Emphasis(context, min(noise, 1 - context), 0.875).lay_over(levels(*batch), K_MAX)
    assert torch.equal(found.tau / found.d, (found.tau / found.d).round())
    assert found.tau.min() >= 0 and (found.tau + found.d).max() <= 1
    assert (found.d == 1 / K_MAX).any()


def test_more_than_all_is_refused() -> None:
    with pytest.raises(ValidationError, match="more than all"):
        ObjectiveConfig(context_fraction=0.6, noise_fraction=0.5)


def test_training_batches_have_them(build, toy_batch) -> None:
    torch.manual_seed(0)
    objective = ObjectiveConfig(bootstrap_fraction=0, context_fraction=0.5, noise_fraction=0.5)
    forcing = draw_inputs(build(), toy_batch(3000, 2), objective, 0.7).forcing
    found = forcing.levels.tau[:-1]
    assert found.unique().tolist() == [0.0, 0.75], "the sampler's level, on the grid"
    assert (found == 0).float().mean() == pytest.approx(0.5, abs=0.03)


def test_the_next_frame_is_judged_after_frames_as_a_dream_sees_them(packed_run) -> None:
    """`heldout_next` shows the last frame as noise alone and the others at the context's level."""
    judge = HeldoutWorld(heldout_windows(packed_run.packed), count=2, length=4, rows=2, tau_context=0.7)
    tau = judge._dreamt(torch.ones(2, 4, dtype=torch.bool), K_MAX, torch.Generator())
    assert tau.tolist() == [[0.75, 0.75, 0.75, 0.0]] * 2
