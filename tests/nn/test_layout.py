"""Token layout: consecutive slices, and masks that say who sees whom."""

from __future__ import annotations

import torch

from ahriuwu_cli.nn.layout import TokenLayout


def test_slices_follow_each_other() -> None:
    layout = TokenLayout({"action": 1, "none": 0, "latent": 3, "agent": 1})
    assert layout.num_tokens == 5
    assert [list(range(5))[part] for part in layout.slices.values()] == [[0], [], [1, 2, 3], [4]]


def test_visibility_by_hand() -> None:
    layout = TokenLayout({"patch": 2, "latent": 1, "agent": 1})
    mask = layout.visibility({"patch": ["patch"], "latent": ["patch", "latent"]})
    assert mask is not None
    assert mask.dtype == torch.bool
    assert mask.int().tolist() == [
        [1, 1, 0, 0],  # patches see patches
        [1, 1, 0, 0],
        [1, 1, 1, 0],  # latents do not see the agent
        [1, 1, 1, 1],  # not named: sees all
    ]


def test_no_mask_where_all_see_all() -> None:
    layout = TokenLayout({"a": 2, "b": 1})
    assert layout.visibility({}) is None
    assert layout.visibility({"a": ["b", "a"]}) is None


def test_empty_modality_changes_nothing() -> None:
    layout = TokenLayout({"a": 2, "agent": 0})
    assert layout.visibility({"a": ["a"]}) is None
